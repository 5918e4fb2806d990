"""The nodes: same outputs, in the same order, as CheckpointLoaderSimple."""

from __future__ import annotations

from comfy_api.latest import io

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
