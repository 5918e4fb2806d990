"""A pack for tests only: nodes that stand where a checkpoint loader would, with tiny random models."""

from comfy_api.latest import ComfyExtension


class TinyPack(ComfyExtension):
    async def get_node_list(self):
        from .loaders import TinyTestHunyuanDiT, TinyTestModel

        return [TinyTestModel, TinyTestHunyuanDiT]


async def comfy_entrypoint() -> TinyPack:
    return TinyPack()
