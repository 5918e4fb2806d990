"""The node pack as ComfyUI sees it."""

from comfy_api.latest import ComfyExtension, io

from .golden import NPNetLoad, NPNetModelPatch, NPNetNoise
from .redenoise import NPNetRedenoisePair


class NPNetExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [NPNetLoad, NPNetNoise, NPNetModelPatch, NPNetRedenoisePair]
