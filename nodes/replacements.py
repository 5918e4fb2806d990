"""What stands for other packs' nodes in graphs that were made with them."""

from __future__ import annotations

from comfy_api.latest import ComfyAPI, io

# Of LucipherDev/ComfyUI-Golden-Noise and of asagi4/ComfyUI-NPNet: the node, and the name of its conditioning.
GOLDEN_NOISE = {"GoldenNoise": "conditioning", "NPNetGoldenNoise": "prompt"}


async def register_replacements() -> None:
    """Let ComfyUI offer NPNet Golden Noise for them; from 0.15 on it can.

    They load their file themselves, so that the user connects Load NPNet, which ComfyUI then asks for.
    """
    if not hasattr(io, "NodeReplace"):
        return
    for node_id, conditioning in GOLDEN_NOISE.items():
        await ComfyAPI().node_replacement.register(
            io.NodeReplace(
                new_node_id="NPNetNoise",
                old_node_id=node_id,
                input_mapping=[
                    {"new_id": "noise", "old_id": "noise"},
                    {"new_id": "conditioning", "old_id": conditioning},
                    {"new_id": "strength", "set_value": 1.0},
                    {"new_id": "long_prompt", "set_value": "truncate"},
                ],
                output_mapping=[{"new_idx": 0, "old_idx": 0}],
            )
        )
