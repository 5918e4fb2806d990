"""Workflow files held against a running ComfyUI's `/object_info`.

A template exists twice: as the canvas shows it (UI format 0.4: nodes with widget values, links) and as the queue takes
it (API format: `{id: {"class_type", "inputs"}}`). Each check returns sentences, one per problem; none is good.

A subgraph is a node whose type is the id of a definition: a graph in which what comes in leaves a node -10, and what
goes out reaches a node -20.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

NOTES = ("Note", "MarkdownNote")  # on the canvas only
WIDGETS = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool, "COMBO": object}
CONTROLS = ("fixed", "increment", "decrement", "randomize")  # what happens to a seed after a run
TITLE_HEIGHT = 30  # pixels above a node's `pos`
LOADERS = {  # and what stands for them
    "CheckpointLoaderSimple": "TinyTestFlow",
    "UNETLoader": "TinyTestFlowModel",
    "CLIPLoader": "TinyTestFlowClip",
    "DualCLIPLoader": "TinyTestFlowClip",
    "VAELoader": "TinyTestFlowVae",
}
FLOW_FILES = {  # part of a file's name → family of the tiny pack's FLOW
    "z_image": "z-image",
    "flux1-schnell": "schnell",
    "flux1": "flux",
    "qwen_image_2512": "qwen-image",
    "krea2": "krea-2",
    "sd3.5": "sd3",
}
GIVEN, RESULT = -10, -20  # the ends of a subgraph


@dataclass(frozen=True)
class Input:
    """One input of a node as `/object_info` describes it."""

    name: str
    type: str
    required: bool
    settings: dict  # min, max, options, …

    @property
    def is_widget(self) -> bool:
        return self.type in WIDGETS and not self.settings.get("forceInput")

    @property
    def has_control(self) -> bool:
        """Whether the canvas stores a second value, one of CONTROLS, behind this widget's."""
        by_name = self.type == "INT" and self.name in ("seed", "noise_seed")
        return bool(self.settings.get("control_after_generate", by_name))

    def problem(self, value, downloads: set[str]) -> str | None:
        """What is wrong with a widget value; a file that `downloads` names need not be on the server."""
        if self.type == "COMBO":
            if value not in self.settings["options"] and value not in downloads:
                return f"{value!r} is none of {self.settings['options']}"
        elif not isinstance(value, WIDGETS[self.type]) or (isinstance(value, bool) and self.type != "BOOLEAN"):
            return f"{value!r} is no {self.type}"
        elif self.type in ("INT", "FLOAT"):
            low, high = self.settings.get("min", value), self.settings.get("max", value)
            if not low <= value <= high:
                return f"{value} is not in {low}..{high}"
        return None


def inputs_of(info: dict) -> dict[str, Input]:
    """The inputs of a node in the order of the canvas."""
    inputs = {}
    for section in ("required", "optional"):
        for name in info["input_order"].get(section, []):
            kind, *rest = info["input"][section][name]
            settings = dict(rest[0]) if rest else {}
            if isinstance(kind, list):  # how nodes of the first generation write a combo
                kind, settings["options"] = "COMBO", kind
            inputs[name] = Input(name, kind, section == "required", settings)
    return inputs


def connects(origin: str, target: str) -> bool:
    return "*" in (origin, target) or bool(set(origin.split(",")) & set(target.split(",")))


def output_types(info: dict) -> list[str]:
    return ["COMBO" if isinstance(kind, list) else kind for kind in info["output"]]


def graph_nodes(workflow: dict) -> list[dict]:
    """The nodes of a canvas that compute something, those inside of subgraphs too."""
    subgraphs = definitions(workflow)
    nodes = [node for graph in (workflow, *subgraphs.values()) for node in graph["nodes"]]
    return [node for node in nodes if node["type"] not in (*NOTES, *subgraphs)]


def definitions(workflow: dict) -> dict[str, dict]:
    """Node type → the graph inside of such nodes."""
    return {definition["id"]: definition for definition in workflow.get("definitions", {}).get("subgraphs", [])}


def links_of(graph: dict) -> list[list]:
    """`[id, origin, slot, target, slot, type]` of every link; a subgraph has them by name."""
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return [[link[name] for name in names] if isinstance(link, dict) else link for link in graph["links"]]


def note_text(workflow: dict) -> str:
    return "\n".join(str(node["widgets_values"][0]) for node in workflow["nodes"] if node["type"] in NOTES)


def models_of(workflow: dict) -> list[dict]:
    """What the canvas offers to download: `{"name", "url", "directory"}` of every loader."""
    return [model for node in graph_nodes(workflow) for model in node["properties"].get("models", [])]


def own_nets(workflow: dict) -> set[str]:
    """Names of the NPNets that a canvas loads and nobody has published."""
    named = {node["widgets_values"][0] for node in graph_nodes(workflow) if node["type"] == "NPNetLoad"}
    return named - {model["name"] for model in models_of(workflow)}


# ---- the canvas -----------------------------------------------------------------------------------------------------


def canvas_problems(workflow: dict, object_info: dict) -> list[str]:
    """Everything that would show as red, missing or misplaced when the workflow is opened."""
    problems = []
    if workflow.get("version") != 0.4:
        problems.append(f"version is {workflow.get('version')}, not 0.4")
    unknown = [node for node in graph_nodes(workflow) if node["type"] not in object_info]
    if unknown:
        return problems + [f"{_title(node)}: no such node" for node in unknown]
    graphs = [workflow, *definitions(workflow).values()]
    for kind, ids in (
        ("node", [node["id"] for graph in graphs for node in graph["nodes"]]),
        ("link", [link[0] for graph in graphs for link in links_of(graph)]),
    ):
        if len(ids) != len(set(ids)):
            problems.append(f"a {kind} id stands twice")
        if max(ids, default=0) > workflow[f"last_{kind}_id"]:
            problems.append(f"last_{kind}_id is below {max(ids)}")
    object_info = {**object_info, **{kind: _subgraph_info(graph) for kind, graph in definitions(workflow).items()}}
    for graph in graphs:
        nodes = [node for node in graph["nodes"] if node["type"] not in NOTES]
        for node in nodes:
            problems += [f"{_title(node)}: {p}" for p in _node_problems(node, graph, object_info[node["type"]])]
        ends, infos = _ends(graph) if graph is not workflow else ([], {})
        for link in links_of(graph):
            problems += [
                f"link {link[0]}: {p}" for p in _link_problems(link, [*nodes, *ends], {**object_info, **infos})
            ]
    return problems


def _info(inputs: list[dict], outputs: list[dict]) -> dict:
    """What `/object_info` would say of a node with these slots."""
    return {
        "input": {"required": {slot["name"]: [slot["type"], {"control_after_generate": False}] for slot in inputs}},
        "input_order": {"required": [slot["name"] for slot in inputs]},
        "output": [slot["type"] for slot in outputs],
        "output_name": [slot["name"] for slot in outputs],
    }


def _subgraph_info(definition: dict) -> dict:
    return _info(definition["inputs"], definition["outputs"])


def _ends(definition: dict) -> tuple[list[dict], dict[str, dict]]:
    """What comes in and what goes out as two nodes, and their `/object_info`."""
    given = [{**slot, "links": slot["linkIds"]} for slot in definition["inputs"]]
    result = [{**slot, "link": slot["linkIds"][0]} for slot in definition["outputs"]]
    nodes = [
        {"id": GIVEN, "type": "given", "outputs": given},
        {"id": RESULT, "type": "result", "inputs": result},
    ]
    return nodes, {"given": _info([], given), "result": _info(result, [])}


def overlaps(workflow: dict) -> list[str]:
    """Pairs of nodes, notes included, that lie on each other."""
    return [
        f"{_title(one)} overlaps {_title(other)}"
        for graph in (workflow, *definitions(workflow).values())
        for i, one in enumerate(graph["nodes"])
        for other in graph["nodes"][:i]
        if _overlap(_box(one), _box(other))
    ]


def _box(node: dict) -> tuple[float, float, float, float]:
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE_HEIGHT, x + width, y + height


def _overlap(one: tuple, other: tuple) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _title(node: dict) -> str:
    return f"{node['type']} {node['id']}"


def _node_problems(node: dict, graph: dict, info: dict) -> list[str]:
    problems = []
    if node["mode"] != 0:
        problems.append("is muted or bypassed")
    inputs = inputs_of(info)
    slots = {slot["name"]: slot for slot in node.get("inputs", [])}
    for name, slot in slots.items():
        if name not in inputs:
            problems.append(f"has no input {name}")
        elif not connects(slot["type"], inputs[name].type):
            problems.append(f"{name} is {inputs[name].type}, not {slot['type']}")
    for input in inputs.values():
        if input.required and not input.is_widget and slots.get(input.name, {}).get("link") is None:
            problems.append(f"{input.name} is not connected")
    outputs = [(slot["name"], slot["type"]) for slot in node.get("outputs", [])]
    expected_outputs = list(zip(info["output_name"], output_types(info), strict=True))
    if not info.get("python_module", "").startswith("custom_nodes"):
        expected_outputs = expected_outputs[: len(outputs)]  # a newer ComfyUI's nodes have more
    if outputs != expected_outputs:
        problems.append(f"outputs are {expected_outputs}, not {outputs}")
    expected_values = sum(1 + input.has_control for input in inputs.values() if input.is_widget)
    values = node.get("widgets_values", [])
    if not values and "python_module" not in info:
        pass  # a subgraph without values of its own: those inside of it stand
    elif len(values) != expected_values:
        problems.append(f"has {expected_values} widget values, not {len(values)}")
    else:
        problems += [
            f"{input.name} has control {control!r}"
            for input, _, control in _widget_values(node, info)
            if input.has_control and control not in CONTROLS
        ]
    known = {link[0] for link in links_of(graph)}
    used = [slot["link"] for slot in slots.values() if slot.get("link") is not None]
    used += [link for slot in node.get("outputs", []) for link in slot.get("links") or []]
    problems += [f"link {link} does not exist" for link in used if link not in known]
    return problems


def _widget_values(node: dict, info: dict) -> list[tuple[Input, object, object]]:
    """(input, value, what happens to it after a run or None) of each widget."""
    values = iter(node.get("widgets_values", []))
    return [
        (input, next(values), next(values) if input.has_control else None)
        for input in inputs_of(info).values()
        if input.is_widget
    ]


def _link_problems(link: list, nodes: list[dict], object_info: dict) -> list[str]:
    link_id, origin_id, origin_slot, target_id, target_slot, kind = link
    nodes = {node["id"]: node for node in nodes}
    if origin_id not in nodes or target_id not in nodes:
        return [f"from node {origin_id} to node {target_id}, which do not both exist"]
    origin, target = nodes[origin_id], nodes[target_id]
    problems = []
    outputs = origin.get("outputs", [])
    if origin_slot >= len(outputs) or link_id not in (outputs[origin_slot].get("links") or []):
        problems.append(f"is not an output {origin_slot} of {_title(origin)}")
    slots = target.get("inputs", [])
    if target_slot >= len(slots) or slots[target_slot].get("link") != link_id:
        problems.append(f"is not an input {target_slot} of {_title(target)}")
    if problems:
        return problems
    kinds = output_types(object_info[origin["type"]])
    gives = kinds[origin_slot] if origin_slot < len(kinds) else outputs[origin_slot]["type"]
    wanted = inputs_of(object_info[target["type"]]).get(slots[target_slot]["name"])
    if kind != gives or wanted is None or not connects(gives, wanted.type):
        problems.append(f"carries {gives} as {kind} to {wanted and wanted.type}")
    return problems


def to_prompt(workflow: dict, object_info: dict) -> dict:
    """What the canvas queues: the API format of a workflow without canvas problems. "7:12" is node 12 inside of 7."""
    subgraphs = definitions(workflow)

    def origin(link_id: int, graph: dict, outer: dict | None):
        """Where a link's value comes from: [node id, slot], or a subgraph's widget; None is the value inside of it."""
        _, node_id, slot, *_ = next(link for link in links_of(graph) if link[0] == link_id)
        if node_id == GIVEN:
            name = graph["inputs"][slot]["name"]
            given = next((each for each in outer["inputs"] if each["name"] == name), None)
            if given is not None and given["link"] is not None:
                return origin(given["link"], workflow, None)
            if given is None or not outer.get("widgets_values"):
                return None
            widgets = [each["name"] for each in outer["inputs"] if "widget" in each]
            return outer["widgets_values"][widgets.index(name)]
        node = next(node for node in graph["nodes"] if node["id"] == node_id)
        if node["type"] in subgraphs:
            inside = subgraphs[node["type"]]
            (result,) = inside["outputs"][slot]["linkIds"]
            return origin(result, inside, node)
        return [path(node, outer), slot]

    def path(node: dict, outer: dict | None) -> str:
        return f"{outer['id']}:{node['id']}" if outer else str(node["id"])

    prompt = {}

    def add(graph: dict, outer: dict | None) -> None:
        for node in graph["nodes"]:
            if node["type"] in subgraphs:
                add(subgraphs[node["type"]], node)
            elif node["type"] not in NOTES:
                inputs = {input.name: value for input, value, _ in _widget_values(node, object_info[node["type"]])}
                for slot in node.get("inputs", []):
                    if slot.get("link") is not None and (value := origin(slot["link"], graph, outer)) is not None:
                        inputs[slot["name"]] = value
                prompt[path(node, outer)] = {"class_type": node["type"], "inputs": inputs}

    add(workflow, None)
    return prompt


# ---- the queue ------------------------------------------------------------------------------------------------------


def prompt_problems(prompt: dict, object_info: dict, downloads: set[str]) -> list[str]:
    """Every unknown node or input, missing input, wrong value and wrong link of a graph in API format."""
    problems = []
    for node_id, node in prompt.items():
        name = f"{node['class_type']} {node_id}"
        if node["class_type"] not in object_info:
            problems.append(f"{name}: no such node")
            continue
        inputs = inputs_of(object_info[node["class_type"]])
        problems += [f"{name}: has no input {unknown}" for unknown in node["inputs"].keys() - inputs.keys()]
        for input in inputs.values():
            if input.name in node["inputs"]:
                problem = _value_problem(input, node["inputs"][input.name], prompt, object_info, downloads)
            else:
                problem = "is missing" if input.required else None
            if problem:
                problems.append(f"{name}: {input.name} {problem}")
    return problems


def _value_problem(input: Input, value, prompt: dict, object_info: dict, downloads: set[str]) -> str | None:
    if not isinstance(value, list):
        return input.problem(value, downloads) if input.is_widget else f"is {value!r}, not a link"
    origin_id, slot = value
    info = object_info.get(prompt.get(origin_id, {}).get("class_type"))
    kinds = output_types(info) if info else []
    if slot >= len(kinds):
        return f"is linked to {origin_id}.{slot}, which does not exist"
    return None if connects(kinds[slot], input.type) else f"is {input.type}, the link is {kinds[slot]}"


def without_meta(prompt: dict) -> dict:
    """A graph in API format without the titles that the canvas adds."""
    return {node_id: {key: node[key] for key in ("class_type", "inputs")} for node_id, node in prompt.items()}


def flow_family(prompt: dict) -> str | None:
    """The family of the tiny pack's FLOW whose files a graph in API format loads, if any."""
    named = [str(node["inputs"]).lower() for node in prompt.values() if node["class_type"] in LOADERS]
    return next((family for name, family in FLOW_FILES.items() if any(name in inputs for inputs in named)), None)


def tiny_family(prompt: dict) -> str:
    """The family of the tiny models that stand for those of a graph in API format."""
    whole = str([node["inputs"] for node in prompt.values() if node["class_type"] == "CheckpointLoaderSimple"])
    return flow_family(prompt) or ("hunyuan-dit" if "hunyuan" in whole else "sdxl")


def with_tiny_models(prompt: dict, values: dict[str, dict] | None = None) -> dict:
    """The graph with tiny models for its checkpoints.

    `values` are inputs to set on every node of a class: a tiny file for `NPNetLoad`, a small picture for
    `EmptyLatentImage`.
    """
    prompt = copy.deepcopy(prompt)
    family, flow = tiny_family(prompt), flow_family(prompt)
    for node in prompt.values():
        if flow and node["class_type"] in LOADERS:
            seed = int("turbo" in str(node["inputs"]))  # weights of its own beside its sibling's
            node["class_type"], node["inputs"] = LOADERS[node["class_type"]], {"family": family, "seed": seed}
        elif node["class_type"] == "CheckpointLoaderSimple":
            node["class_type"] = "TinyTestHunyuanDiT" if family == "hunyuan-dit" else "TinyTestModel"
            node["inputs"] = {"seed": 0}
        node["inputs"].update((values or {}).get(node["class_type"], {}))
    return prompt
