"""What templates, blueprints and help pages have in common: model files, and nodes with their usual settings."""

from __future__ import annotations

from dataclasses import dataclass

from workflows.graph import Given, ModelFile, Node, Output, node, subgraph
from workflows.layout import column, group, row

SDXL = ModelFile("sd_xl_base_1.0.safetensors", "stabilityai/stable-diffusion-xl-base-1.0", "checkpoints", "6.9 GB")
DREAMSHAPER = ModelFile("DreamShaperXL_Turbo_v2.safetensors", "Lykon/dreamshaper-xl-v2-turbo", "checkpoints", "6.9 GB")
SDXL_TURBO = ModelFile("sd_xl_turbo_1.0_fp16.safetensors", "stabilityai/sdxl-turbo", "checkpoints", "6.9 GB")
HUNYUAN_DIT = ModelFile("hunyuan_dit_1.2.safetensors", "comfyanonymous/hunyuan_dit_comfyui", "checkpoints", "8.2 GB")
NPNETS = "LucipherDev/Golden-Noise-NPNets"
SDXL_NPNET = ModelFile("sdxl.safetensors", NPNETS, "npnet", "122 MB")
DREAMSHAPER_NPNET = ModelFile("dreamshaper.safetensors", NPNETS, "npnet", "122 MB")
HUNYUAN_NPNET = ModelFile("dit.safetensors", NPNETS, "npnet", "119 MB")
HPS = ModelFile("HPS_v2.1_compressed.pt", "xswu/HPSv2", "preference", "2.0 GB")

# The files that ComfyUI's own templates name.
Z_REPO, KREA, QWEN = "Comfy-Org/z_image_turbo", "Comfy-Org/Krea-2", "Comfy-Org/Qwen-Image_ComfyUI"
DIFFUSION, TEXT_ENCODERS = "split_files/diffusion_models/", "split_files/text_encoders/"
Z_VAE = ModelFile("ae.safetensors", Z_REPO, "vae", "335 MB", "split_files/vae/")
FLUX_VAE = ModelFile(
    "ae.safetensors", "Comfy-Org/Lumina_Image_2.0_Repackaged", "vae", "335 MB", "split_files/vae/"
)  # the same file
QWEN_VAE = ModelFile("qwen_image_vae.safetensors", QWEN, "vae", "254 MB", "split_files/vae/")
QWEN_3 = ModelFile("qwen_3_4b.safetensors", Z_REPO, "text_encoders", "8.0 GB", TEXT_ENCODERS)
SD35 = ModelFile("sd3.5_large_fp8_scaled.safetensors", "Comfy-Org/stable-diffusion-3.5-fp8", "checkpoints", "14.9 GB")
Z_IMAGE = ModelFile("z_image_bf16.safetensors", "Comfy-Org/z_image", "diffusion_models", "12.3 GB", DIFFUSION)
Z_IMAGE_TURBO = ModelFile("z_image_turbo_bf16.safetensors", Z_REPO, "diffusion_models", "12.3 GB", DIFFUSION)
FLUX_SCHNELL = ModelFile("flux1-schnell.safetensors", "Comfy-Org/flux1-schnell", "diffusion_models", "23.8 GB")
FLUX_DEV = ModelFile("flux1-dev.safetensors", "Comfy-Org/flux1-dev", "diffusion_models", "23.8 GB")
CLIP_L = ModelFile("clip_l.safetensors", "comfyanonymous/flux_text_encoders", "text_encoders", "246 MB")
T5_XXL = ModelFile("t5xxl_fp16.safetensors", "comfyanonymous/flux_text_encoders", "text_encoders", "9.8 GB")
QWEN_IMAGE = ModelFile("qwen_image_2512_fp8_e4m3fn.safetensors", QWEN, "diffusion_models", "20.4 GB", DIFFUSION)
QWEN_25_VL = ModelFile("qwen_2.5_vl_7b_fp8_scaled.safetensors", QWEN, "text_encoders", "9.4 GB", TEXT_ENCODERS)
KREA_2 = ModelFile("krea2_raw_fp8_scaled.safetensors", KREA, "diffusion_models", "13.1 GB", "diffusion_models/")
QWEN_3_VL = ModelFile("qwen3vl_4b_fp8_scaled.safetensors", KREA, "text_encoders", "5.2 GB", "text_encoders/")
KREA_VAE = ModelFile("qwen_image_vae.safetensors", KREA, "vae", "254 MB", "vae/")


@dataclass(frozen=True)
class OwnNet:
    """An NPNet by reward that nobody has published.

    Attributes:
        name: of its file in models/npnet.
        base: the few-step model as the trainer takes it, a hub id.
        fitting: what its fit is told beside base model, prompts and scorers.
    """

    name: str
    base: str
    fitting: str

    @property
    def command(self) -> str:
        scorers = "hpsv2.1=HPS_v2.1_compressed.pt imagereward=ImageReward.pt"
        return (
            f"npnet fit --objective reward --base {self.base} --prompts prompts.txt --scorer {scorers} "
            f"--arch adapter {self.fitting} --out runs/{self.name.removesuffix('.safetensors')}"
        )


SDXL_TURBO_NPNET = OwnNet(
    "sdxl_turbo_reward.safetensors", "stabilityai/sdxl-turbo", "--precision bf16 --batch 4 --accumulate 8"
)
SCHNELL_NPNET = OwnNet(
    "flux1_schnell_reward.safetensors",
    "black-forest-labs/FLUX.1-schnell",
    "--precision bf16 --batch 1 --accumulate 32",
)
Z_IMAGE_TURBO_NPNET = OwnNet(
    "z_image_turbo_reward.safetensors",
    "Tongyi-MAI/Z-Image-Turbo",
    "--denoising-steps 2 --precision bf16 --batch 1 --accumulate 32",
)

# The paper's settings for SDXL.
REDENOISE = {"cfg": 5.5, "inversion_cfg": 1.0, "rounds": 1, "inversion": "exact", "depth": 1}

OURS = "yellow"  # the colour of this pack's nodes
TEXT = (300, 80)  # a node for a prompt
LINKED = (300, 40)  # the same where the text comes from another node
PICTURE = (300, 280)  # a node that shows one, or whatever stands in a column with it


def load_checkpoint(file: ModelFile) -> Node:
    return node("CheckpointLoaderSimple", ckpt_name=file.name, files=(file,))


@dataclass(frozen=True, eq=False)
class Stack:
    """Loaders that give together what one checkpoint gives: MODEL, CLIP and VAE."""

    nodes: tuple[Node, ...]
    outputs: dict[str, Output]
    files: tuple[ModelFile, ...]

    def __getitem__(self, name: str) -> Output:
        return self.outputs[name]


def load_whole(file: ModelFile) -> Stack:
    checkpoint = load_checkpoint(file)
    return Stack((checkpoint,), {name: checkpoint[name] for name in ("MODEL", "CLIP", "VAE")}, (file,))


def load_model(file: ModelFile, title: str = "") -> Node:
    return node("UNETLoader", unet_name=file.name, weight_dtype="default", files=(file,), title=title)


def load_parts(
    model: ModelFile, vae: ModelFile, text: tuple[ModelFile, ...], kind: str, shift: float | None = None
) -> Stack:
    """The loaders of ComfyUI's own templates: a diffusion model, one or two text encoders of a `kind`, a VAE.

    `shift` is of ModelSamplingAuraFlow, where those templates have it.
    """
    loaded = load_model(model)
    chosen = {"type": kind, "device": "default", "files": text}
    if len(text) == 1:
        clip = node("CLIPLoader", clip_name=text[0].name, **chosen)
    else:
        clip = node("DualCLIPLoader", clip_name1=text[0].name, clip_name2=text[1].name, **chosen)
    decoder = node("VAELoader", vae_name=vae.name, files=(vae,))
    nodes, used = [loaded, clip, decoder], loaded
    if shift is not None:
        used = node("ModelSamplingAuraFlow", model=loaded, shift=shift)
        nodes.insert(1, used)
    outputs = {"MODEL": Output(used, 0), "CLIP": Output(clip, 0), "VAE": Output(decoder, 0)}
    return Stack(tuple(nodes), outputs, (model, *text, vae))


def load_npnet(file: ModelFile | OwnNet) -> Node:
    files = () if isinstance(file, OwnNet) else (file,)
    return node("NPNetLoad", npnet_name=file.name, files=files, color=OURS)


def load_scorer(file: ModelFile) -> Node:
    return node("NPNetScorerLoad", scorer_name=file.name, kind="auto", files=(file,), color=OURS)


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


def square_latent(kind: str = "EmptyLatentImage", side: int = 1024) -> Node:
    return node(kind, width=side, height=side, batch_size=1, title="Size")


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


def redenoise_pair(
    checkpoint: Node | Stack, positive: Node, negative: Node, noise: Node, sigmas: Node, latent: Node, **changes: float
) -> Node:
    return node(
        "NPNetRedenoisePair",
        model=checkpoint["MODEL"],
        positive=positive,
        negative=negative,
        noise=noise,
        sigmas=sigmas,
        latent_image=latent,
        **{**REDENOISE, **changes},
        color=OURS,
    )


def sample_each(
    noises: dict[str, Node | Output],
    *,
    checkpoint: Node | Stack,
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


def note(
    title: str, about: str, expect: str, *files: ModelFile, own: OwnNet | None = None, room: int | None = None
) -> Node:
    """What a template shows, which files it needs, how to make the net that it needs, what to expect of it."""
    room = room or 250 + 50 * max(0, len(files) - 2) + 150 * (own is not None)  # Nodes 2.0 shows all, however high
    rows = "".join(f"| [{file.name}]({file.url}) | `models/{file.directory}` | {file.size} |\n" for file in files)
    text = f"""\
## {title}

{one_line(about)}

| download | put it into | size |
|---|---|---|
{rows}{made(own) if own else ""}
Press **R**, so that ComfyUI sees the files, then **Run**. Every run takes the next seed.

## What to expect

{one_line(expect)}
"""
    return node("MarkdownNote", text=text, title="Read me", color="blue", box=(400, room))


def made(own: OwnNet) -> str:
    """How to come by a net."""
    return f"""
No such net is published. Make one with the trainer of this pack, on a GPU; it says before it starts what it needs:

```
{own.command}
```

and copy `npnet.safetensors` from its folder to `models/npnet/{own.name}`.
"""


def one_line(text: str) -> str:
    return " ".join(text.split())
