"""The blueprints of this pack: nodes with a graph inside, which ComfyUI's search offers beside ordinary nodes."""

from __future__ import annotations

from typing import NamedTuple

from workflows.graph import Given, Node, node, subgraph
from workflows.layout import column, row
from workflows.parts import HPS, OURS, SDXL_NPNET


class Blueprint(NamedTuple):
    """A node with a graph inside and what the search says of it; its title is the file's name."""

    node: Node
    description: str
    aliases: list[str]


def golden_noise_ksampler() -> Blueprint:
    npnet = node("NPNetLoad", npnet_name=Given("npnet_name"), files=(SDXL_NPNET,), color=OURS)
    patched = node(
        "NPNetModelPatch",
        model=Given("model"),
        npnet=npnet,
        strength=Given("strength"),
        long_prompt="truncate",
        color=OURS,
    )
    settings = {name: Given(name) for name in SAMPLING}
    samples = node(
        "KSampler",
        model=patched,
        positive=Given("positive"),
        negative=Given("negative"),
        latent_image=Given("latent_image"),
        control_after_generate="randomize",
        denoise=1.0,
        **settings,
    )
    return Blueprint(
        subgraph(
            "Golden Noise KSampler (NPNet)",
            row(column(npnet, patched), samples),
            {"LATENT": samples},
            model=None,
            positive=None,
            negative=None,
            latent_image=None,
            npnet_name=SDXL_NPNET.name,
            strength=1.0,
            **SAMPLING,
        ),
        "A KSampler that starts from golden noise: the noise that NPNet makes of the seed's for your prompt.",
        ["golden noise", "npnet", "initial noise", "seed", "黄金噪声", "黄金噪波", "种子"],
    )


def best_of_n() -> Blueprint:
    scorer = node("NPNetScorerLoad", scorer_name=Given("scorer_name"), kind="auto", files=(HPS,), color=OURS)
    prompt = node("PrimitiveStringMultiline", value=Given("prompt"), title="Prompt", color="green", box=(300, 80))
    positive = node("CLIPTextEncode", clip=Given("clip"), text=prompt, color="green", box=(300, 0))
    negative = node("CLIPTextEncode", clip=Given("clip"), text=Given("negative"), color="red", box=(300, 50))
    latent = node("EmptyLatentImage", width=Given("width"), height=Given("height"), batch_size=Given("n"))
    samples = node(
        "KSampler",
        model=Given("model"),
        positive=positive,
        negative=negative,
        latent_image=latent,
        control_after_generate="randomize",
        denoise=1.0,
        **{name: Given(name) for name in SAMPLING},
    )
    images = node("VAEDecode", samples=samples, vae=Given("vae"))
    best = node(
        "NPNetPickBest",
        scorer=scorer,
        images=images,
        latents=samples,
        prompt=prompt,
        k=Given("k"),
        color=OURS,
        box=(270, 150),
    )
    return Blueprint(
        subgraph(
            "Best of N (NPNet)",
            row(column(scorer, prompt, positive, negative), column(latent, samples), column(images, best)),
            {"IMAGE": best["best"], "LATENT": best["best_latents"]},
            box=(300, 120),
            model=None,
            clip=None,
            vae=None,
            prompt="",
            negative="",
            width=1024,
            height=1024,
            n=8,
            k=1,
            scorer_name=HPS.name,
            **SAMPLING,
        ),
        "Makes N images of a prompt and passes on the k that a preference model likes best.",
        ["best of n", "pick best", "preference", "reward", "HPS", "优选", "择优", "偏好"],
    )


SAMPLING = {"seed": 0, "steps": 30, "cfg": 5.5, "sampler_name": "euler", "scheduler": "normal"}
BLUEPRINTS = [golden_noise_ksampler, best_of_n]
