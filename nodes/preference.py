"""Scores in a graph: Load Preference Model, HPS Filter, Pick Best Images."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

import comfy.model_management
import comfy.sd1_clip
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..npnet_core.errors import InputError
from ..npnet_core.preference import KINDS, Scorer, load_scorer
from ..npnet_core.selection import keep_pair, top_k
from .folders import add_model_folder, fingerprint, list_files, model_path
from .redenoise import NoisePair, PairSocket
from .versions import search_aliases

FOLDER = "preference"
add_model_folder(FOLDER)

ScorerSocket = io.Custom("NPNET_SCORER")
BATCH = 8  # images scored at once


@dataclass(frozen=True)
class LoadedScorer:
    """A preference model in the hands of ComfyUI's memory management, which decides where its weights are."""

    scorer: Scorer
    patcher: ModelPatcher

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """Raw scores [B] of RGB images [B, H, W, 3] for one prompt, with a progress bar."""
        # whole: transformers' layers cannot fetch weights that were left elsewhere
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
        progress = comfy.utils.ProgressBar(len(images))
        scores = []
        for batch in images.split(BATCH):
            comfy.model_management.throw_exception_if_processing_interrupted()
            scores.append(self.scorer.score(batch, [prompt] * len(batch)))
            progress.update(len(batch))
        return torch.cat(scores)


class NPNetScorerLoad(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NPNetScorerLoad",
            display_name="Load Preference Model",
            category="NPNet",
            description="Loads a model that scores how well an image suits a prompt, or how good it looks.",
            **search_aliases("hps, pickscore, imagereward, aesthetic score, reward model, 偏好, 奖励模型, 美学评分"),
            inputs=[
                io.Combo.Input(
                    "scorer_name",
                    options=list_files(FOLDER),
                    tooltip="A file in models/preference, such as HPS_v2.1_compressed.pt.",
                ),
                io.Combo.Input(
                    "kind",
                    options=["auto", *KINDS],
                    default="auto",
                    tooltip="What the file is; auto finds it from the file.",
                ),
            ],
            outputs=[ScorerSocket.Output(display_name="scorer", tooltip="For HPS Filter and Pick Best Images.")],
        )

    @classmethod
    def fingerprint_inputs(cls, scorer_name: str, kind: str) -> str:
        return kind + fingerprint(model_path(FOLDER, scorer_name))

    @classmethod
    def execute(cls, scorer_name: str, kind: str) -> io.NodeOutput:
        offload_device = comfy.model_management.unet_offload_device()
        scorer = load_scorer(
            None if kind == "auto" else kind,
            model_path(FOLDER, scorer_name),
            offload_device,
            tokenizer=os.path.join(os.path.dirname(comfy.sd1_clip.__file__), "sd1_tokenizer"),
        )
        # never ComfyUI's dynamic one: these layers are moved whole, and for another dynamic model it would not give way
        patcher = ModelPatcher(scorer.model, comfy.model_management.get_torch_device(), offload_device)
        return io.NodeOutput(LoadedScorer(scorer, patcher))


class NPNetHPSFilter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NPNetHPSFilter",
            display_name="HPS Filter",
            category="NPNet",
            description="Scores the images of source and target noises and keeps each pair whose target is preferred: "
            "source + margin < target.",
            is_output_node=True,  # its report is worth having alone
            **search_aliases("hps filter, preference, reward, compare images, noise pair, 偏好, 打分"),
            inputs=[
                ScorerSocket.Input("scorer", tooltip="From Load Preference Model."),
                io.String.Input("prompt", multiline=True, default="", tooltip="The prompt of all these images."),
                io.Image.Input("source_images", tooltip="Sampled from the source noise."),
                io.Image.Input("target_images", tooltip="Sampled from the target noise, in the same order."),
                io.Float.Input(
                    "margin",
                    default=0.0,
                    min=-100.0,
                    max=100.0,
                    step=0.001,
                    tooltip="By how much the target has to be better, in the scorer's own units (the paper: 0 to 0.02 "
                    "for HPSv2).",
                ),
                PairSocket.Input(
                    "noise_pair",
                    optional=True,
                    tooltip="The pair these images were sampled from. It passes whole, with scores and verdicts added; "
                    "along a chain of filters a pair is kept only if all agree.",
                ),
            ],
            outputs=[
                PairSocket.Output(display_name="pair", tooltip="The pair with its scores, for Save Noise Pair."),
                io.Boolean.Output(
                    display_name="kept",
                    tooltip="Per item: whether this filter prefers the target.",
                    is_output_list=True,
                ),
                io.Float.Output(display_name="source_scores", tooltip="Per item, raw.", is_output_list=True),
                io.Float.Output(display_name="target_scores", tooltip="Per item, raw.", is_output_list=True),
                io.Image.Output(
                    display_name="preferred", tooltip="Per item the target image if it is kept, else the source image."
                ),
                io.String.Output(display_name="report", tooltip="What is shown on the node."),
            ],
        )

    @classmethod
    def execute(
        cls,
        scorer: LoadedScorer,
        prompt: str,
        source_images: Tensor,
        target_images: Tensor,
        margin: float,
        noise_pair: NoisePair | None = None,
    ) -> io.NodeOutput:
        source_images, target_images = source_images[..., :3], target_images[..., :3]  # without alpha
        if source_images.shape != target_images.shape:
            raise InputError(
                f"Source images {size_of(source_images)} and target images {size_of(target_images)} do not match: "
                "sample both from the same latent."
            )
        if noise_pair is not None and len(noise_pair.source) != len(source_images):
            raise InputError(
                f"{len(source_images)} images came for {len(noise_pair.source)} noise pairs: give one image of each."
            )
        scores = scorer.score(torch.cat([source_images, target_images]), prompt)
        source, target = scores.chunk(2)
        kept = keep_pair(source, target, margin)
        preferred = torch.where(kept.to(source_images.device)[:, None, None, None], target_images, source_images)
        report = filter_report(scorer.scorer.kind, source, target, kept, margin)
        if noise_pair is not None:
            noise_pair = dataclasses.replace(
                noise_pair,
                scores=noise_pair.scores | {scorer.scorer.kind: (source, target)},
                kept=tuple(before and now for before, now in zip(noise_pair.kept, kept.tolist(), strict=True)),
            )
        return io.NodeOutput(
            noise_pair, kept.tolist(), source.tolist(), target.tolist(), preferred, report, ui={"text": [report]}
        )


def size_of(images: Tensor) -> str:
    """``4 of 1024x1024`` for images [B, H, W, C]; the shape of anything else that a node may give."""
    if images.ndim != 4:
        return f"of shape {list(images.shape)}"
    return f"{images.shape[0]} of {images.shape[2]}x{images.shape[1]}"


def filter_report(kind: str, source: Tensor, target: Tensor, kept: Tensor, margin: float) -> str:
    """A line per item with both scores and their difference, and one that counts."""
    rows = [
        f"{i}: {s:.4f} → {t:.4f} ({t - s:+.4f}) {'kept' if k else 'dropped'}"
        for i, (s, t, k) in enumerate(zip(source.tolist(), target.tolist(), kept.tolist(), strict=True))
    ]
    return "\n".join([f"{kind}, margin {margin:g}: {int(kept.sum())} of {len(kept)} kept", *rows])


class NPNetPickBest(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NPNetPickBest",
            display_name="Pick Best Images",
            category="NPNet",
            description="Scores a batch of images and passes on the best ones.",
            is_output_node=True,  # its scores are worth having alone
            **search_aliases(
                "best of n, best seed, hps, preference, reward, rank images, score images, 择优, 打分, 种子"
            ),
            inputs=[
                ScorerSocket.Input("scorer", tooltip="From Load Preference Model."),
                io.String.Input("prompt", multiline=True, default="", tooltip="The prompt of all these images."),
                io.Image.Input("images", tooltip="The batch to choose from."),
                io.Int.Input("k", default=1, min=1, max=4096, tooltip="How many to pass on, best first."),
                io.Latent.Input(
                    "latents", optional=True, tooltip="The latents of these images, to choose along with them."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="best", tooltip="The k best images, best first."),
                io.Latent.Output(display_name="best_latents", tooltip="Their latents, if latents were given."),
                io.Int.Output(
                    display_name="indices", tooltip="Their places in the batch, from 0.", is_output_list=True
                ),
                io.Float.Output(
                    display_name="scores", tooltip="The raw score of every image of the batch.", is_output_list=True
                ),
            ],
        )

    @classmethod
    def execute(
        cls, scorer: LoadedScorer, prompt: str, images: Tensor, k: int, latents: dict | None = None
    ) -> io.NodeOutput:
        if latents is not None and len(latents["samples"]) != len(images):
            raise InputError(
                f"{len(latents['samples'])} latents came for {len(images)} images: give the latents of these images."
            )
        scores = scorer.score(images[..., :3], prompt)  # without alpha
        best = top_k(scores, k)
        rows = [f"{place}: image {i}, {scores[i]:.4f}" for place, i in enumerate(best.tolist(), start=1)]
        report = "\n".join([f"{scorer.scorer.kind}: the best {k} of {len(images)}", *rows])
        return io.NodeOutput(
            images[best],
            None if latents is None else select_latents(latents, best),
            best.tolist(),
            scores.tolist(),
            ui={"text": [report]},
        )


def select_latents(latents: dict, indices: Tensor) -> dict:
    """Some items of a LATENT, with their masks and their places in the seed's stream."""
    count, chosen = len(latents["samples"]), {**latents, "samples": latents["samples"][indices]}
    mask = latents.get("noise_mask")
    if mask is not None and mask.ndim > 2:  # [M, H, W]: ComfyUI repeats it over the batch
        chosen["noise_mask"] = mask[indices % len(mask)]
    places = latents.get("batch_index", range(count))
    chosen["batch_index"] = [places[i] for i in indices.tolist()]
    return chosen
