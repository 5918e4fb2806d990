"""The nodes: same outputs, in the same order, as CheckpointLoaderSimple, or as the loaders of a checkpoint's parts."""

from __future__ import annotations

from comfy_api.latest import io

from .flow import FLOW, tiny_flow, tiny_flow_clip, tiny_flow_vae
from .models import tiny_hunyuan_dit, tiny_sdxl, tiny_vae
from .text import tiny_hunyuan_clip, tiny_sdxl_clip


def _schema(node_id: str, display_name: str) -> io.Schema:
    return io.Schema(
        node_id=node_id,
        display_name=display_name,
        category="testing",
        inputs=[io.Int.Input("seed", default=0, min=0, max=2**32 - 1)],
        outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
    )


class TinyTestModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("TinyTestModel", "Tiny SDXL (test)")

    @classmethod
    def execute(cls, seed: int) -> io.NodeOutput:
        return io.NodeOutput(tiny_sdxl(seed), tiny_sdxl_clip(seed), tiny_vae(seed))


class TinyTestHunyuanDiT(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("TinyTestHunyuanDiT", "Tiny HunyuanDiT (test)")

    @classmethod
    def execute(cls, seed: int) -> io.NodeOutput:
        return io.NodeOutput(tiny_hunyuan_dit(seed), tiny_hunyuan_clip(seed), tiny_vae(seed))


class TinyTestFlow(io.ComfyNode):
    """Of a family of FLOW, all in one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _of_family("TinyTestFlow", io.Model, io.Clip, io.Vae)

    @classmethod
    def execute(cls, family: str, seed: int) -> io.NodeOutput:
        return io.NodeOutput(tiny_flow(family, seed), tiny_flow_clip(family, seed), tiny_flow_vae(family, seed))


class TinyTestFlowModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _of_family("TinyTestFlowModel", io.Model)

    @classmethod
    def execute(cls, family: str, seed: int) -> io.NodeOutput:
        return io.NodeOutput(tiny_flow(family, seed))


class TinyTestFlowClip(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _of_family("TinyTestFlowClip", io.Clip)

    @classmethod
    def execute(cls, family: str, seed: int) -> io.NodeOutput:
        return io.NodeOutput(tiny_flow_clip(family, seed))


class TinyTestFlowVae(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _of_family("TinyTestFlowVae", io.Vae)

    @classmethod
    def execute(cls, family: str, seed: int) -> io.NodeOutput:
        return io.NodeOutput(tiny_flow_vae(family, seed))


def _of_family(node_id: str, *outputs: type) -> io.Schema:
    family = io.Combo.Input("family", options=[name for name, tiny in FLOW.items() if tiny.here])
    seed = io.Int.Input("seed", default=0, min=0, max=2**32 - 1)
    made = [output.Output() for output in outputs]
    return io.Schema(node_id=node_id, category="testing", inputs=[family, seed], outputs=made)
