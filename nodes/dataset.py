"""Save Noise Pair: pairs from a graph → a dataset that ``npnet fit`` reads."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..npnet_core.errors import InputError
from ..npnet_core.npd import Manifest, NPDWriter, dataset_folder
from .latents import image_noise
from .redenoise import NoisePair, PairSocket
from .versions import known, search_aliases


class NPNetSavePair(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NPNetSavePair",
            display_name="Save Noise Pair",
            category="NPNet",
            description="Appends noise pairs, kept and dropped ones alike, to a dataset in output/npd that npnet fit "
            "reads; which ones count is decided there.",
            is_output_node=True,
            **search_aliases("save noise pair, noise prompt dataset, npd, training data, 噪声对, 数据集"),
            inputs=[
                PairSocket.Input("noise_pair", tooltip="From HPS Filter, so that its scores are stored too."),
                io.String.Input("prompt", multiline=True, default="", tooltip="The prompt the pair was made for."),
                io.String.Input("dataset", default="pairs", tooltip="The dataset's name: a folder in output/npd."),
                io.String.Input(
                    "base_model",
                    default="",
                    tooltip="The base model's name, recorded with every pair.",
                    **known(io.String.Input, advanced=True),
                ),
                io.String.Input(
                    "sampling",
                    default="",
                    tooltip="How the scored images were sampled, for example: euler, normal, 10 steps, cfg 5.5.",
                    **known(io.String.Input, advanced=True),
                ),
            ],
            outputs=[io.String.Output(display_name="report", tooltip="What is shown on the node.")],
        )

    @classmethod
    def execute(cls, noise_pair: NoisePair, prompt: str, dataset: str, base_model: str, sampling: str) -> io.NodeOutput:
        if noise_pair is None:
            raise InputError(
                "No noise pair came: connect Re-denoise Pair's pair to HPS Filter, and its pair to this node."
            )
        folder = dataset_folder(Path(folder_paths.get_output_directory()) / "npd", dataset)
        manifest = Manifest(
            base_family=noise_pair.base_family,
            sigmas=noise_pair.sigmas,
            cfg=noise_pair.cfg,
            inversion_cfg=noise_pair.inversion_cfg,
            inversion=noise_pair.inversion,
            rounds=noise_pair.rounds,
            guidance=noise_pair.guidance,
            redenoised_with=noise_pair.redenoised_with,
            recorded={"base_model": base_model, "sampling": sampling},
        )
        source, target = image_noise(noise_pair.source), image_noise(noise_pair.target)
        with NPDWriter(folder, manifest, worker="comfyui") as writer:
            new = [
                writer.add(
                    source[i],
                    target[i],
                    prompt=prompt,
                    seed=noise_pair.seed,
                    item=item,
                    scores={kind: (s[i].item(), t[i].item()) for kind, (s, t) in noise_pair.scores.items()},
                    extra={"kept": noise_pair.kept[i]},
                )
                for i, item in enumerate(noise_pair.items)
            ]
        report = f"{sum(new)} saved, {len(new) - sum(new)} there already: {dataset}"
        return io.NodeOutput(report, ui={"text": [report]})
