// Nodes that report something show it on themselves after a run.
import { app } from "../../../scripts/app.js";

const REPORTING = new Set(["NPNetHPSFilter", "NPNetPickBest", "NPNetSavePair"]);
const HEIGHT = 70; // at least, in pixels
const PLACEHOLDER = { en: "reports here after a run", zh: "运行后在这里显示报告" };

app.registerExtension({
  name: "npnet.report",
  nodeCreated(node) {
    if (!REPORTING.has(node.comfyClass)) return;

    const text = document.createElement("textarea");
    text.className = "comfy-multiline-input";
    text.readOnly = true;
    text.placeholder = PLACEHOLDER[app.extensionManager.setting.get("Comfy.Locale")] ?? PLACEHOLDER.en;
    const widget = node.addDOMWidget("npnet_report", "report", text, {
      serialize: false, // not among the inputs that are queued
      getMinHeight: () => HEIGHT,
      getValue: () => text.value,
      setValue: (value) => (text.value = value),
    });
    widget.serialize = false; // nor in saved workflows
    node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);

    const onExecuted = node.onExecuted;
    node.onExecuted = function (output) {
      onExecuted?.call(this, output);
      widget.value = output.text.join("\n");
    };
  },
});
