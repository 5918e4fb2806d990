"""What templates, blueprints and help pages have in common: model files, and nodes with their usual settings."""

from __future__ import annotations

from workflows.graph import Given, ModelFile, Node, Output, node, subgraph
from workflows.layout import column, group, row

SDXL = ModelFile("sd_xl_base_1.0.safetensors", "stabilityai/stable-diffusion-xl-base-1.0", "checkpoints", "6.9 GB")
DREAMSHAPER = ModelFile("DreamShaperXL_Turbo_v2.safetensors", "Lykon/dreamshaper-xl-v2-turbo", "checkpoints", "6.9 GB")
HUNYUAN_DIT = ModelFile("hunyuan_dit_1.2.safetensors", "comfyanonymous/hunyuan_dit_comfyui", "checkpoints", "8.2 GB")
NPNETS = "LucipherDev/Golden-Noise-NPNets"
SDXL_NPNET = ModelFile("sdxl.safetensors", NPNETS, "npnet", "122 MB")
DREAMSHAPER_NPNET = ModelFile("dreamshaper.safetensors", NPNETS, "npnet", "122 MB")
HUNYUAN_NPNET = ModelFile("dit.safetensors", NPNETS, "npnet", "119 MB")
HPS = ModelFile("HPS_v2.1_compressed.pt", "xswu/HPSv2", "preference", "2.0 GB")

# The paper's settings for SDXL.
REDENOISE = {"cfg": 5.5, "inversion_cfg": 1.0, "rounds": 1, "inversion": "exact", "depth": 1}

OURS = "yellow"  # the colour of this pack's nodes
TEXT = (300, 80)  # a node for a prompt
LINKED = (300, 40)  # the same where the text comes from another node
PICTURE = (300, 280)  # a node that shows one, or whatever stands in a column with it


def load_checkpoint(file: ModelFile) -> Node:
    return node("CheckpointLoaderSimple", ckpt_name=file.name, file=file)


def load_npnet(file: ModelFile) -> Node:
    return node("NPNetLoad", npnet_name=file.name, file=file, color=OURS)


def load_scorer(file: ModelFile) -> Node:
    return node("NPNetScorerLoad", scorer_name=file.name, kind="auto", file=file, color=OURS)


def prompt_text(prompt: str) -> Node:
    """A prompt that is encoded and scored."""
    return node("PrimitiveStringMultiline", value=prompt, title="Prompt", color="green", box=TEXT)


def positive_prompt(clip: Output | Given, prompt: str | Node) -> Node:
    title, box = ("Prompt", TEXT) if isinstance(prompt, str) else ("Prompt, encoded", LINKED)
    return node("CLIPTextEncode", clip=clip, text=prompt, title=title, color="green", box=box)


def negative_prompt(clip: Output | Given, prompt: str = "blurry, watermark") -> Node:
    return node("CLIPTextEncode", clip=clip, text=prompt, title="Negative prompt", color="red", box=(TEXT[0], 50))


def no_prompt(positive: Node) -> Node:
    return node("ConditioningZeroOut", conditioning=positive, title="No prompt", color="red")


def square_latent() -> Node:
    return node("EmptyLatentImage", width=1024, height=1024, batch_size=1, title="Size")


def next_seed() -> Node:
    return node("RandomNoise", noise_seed=0, control_after_generate="increment", title="Ordinary noise")


def golden_noise(npnet: Node, noise: Node, positive: Node) -> Node:
    return node(
        "NPNetNoise",
        npnet=npnet,
        noise=noise,
        conditioning=positive,
        strength=1.0,
        long_prompt="truncate",
        color=OURS,
    )


def redenoise_pair(checkpoint: Node, positive: Node, negative: Node, noise: Node, sigmas: Node, latent: Node) -> Node:
    return node(
        "NPNetRedenoisePair",
        model=checkpoint["MODEL"],
        positive=positive,
        negative=negative,
        noise=noise,
        sigmas=sigmas,
        latent_image=latent,
        **REDENOISE,
        color=OURS,
    )


def sample_each(
    noises: dict[str, Node | Output],
    *,
    checkpoint: Node,
    positive: Node,
    negative: Node,
    latent: Node,
    sampler_name: str = "euler",
    scheduler: str = "normal",
    steps: int = 30,
    cfg: float = 5.5,
) -> Node:
    """A node that makes a picture of each noise, everything else being equal; its outputs have the noises' names."""
    model = Given("model")
    guider = node("CFGGuider", model=model, positive=Given("positive"), negative=Given("negative"), cfg=Given("cfg"))
    sampler = node("KSamplerSelect", sampler_name=Given("sampler_name"))
    sigmas = node("BasicScheduler", model=model, scheduler=Given("scheduler"), steps=Given("steps"), denoise=1.0)
    samples = {
        name: node(
            "SamplerCustomAdvanced",
            noise=Given(f"{name} noise"),
            guider=guider,
            sampler=sampler,
            sigmas=sigmas,
            latent_image=Given("latent_image"),
            title=f"From the {name} noise",
        )
        for name in noises
    }
    images = {name: node("VAEDecode", samples=each, vae=Given("vae")) for name, each in samples.items()}
    return subgraph(
        "Sample each noise",
        row(
            group("Equal for all", guider, sampler, sigmas),
            group("Noises", *samples.values()),
            group("Images", column(*images.values())),
        ),
        images,
        box=(PICTURE[0], 0),
        model=checkpoint["MODEL"],
        vae=checkpoint["VAE"],
        positive=positive,
        negative=negative,
        latent_image=latent,
        **{f"{name} noise": noise for name, noise in noises.items()},
        sampler_name=sampler_name,
        scheduler=scheduler,
        steps=steps,
        cfg=cfg,
    )


def hps_filter(scorer: Node, prompt: Node, source: Output, target: Output, room: int, **inputs: Output | str) -> Node:
    return node(
        "NPNetHPSFilter",
        scorer=scorer,
        source_images=source,
        target_images=target,
        prompt=prompt,
        margin=0.0,
        color=OURS,
        box=(PICTURE[0], room),
        **inputs,
    )


def note(title: str, about: str, expect: str, *files: ModelFile, room: int = 250) -> Node:
    """What a template shows, which files it needs, what to expect of it."""
    rows = "".join(f"| [{file.name}]({file.url}) | `models/{file.directory}` | {file.size} |\n" for file in files)
    text = f"""\
## {title}

{one_line(about)}

| download | put it into | size |
|---|---|---|
{rows}
Press **R**, so that ComfyUI sees the files, then **Run**. Every run takes the next seed.

## What to expect

{one_line(expect)}
"""
    return node("MarkdownNote", text=text, title="Read me", color="blue", box=(400, room))


def one_line(text: str) -> str:
    return " ".join(text.split())
