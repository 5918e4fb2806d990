"""What the help pages show: each node, wired to its neighbours."""

from __future__ import annotations

from workflows.graph import Node, Output, node
from workflows.layout import Layout, column, row
from workflows.parts import HPS, OURS, REDENOISE, SDXL, load_checkpoint, redenoise_pair

NARROW = (250, 0)  # the help is shown in a narrow panel
REPORT = (NARROW[0], 120)
PROMPT = "your prompt"


def help_of_load() -> Layout:
    npnet = node("NPNetLoad", npnet_name="sdxl.safetensors", color=OURS, box=NARROW)
    users = [
        node(use, npnet=npnet, strength=1.0, long_prompt="truncate", box=NARROW)
        for use in ("NPNetNoise", "NPNetModelPatch")
    ]
    return row(npnet, column(*users))


def help_of_noise() -> Layout:
    npnet = node("NPNetLoad", npnet_name="sdxl.safetensors", box=NARROW)
    source = node("RandomNoise", noise_seed=0, box=NARROW)
    prompt = node("CLIPTextEncode", text=PROMPT, title="Prompt", color="green", box=(NARROW[0], 40))
    golden = node(
        "NPNetNoise",
        npnet=npnet,
        noise=source,
        conditioning=prompt,
        strength=1.0,
        long_prompt="truncate",
        color=OURS,
        box=NARROW,
    )
    return row(column(npnet, source, prompt), column(golden, node("SamplerCustomAdvanced", noise=golden, box=NARROW)))


def help_of_model_patch() -> Layout:
    checkpoint = node("CheckpointLoaderSimple", ckpt_name="sdxl.safetensors", box=NARROW)
    npnet = node("NPNetLoad", npnet_name="sdxl.safetensors", box=NARROW)
    patched = node(
        "NPNetModelPatch",
        model=checkpoint,
        npnet=npnet,
        strength=1.0,
        long_prompt="truncate",
        color=OURS,
        box=NARROW,
    )
    settings = {"seed": 0, "steps": 30, "cfg": 5.5, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    return row(column(checkpoint, npnet), column(patched, node("KSampler", model=patched, **settings, box=NARROW)))


def help_of_redenoise_pair() -> Layout:
    checkpoint = load_checkpoint(SDXL)
    prompt = node(
        "CLIPTextEncode", clip=checkpoint["CLIP"], text=PROMPT, title="Prompt", color="green", box=(NARROW[0], 40)
    )
    negative = node("ConditioningZeroOut", conditioning=prompt, title="No prompt", box=NARROW)
    noise = node("RandomNoise", noise_seed=0, box=NARROW)
    sigmas = node("BasicScheduler", model=checkpoint["MODEL"], scheduler="normal", steps=10, denoise=1.0, box=NARROW)
    latent = node("EmptyLatentImage", width=1024, height=1024, batch_size=1, box=NARROW)
    pair = redenoise_pair(checkpoint, prompt, negative, noise, sigmas, latent)
    samplers = [
        node(
            "SamplerCustomAdvanced",
            noise=pair[side],
            sigmas=sigmas,
            latent_image=latent,
            title=f"From the {side} noise",
            box=NARROW,
        )
        for side in ("source", "target")
    ]
    return row(column(checkpoint, prompt, negative, noise, sigmas, latent), column(pair, *samplers))


def help_of_redenoise_patch() -> Layout:
    checkpoint = node("CheckpointLoaderSimple", ckpt_name="sdxl.safetensors", box=NARROW)
    settings = {name: value for name, value in REDENOISE.items() if name != "rounds"}
    patched = node("NPNetRedenoisePatch", model=checkpoint, **settings, color=OURS, box=NARROW)
    sampling = {"seed": 0, "steps": 10, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    return row(checkpoint, column(patched, node("KSampler", model=patched, **sampling, box=NARROW)))


def help_of_scorer_load() -> Layout:
    scorer = load_scorer(color=OURS)
    best = node("NPNetPickBest", scorer=scorer, prompt=PROMPT, k=1, box=REPORT)
    return row(scorer, column(hps_filter(scorer=scorer), best))


def help_of_hps_filter() -> Layout:
    scorer, pair = load_scorer(), node("NPNetRedenoisePair", **REDENOISE, box=NARROW)
    source, target = (
        node("VAEDecode", title=f"Images from the {side} noise", box=NARROW) for side in ("source", "target")
    )
    verdict = hps_filter(scorer=scorer, source_images=source, target_images=target, noise_pair=pair["pair"], color=OURS)
    return row(column(scorer, source, target, pair), column(verdict, save_pair(verdict)))


def help_of_pick_best() -> Layout:
    scorer, images = load_scorer(), node("VAEDecode", title="Eight images", box=NARROW)
    best = node("NPNetPickBest", scorer=scorer, images=images, prompt=PROMPT, k=2, color=OURS, box=REPORT)
    saved = node("SaveImage", images=best, filename_prefix="npnet/best", title="The two best", box=NARROW)
    return row(column(scorer, images), column(best, saved))


def help_of_save_pair() -> Layout:
    pair = node("NPNetRedenoisePair", **REDENOISE, box=NARROW)
    verdict = hps_filter(noise_pair=pair["pair"])
    return row(column(pair, verdict), save_pair(verdict, color=OURS))


def help_of_small_pipeline_load() -> Layout:
    base = node("NPNetSmallPipelineLoad", pipeline="npnet-shapes-world", color=OURS, box=NARROW)
    prompt = node("CLIPTextEncode", clip=base["CLIP"], text=PROMPT, title="Prompt", color="green", box=(NARROW[0], 40))
    settings = {"seed": 0, "steps": 10, "cfg": 1.0, "sampler_name": "ddim", "scheduler": "ddim_uniform", "denoise": 1.0}
    samples = node("KSampler", model=base["MODEL"], positive=prompt, **settings, box=NARROW)
    return row(column(base, prompt), column(samples, node("VAEDecode", samples=samples, vae=base["VAE"], box=NARROW)))


def load_scorer(color: str = "") -> Node:
    return node("NPNetScorerLoad", scorer_name=HPS.name, kind="auto", color=color, box=NARROW)


def hps_filter(**inputs: Node | Output | str) -> Node:
    return node("NPNetHPSFilter", prompt=PROMPT, margin=0.0, box=REPORT, **inputs)


def save_pair(verdict: Node, color: str = "") -> Node:
    return node(
        "NPNetSavePair",
        noise_pair=verdict["pair"],
        prompt=PROMPT,
        dataset="sdxl",
        base_model="sd_xl_base_1.0",
        sampling="euler, normal, 10 steps",
        color=color,
        box=REPORT,
    )


HELP = {
    "NPNetLoad": help_of_load,
    "NPNetNoise": help_of_noise,
    "NPNetModelPatch": help_of_model_patch,
    "NPNetRedenoisePair": help_of_redenoise_pair,
    "NPNetRedenoisePatch": help_of_redenoise_patch,
    "NPNetScorerLoad": help_of_scorer_load,
    "NPNetHPSFilter": help_of_hps_filter,
    "NPNetPickBest": help_of_pick_best,
    "NPNetSavePair": help_of_save_pair,
    "NPNetSmallPipelineLoad": help_of_small_pipeline_load,
}
