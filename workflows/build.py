"""The templates of this pack. `python -m workflows.build` writes them: here for the canvas, into api/ for the queue."""

from __future__ import annotations

import json
from pathlib import Path

from workflows.canvas import Layout, ModelFile, Node, Output, canvas_graph, column, group, node, queue_graph, row

FOLDER = Path(__file__).parent

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
PICTURE = (360, 380)
REPORT = (PICTURE[0], 150)  # a node that shows a prompt and what it reports


def golden_noise_sdxl() -> Layout:
    return custom_sampling(
        SDXL,
        SDXL_NPNET,
        title="Golden noise for SDXL",
        about="""
One seed, twice: from ordinary noise, and from the **golden noise** that NPNet makes of it for your prompt
before sampling begins. Everything else is the same.
""",
        expect="""
A modest gain on average, not for every seed: the paper reports HPSv2 28.5 → 28.7 (× 100) on the prompts of
Pick-a-Pic and 24.0 → 28.4 on those of GenEval. Compare several seeds of your own prompts. Any image size works,
and so do other models of the SDXL family.
""",
        prompt="A red fox and a white owl reading a map by lantern light, snowy forest, storybook illustration",
        sampler_name="euler",
        scheduler="normal",
        steps=30,
        cfg=5.5,
    )


def golden_noise_dreamshaper_turbo() -> Layout:
    return custom_sampling(
        DREAMSHAPER,
        DREAMSHAPER_NPNET,
        title="Golden noise in four steps",
        about="""
DreamShaper XL v2 Turbo, one seed twice: from ordinary noise, and from the **golden noise** that this model's
NPNet makes of it for your prompt before sampling begins.
""",
        expect="""
A modest gain on average, not for every seed: the paper reports HPSv2 30.1 → 31.2 (× 100) on the prompts of
GenEval. Four steps and cfg 3.5 are what the net was trained for; the author of the checkpoint suggests cfg 2
and four to eight steps.
""",
        prompt="Portrait of an old lighthouse keeper in a yellow raincoat, stormy sea behind him, oil painting",
        sampler_name="dpmpp_sde",
        scheduler="karras",
        steps=4,
        cfg=3.5,
    )


def golden_noise_hunyuan_dit() -> Layout:
    return custom_sampling(
        HUNYUAN_DIT,
        HUNYUAN_NPNET,
        title="Golden noise for HunyuanDiT",
        about="""
One seed, twice: from ordinary noise, and from the **golden noise** that this model's NPNet makes of it for your
prompt before sampling begins. Prompts may be English or Chinese.
""",
        expect="""
A modest gain on average, not for every seed: the paper reports HPSv2 27.8 → 30.7 (× 100) on the prompts of
GenEval, with a net that saw only 600 noise pairs of this model. Of the prompt the net reads BERT's first 77
tokens.
""",
        prompt="Two cranes above a river in autumn mist, a small wooden boat below, Chinese ink painting",
        sampler_name="euler",
        scheduler="normal",
        steps=30,
        cfg=5.0,
    )


def golden_noise_ksampler() -> Layout:
    checkpoint, npnet = loaders(SDXL, SDXL_NPNET)
    positive, negative = prompts(checkpoint, "A glass teapot with a tiny garden inside, morning sun on a wooden table")
    latent = square_latent()
    patched = node(
        "NPNetModelPatch", model=checkpoint["MODEL"], npnet=npnet, strength=1.0, long_prompt="truncate", color=OURS
    )
    seed = node("PrimitiveInt", value=0, control_after_generate="increment", title="Seed of both")

    def sample(model: Node | Output, title: str) -> tuple[Node, Node]:
        samples = node(
            "KSampler",
            model=model,
            positive=positive,
            negative=negative,
            latent_image=latent,
            seed=seed,
            steps=30,
            cfg=5.5,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
            title=title,
        )
        return samples, node("VAEDecode", samples=samples, vae=checkpoint["VAE"])

    return comparison(
        note(
            "Golden noise for the KSampler",
            """
*NPNet Golden Noise (Model)* patches the model: every sampler that uses it starts from the **golden noise** for
its own positive prompt. Both samplers here get one seed; keep their other settings equal.
""",
            """
A modest gain on average, not for every seed. Where sampling does not start from noise (img2img, a second stage)
it changes nothing. Use either this node or *NPNet Golden Noise*: together they apply the net twice.
""",
            SDXL,
            SDXL_NPNET,
        ),
        column(group("Models", checkpoint, npnet), group("Prompt", positive, negative), group("Size", latent)),
        column(group("Seed", seed), group("Golden noise", patched)),
        sample(checkpoint["MODEL"], "From ordinary noise"),
        sample(patched, "From golden noise"),
    )


def collect_pairs_sdxl() -> Layout:
    checkpoint, scorer = load_checkpoint(SDXL), load_scorer(HPS)
    prompt = prompt_text("A watercolour of two hedgehogs sharing a red umbrella")
    positive = positive_prompt(checkpoint, prompt)
    negative = node("ConditioningZeroOut", conditioning=positive, title="No prompt")
    latent = square_latent()
    noise = next_seed()
    sigmas = node("BasicScheduler", model=checkpoint["MODEL"], scheduler="normal", steps=10, denoise=1.0)
    pair = redenoise_pair(checkpoint, positive, negative, noise, sigmas, latent)
    guider = node("CFGGuider", model=checkpoint["MODEL"], positive=positive, negative=negative, cfg=5.5)
    sampler = node("KSamplerSelect", sampler_name="euler")
    samples = {
        side: sampled(f"From the {side} noise", pair[side], guider, sampler, sigmas, latent, checkpoint["VAE"])
        for side in ("source", "target")
    }
    verdict = hps_filter(scorer, prompt, samples["source"][1], samples["target"][1], pair["pair"])
    saved = node(
        "NPNetSavePair",
        noise_pair=verdict["pair"],
        prompt=prompt,
        dataset="sdxl",
        base_model="sd_xl_base_1.0",
        sampling="euler, normal, 10 steps, cfg 5.5",
        color=OURS,
        box=REPORT,
    )
    pictures = row(
        node("PreviewImage", images=samples["source"][1], title="Source", box=PICTURE),
        node("PreviewImage", images=samples["target"][1], title="Target", box=PICTURE),
    )
    return row(
        column(
            group("Models", checkpoint, scorer),
            group("Prompt", prompt, positive, negative),
            group("Size and seed", latent, noise),
        ),
        column(group("Schedule", sigmas), group("Pair", pair), group("Sampling of both", guider, sampler)),
        group("Sampling", *samples["source"], *samples["target"]),
        column(
            note(
                "Collect noise pairs for SDXL",
                """
Stage I of the paper. *Re-denoise Pair* makes the target noise, both noises are sampled, *HPS Filter* asks which image
suits the prompt better, *Save Noise Pair* appends the pair to the dataset `output/npd/sdxl`, kept or not.
""",
                """
Queue many runs with many prompts: `npnet fit` reads the dataset and decides which pairs count. With HPSv2 the paper
keeps about three of four. `npnet collect` does the same without ComfyUI, several times faster.
""",
                SDXL,
                HPS,
            ),
            group("Side by side", pictures),
            group("Verdict", row(verdict, saved)),
        ),
    )


def pick_best_of_n() -> Layout:
    checkpoint, scorer = load_checkpoint(SDXL), load_scorer(HPS)
    prompt = prompt_text("A paper boat on a puddle that mirrors a stormy sky, low angle photograph")
    positive = positive_prompt(checkpoint, prompt)
    negative = negative_prompt(checkpoint)
    latent = node("EmptyLatentImage", width=1024, height=1024, batch_size=8, title="Eight images")
    samples = node(
        "KSampler",
        model=checkpoint["MODEL"],
        positive=positive,
        negative=negative,
        latent_image=latent,
        seed=0,
        control_after_generate="increment",
        steps=30,
        cfg=5.5,
        sampler_name="euler",
        scheduler="normal",
        denoise=1.0,
    )
    images = node("VAEDecode", samples=samples, vae=checkpoint["VAE"])
    best = node(
        "NPNetPickBest",
        scorer=scorer,
        images=images,
        latents=samples,
        prompt=prompt,
        k=2,
        color=OURS,
        box=REPORT,
    )
    return row(
        column(
            group("Models", checkpoint, scorer),
            group("Prompt", prompt, positive, negative),
        ),
        column(group("Sampling", latent, samples, images), group("Choice", best)),
        column(
            note(
                "The best of eight",
                """
Eight images of one prompt; a preference model scores each, and the two best are saved. The scores are raw: neither
averaged nor divided up over the batch.
""",
                """
Scores compare images of one prompt only. Any preference model that *Load Preference Model* reads will do: HPSv2,
PickScore, ImageReward, CLIPScore, the aesthetic predictor.
""",
                SDXL,
                HPS,
            ),
            group(
                "Images",
                row(
                    node("PreviewImage", images=images, title="All eight", box=(PICTURE[0], 410)),
                    node("SaveImage", images=best, filename_prefix="npnet/best", title="The two best", box=PICTURE),
                ),
            ),
        ),
    )


def golden_noise_vs_redenoise() -> Layout:
    checkpoint, npnet = loaders(SDXL, SDXL_NPNET)
    scorer = load_scorer(HPS)
    prompt = prompt_text("A violinist made of autumn leaves playing on a stone bridge")
    positive = positive_prompt(checkpoint, prompt)
    negative = node("ConditioningZeroOut", conditioning=positive, title="No prompt")
    latent, noise = square_latent(), next_seed()
    collected = node(
        "BasicScheduler", model=checkpoint["MODEL"], scheduler="normal", steps=10, denoise=1.0, title="Of the pair"
    )
    pair = redenoise_pair(checkpoint, positive, negative, noise, collected, latent)
    golden = golden_noise(npnet, noise, positive)
    guider = node("CFGGuider", model=checkpoint["MODEL"], positive=positive, negative=negative, cfg=5.5)
    sampler = node("KSamplerSelect", sampler_name="euler")
    sigmas = node(
        "BasicScheduler", model=checkpoint["MODEL"], scheduler="normal", steps=30, denoise=1.0, title="Of the images"
    )
    three = {"Ordinary noise": noise, "Re-denoised": pair["target"], "Golden noise": golden}
    samples = {
        title: sampled(title, source, guider, sampler, sigmas, latent, checkpoint["VAE"])
        for title, source in three.items()
    }
    images = {title: image for title, (_, image) in samples.items()}
    verdicts = [
        hps_filter(scorer, prompt, images["Ordinary noise"], images[title], title=f"{title} against ordinary")
        for title in ("Re-denoised", "Golden noise")
    ]
    pictures = row(
        *(
            node(
                "SaveImage", images=image, filename_prefix=f"npnet/{title.split()[0].lower()}", title=title, box=PICTURE
            )
            for title, image in images.items()
        )
    )
    return row(
        column(
            group("Models", checkpoint, npnet, scorer),
            group("Prompt", prompt, positive, negative),
            group("Size and seed", latent, noise),
        ),
        column(group("Noises", collected, pair, golden), group("Sampling of all", guider, sampler, sigmas)),
        group("Sampling", *(item for both in samples.values() for item in both)),
        column(
            note(
                "What NPNet learns, and what it learned",
                """
One seed, three times: from ordinary noise, from the noise that **re-denoising** makes of it (what NPNet is trained to
predict, at three more evaluations of the model), and from NPNet's **golden noise**. Two filters score them.
""",
                """
Neither wins every time. Compare many seeds before you judge: a single pair of pictures is no evidence.
""",
                SDXL,
                SDXL_NPNET,
                HPS,
            ),
            group("Side by side", pictures),
            group("Scores", row(*verdicts)),
        ),
    )


TEMPLATES = [
    golden_noise_sdxl,
    golden_noise_ksampler,
    golden_noise_dreamshaper_turbo,
    golden_noise_hunyuan_dit,
    collect_pairs_sdxl,
    pick_best_of_n,
    golden_noise_vs_redenoise,
]


# ---- what they have in common ---------------------------------------------------------------------------------------


def custom_sampling(
    checkpoint_file: ModelFile,
    npnet_file: ModelFile,
    *,
    title: str,
    about: str,
    expect: str,
    prompt: str,
    sampler_name: str,
    scheduler: str,
    steps: int,
    cfg: float,
) -> Layout:
    """One noise through two SamplerCustomAdvanced, as it is and made golden."""
    checkpoint, npnet = loaders(checkpoint_file, npnet_file)
    positive, negative = prompts(checkpoint, prompt)
    latent = square_latent()
    ordinary = next_seed()
    golden = golden_noise(npnet, ordinary, positive)
    guider = node("CFGGuider", model=checkpoint["MODEL"], positive=positive, negative=negative, cfg=cfg)
    sampler = node("KSamplerSelect", sampler_name=sampler_name)
    sigmas = node("BasicScheduler", model=checkpoint["MODEL"], scheduler=scheduler, steps=steps, denoise=1.0)
    return comparison(
        note(title, about, expect, checkpoint_file, npnet_file),
        column(group("Models", checkpoint, npnet), group("Prompt", positive, negative), group("Size", latent)),
        column(group("Noise", ordinary, golden), group("Settings of both", guider, sampler, sigmas)),
        sampled("From ordinary noise", ordinary, guider, sampler, sigmas, latent, checkpoint["VAE"]),
        sampled("From golden noise", golden, guider, sampler, sigmas, latent, checkpoint["VAE"]),
    )


def comparison(
    note: Node, inputs: Layout, settings: Layout, ordinary: tuple[Node, Node], golden: tuple[Node, Node]
) -> Layout:
    """From left to right: inputs, settings, two samplers with their pictures, and these side by side below the note."""
    pictures = row(
        node("SaveImage", images=ordinary[1], filename_prefix="npnet/ordinary", title="Ordinary noise", box=PICTURE),
        node("SaveImage", images=golden[1], filename_prefix="npnet/golden", title="Golden noise", box=PICTURE),
    )
    return row(
        inputs,
        settings,
        group("Sampling", *ordinary, *golden),
        column(note, group("Side by side", pictures)),
    )


def loaders(checkpoint: ModelFile, npnet: ModelFile) -> tuple[Node, Node]:
    return load_checkpoint(checkpoint), node("NPNetLoad", npnet_name=npnet.name, file=npnet, color=OURS)


def load_checkpoint(file: ModelFile) -> Node:
    return node("CheckpointLoaderSimple", ckpt_name=file.name, file=file)


def load_scorer(file: ModelFile) -> Node:
    return node("NPNetScorerLoad", scorer_name=file.name, kind="auto", file=file, color=OURS)


def prompts(checkpoint: Node, prompt: str) -> tuple[Node, Node]:
    """The positive and the negative prompt."""
    return positive_prompt(checkpoint, prompt), negative_prompt(checkpoint)


def positive_prompt(checkpoint: Node, prompt: str | Node) -> Node:
    return node("CLIPTextEncode", clip=checkpoint["CLIP"], text=prompt, title="Prompt", color="green", box=(380, 80))


def negative_prompt(checkpoint: Node) -> Node:
    return node(
        "CLIPTextEncode",
        clip=checkpoint["CLIP"],
        text="blurry, watermark",
        title="Negative prompt",
        color="red",
        box=(380, 50),
    )


def prompt_text(prompt: str) -> Node:
    """A prompt that is encoded and scored."""
    return node("PrimitiveStringMultiline", value=prompt, title="Prompt text", color="green", box=(380, 80))


def square_latent() -> Node:
    return node("EmptyLatentImage", width=1024, height=1024, batch_size=1)


def next_seed() -> Node:
    return node("RandomNoise", noise_seed=0, control_after_generate="increment")


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


def sampled(
    title: str, noise: Node | Output, guider: Node, sampler: Node, sigmas: Node, latent: Node, vae: Output
) -> tuple[Node, Node]:
    """A sampler that starts from a noise, and its picture."""
    samples = node(
        "SamplerCustomAdvanced",
        noise=noise,
        guider=guider,
        sampler=sampler,
        sigmas=sigmas,
        latent_image=latent,
        title=title,
    )
    return samples, node("VAEDecode", samples=samples, vae=vae)


def hps_filter(
    scorer: Node, prompt: Node, source: Node, target: Node, pair: Output | None = None, title: str = ""
) -> Node:
    pair_input = {} if pair is None else {"noise_pair": pair}
    return node(
        "NPNetHPSFilter",
        scorer=scorer,
        source_images=source,
        target_images=target,
        prompt=prompt,
        margin=0.0,
        title=title,
        color=OURS,
        box=REPORT,
        **pair_input,
    )


def note(title: str, about: str, expect: str, *files: ModelFile) -> Node:
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
    return node("MarkdownNote", text=text, title="Read me", color="blue", box=(400, 250))


def one_line(text: str) -> str:
    return " ".join(text.split())


def files() -> dict[Path, str]:
    """Path → content of every workflow file."""
    graphs = {}
    for template in TEMPLATES:
        name, layout = template.__name__, template()
        graphs[FOLDER / f"{name}.json"] = canvas_graph(name, layout)
        graphs[FOLDER / "api" / f"{name}.json"] = queue_graph(layout)
    return {path: json.dumps(graph, indent=2, ensure_ascii=False) + "\n" for path, graph in graphs.items()}


if __name__ == "__main__":
    for path, content in files().items():
        path.write_text(content, encoding="utf-8", newline="\n")
