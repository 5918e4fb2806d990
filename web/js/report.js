// Nodes that report something show it on themselves after they ran.
import { app } from "../../scripts/app.js";
import { ComfyWidgets } from "../../scripts/widgets.js";

const REPORTING = new Set(["NPNetHPSFilter", "NPNetPickBest", "NPNetSavePair"]);

app.registerExtension({
  name: "npnet.report",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!REPORTING.has(nodeData.name)) return;
    const onExecuted = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (message) {
      onExecuted?.apply(this, arguments);
      let widget = this.widgets?.find((w) => w.name === "npnet_report");
      if (!widget) {
        widget = ComfyWidgets.STRING(this, "npnet_report", ["STRING", { multiline: true }], app).widget;
        widget.inputEl.readOnly = true;
        widget.serialize = false; // neither in saved workflows nor among the node's inputs
        widget.options.serialize = false;
        widget.serializeValue = async () => undefined;
        this.setSize([this.size[0], Math.max(this.size[1], this.computeSize()[1])]);
      }
      widget.value = message.text.join("\n");
    };
  },
});
