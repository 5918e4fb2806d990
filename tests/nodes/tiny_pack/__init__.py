"""A pack for tests only: nodes that stand where a checkpoint loader would, with tiny random models.

$DYNAMIC_MEMORY switches ComfyUI's dynamic memory on, as main.py does where it finds an NVIDIA card.
"""

import os

from comfy_api.latest import ComfyExtension

if os.environ.get("DYNAMIC_MEMORY"):
    import comfy.memory_management
    import comfy.model_patcher

    comfy.memory_management.aimdo_enabled = True
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic


class TinyPack(ComfyExtension):
    async def get_node_list(self):
        from . import loaders

        whole = [loaders.TinyTestModel, loaders.TinyTestHunyuanDiT, loaders.TinyTestFlow]
        return [*whole, loaders.TinyTestFlowModel, loaders.TinyTestFlowClip, loaders.TinyTestFlowVae]


async def comfy_entrypoint() -> TinyPack:
    return TinyPack()
