"""The ComfyUI entry point of NPNet Golden Noise."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Called once by ComfyUI; the nodes are imported here, so that importing this folder elsewhere does nothing."""
    from .nodes import NPNetExtension

    return NPNetExtension()
