"""The node pack as ComfyUI sees it."""

from comfy_api.latest import ComfyExtension, io

from .dataset import NPNetSavePair
from .golden import NPNetLoad, NPNetModelPatch, NPNetNoise
from .preference import NPNetHPSFilter, NPNetPickBest, NPNetScorerLoad
from .redenoise import NPNetRedenoisePair
from .redenoise_patch import NPNetRedenoisePatch
from .replacements import register_replacements
from .small_pipeline import NPNetSmallPipelineLoad


class NPNetExtension(ComfyExtension):
    async def on_load(self) -> None:
        await register_replacements()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            NPNetLoad,
            NPNetNoise,
            NPNetModelPatch,
            NPNetRedenoisePair,
            NPNetRedenoisePatch,
            NPNetScorerLoad,
            NPNetHPSFilter,
            NPNetPickBest,
            NPNetSavePair,
            NPNetSmallPipelineLoad,
        ]
