"""The templates of this pack. Each is the layout of a graph that opens whole, at a scale at which it can be read."""

from __future__ import annotations

from workflows.graph import ModelFile, Node, Output, node
from workflows.layout import Layout, column, group, row
from workflows.parts import (
    CLIP_L,
    DREAMSHAPER,
    DREAMSHAPER_NPNET,
    FLUX_DEV,
    FLUX_SCHNELL,
    FLUX_VAE,
    HPS,
    HUNYUAN_DIT,
    HUNYUAN_NPNET,
    KREA_2,
    KREA_VAE,
    OURS,
    PICTURE,
    QWEN_3,
    QWEN_3_VL,
    QWEN_25_VL,
    QWEN_IMAGE,
    QWEN_VAE,
    REDENOISE,
    SCHNELL_NPNET,
    SD35,
    SDXL,
    SDXL_NPNET,
    SDXL_TURBO,
    SDXL_TURBO_NPNET,
    T5_XXL,
    Z_IMAGE,
    Z_IMAGE_TURBO,
    Z_IMAGE_TURBO_NPNET,
    Z_VAE,
    OwnNet,
    Stack,
    golden_noise,
    hps_filter,
    load_checkpoint,
    load_model,
    load_npnet,
    load_parts,
    load_scorer,
    load_whole,
    negative_prompt,
    next_seed,
    no_prompt,
    note,
    positive_prompt,
    prompt_text,
    redenoise_pair,
    sample_each,
    square_latent,
)

BY_REWARD = """
One seed, twice: from ordinary noise, and from the **golden noise** that a net makes of it for your prompt. The model is
distilled, its guidance is built in, so the net has learnt from preference models what they like of its images.
"""


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
    checkpoint, npnet = load_checkpoint(SDXL), load_npnet(SDXL_NPNET)
    positive = positive_prompt(
        checkpoint["CLIP"], "A glass teapot with a tiny garden inside, morning sun on a wooden table"
    )
    negative = negative_prompt(checkpoint["CLIP"])
    latent = square_latent()
    patched = golden_model(checkpoint["MODEL"], npnet)
    seed = seed_of_both()
    samples = two_ksamplers(
        {"ordinary": checkpoint["MODEL"], "golden": patched},
        positive=positive,
        negative=negative,
        latent_image=latent,
        seed=seed,
        steps=30,
        cfg=5.5,
        sampler_name="euler",
        scheduler="normal",
    )
    return row(
        column(group("Models", checkpoint, npnet), group("Prompt", positive, negative)),
        column(group("Size and seed", latent, seed), patched),
        column(
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
            saved_each(samples, checkpoint["VAE"]),
        ),
    )


def collect_pairs_sdxl() -> Layout:
    return collect_pairs(
        load_whole(SDXL),
        title="Collect noise pairs for SDXL",
        prompt="A watercolour of two hedgehogs sharing a red umbrella",
        dataset="sdxl",
        zeroed=True,
        steps=10,
    )


def pick_best_of_n() -> Layout:
    checkpoint, scorer = load_checkpoint(SDXL), load_scorer(HPS)
    prompt = prompt_text("A paper boat on a puddle that mirrors a stormy sky, low angle photograph")
    positive = positive_prompt(checkpoint["CLIP"], prompt)
    negative = negative_prompt(checkpoint["CLIP"])
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
        box=(PICTURE[0], 150),
    )
    return row(
        column(group("Models", checkpoint, scorer), group("Prompt", prompt, positive, negative)),
        group("Sampling", latent, samples, images),
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
            row(
                best,
                node("PreviewImage", images=images, title="All eight", box=PICTURE),
                node("SaveImage", images=best, filename_prefix="npnet/best", title="The two best", box=PICTURE),
            ),
        ),
    )


def golden_noise_vs_redenoise() -> Layout:
    checkpoint, npnet, scorer = load_checkpoint(SDXL), load_npnet(SDXL_NPNET), load_scorer(HPS)
    prompt = prompt_text("A violinist made of autumn leaves playing on a stone bridge")
    positive = positive_prompt(checkpoint["CLIP"], prompt)
    negative = no_prompt(positive)
    latent, noise = square_latent(), next_seed()
    sigmas = node(
        "BasicScheduler", model=checkpoint["MODEL"], scheduler="normal", steps=10, denoise=1.0, title="Of the pair"
    )
    pair = redenoise_pair(checkpoint, positive, negative, noise, sigmas, latent)
    golden = golden_noise(npnet, noise, positive)
    noises = {"ordinary": noise, "re-denoised": pair["target"], "golden": golden}
    images = sample_each(
        noises,
        checkpoint=checkpoint,
        positive=positive,
        negative=negative,
        latent=latent,
    )
    verdicts = [
        hps_filter(scorer, prompt, images["ordinary"], images[name], 80, title=f"{name.capitalize()} against ordinary")
        for name in ("re-denoised", "golden")
    ]
    return row(
        column(group("Models", checkpoint, npnet, scorer), group("Prompt", prompt, positive, negative)),
        column(latent, noise, sigmas, pair, golden),
        column(
            note(
                "What NPNet learns, and what it learned",
                """
One seed, three times: ordinary noise, the noise that **re-denoising** makes of it (what NPNet learns to predict), and
NPNet's **golden noise**. Two filters score them.
""",
                """
Neither wins every time. Compare many seeds before you judge: a single pair of pictures is no evidence.
""",
                SDXL,
                SDXL_NPNET,
                HPS,
                room=270,
            ),
            row(images, *verdicts),
            row(*(save(images[name], name, 230) for name in noises)),
        ),
    )


def redenoise_z_image() -> Layout:
    return redenoised_beside_ordinary(
        load_parts(Z_IMAGE, Z_VAE, (QWEN_3,), "lumina2", shift=3.0),
        title="Golden noise for Z-Image, without a net",
        prompt="A clockmaker's cluttered workshop at dusk, brass gears floating like dust in a sunbeam",
        steps=25,
        cfg=4.0,
        sampler_name="res_multistep",
        depth=3,
    )


def redenoise_z_image_turbo() -> Layout:
    return redenoised_beside_ordinary(
        load_parts(Z_IMAGE_TURBO, Z_VAE, (QWEN_3,), "lumina2", shift=3.0),
        title="Re-denoised noise for Z-Image-Turbo",
        about="""
One seed, twice. Turbo is distilled and has no guidance that could go into the noise, so the undistilled **Z-Image**
re-denoises and Turbo samples. The negative prompt is Z-Image's.
""",
        expect="""
Tried for function; nobody has measured what Z-Image-Turbo gains. A tiny Z-Image, distilled to one or two steps, does
gain from its sibling's noise (docs/experiments.md of this pack). Compare many seeds.
""",
        sibling=Z_IMAGE,
        prompt="A street musician with a glass cello, wet cobblestones, neon reflections, film photograph",
        steps=8,
        cfg=1.0,
        sampler_name="res_multistep",
        guidance=4.0,
    )


def redenoise_flux_dev() -> Layout:
    return redenoised_beside_ordinary(
        load_parts(FLUX_DEV, FLUX_VAE, (CLIP_L, T5_XXL), "flux"),
        title="Golden noise for FLUX.1-dev, without a net",
        about="""
One seed, twice: ordinary noise, and what **re-denoising** makes of it for your prompt before sampling begins.
FLUX.1-dev is told its guidance: 3.5, as it samples with, on the way down and 1 on the way back.
""",
        prompt="An astronaut tending a rooftop herb garden, city of glass domes behind, golden hour",
        zeroed=True,
        steps=20,
        cfg=1.0,
        sampler_name="euler",
        guidance=3.5,
        depth=2,
    )


def redenoise_qwen_image() -> Layout:
    return redenoised_beside_ordinary(
        load_parts(QWEN_IMAGE, QWEN_VAE, (QWEN_25_VL,), "qwen_image", shift=3.1),
        title="Golden noise for Qwen-Image, without a net",
        prompt='A hand-painted shop sign that reads "Noon", ivy around it, soft rain, shallow depth of field',
        negative="blurry, low resolution, distorted hands",
        side=1328,
        steps=50,
        cfg=4.0,
        sampler_name="euler",
        depth=3,
    )


def redenoise_krea_2() -> Layout:
    return redenoised_beside_ordinary(
        load_parts(KREA_2, KREA_VAE, (QWEN_3_VL,), "krea2"),
        title="Golden noise for Krea-2 Raw, without a net",
        prompt="A paper-cut diorama of a whale swimming above a fishing village, layered blue card",
        latent="EmptyLatentImage",
        steps=28,
        cfg=4.5,
        sampler_name="euler",
        depth=3,
    )


def redenoise_sd35() -> Layout:
    return redenoised_beside_ordinary(
        load_whole(SD35),
        title="Golden noise for SD3.5, without a net",
        prompt="A lighthouse inside a light bulb on a windowsill, storm outside, macro photograph",
        steps=20,
        cfg=4.01,
        sampler_name="euler",
        scheduler="sgm_uniform",
        depth=2,
    )


def collect_pairs_z_image() -> Layout:
    return collect_pairs(
        load_parts(Z_IMAGE, Z_VAE, (QWEN_3,), "lumina2", shift=3.0),
        title="Collect noise pairs for Z-Image",
        prompt="A watercolour of two hedgehogs sharing a red umbrella",
        dataset="z-image",
        latent="EmptySD3LatentImage",
        scheduler="simple",
        steps=10,
        cfg=4.0,
    )


def golden_noise_sdxl_turbo() -> Layout:
    checkpoint = load_checkpoint(SDXL_TURBO)
    positive = positive_prompt(
        checkpoint["CLIP"], "A barn owl reading by candlelight in a hollow oak, linocut print, two colours"
    )
    none, latent, seed = no_prompt(positive), square_latent(side=512), seed_of_both()
    npnet = load_npnet(SDXL_TURBO_NPNET)
    patched = golden_model(checkpoint["MODEL"], npnet)
    sampler = node("KSamplerSelect", sampler_name="euler_ancestral")
    sigmas = node("SDTurboScheduler", model=checkpoint["MODEL"], steps=1, denoise=1.0)
    samples = {
        name: node(
            "SamplerCustom",
            model=model,
            positive=positive,
            negative=none,
            sampler=sampler,
            sigmas=sigmas,
            latent_image=latent,
            add_noise=True,
            noise_seed=seed,
            cfg=1.0,
            title=f"From {name} noise",
        )
        for name, model in {"ordinary": checkpoint["MODEL"], "golden": patched}.items()
    }
    return row(
        column(group("Models", checkpoint, npnet), group("Prompt", positive, none)),
        column(group("Size and seed", latent, seed), group("One step", sampler, sigmas), patched),
        column(
            note(
                "Golden noise in one step",
                BY_REWARD,
                """
Nobody has published what such a net gains on SDXL-Turbo. Of SD-Turbo in one step its inventors report GenEval
.49 → .57 (HyperNoise, arXiv 2508.09968). Compare many seeds of prompts that it was not fitted on.
""",
                SDXL_TURBO,
                own=SDXL_TURBO_NPNET,
            ),
            saved_each(samples, checkpoint["VAE"]),
        ),
    )


def golden_noise_flux_schnell() -> Layout:
    return golden_beside_ordinary(
        load_parts(FLUX_SCHNELL, FLUX_VAE, (CLIP_L, T5_XXL), "flux"),
        SCHNELL_NPNET,
        title="Golden noise for FLUX.1-schnell",
        expect="""
The inventors of such nets report GenEval .68 → .72 for FLUX.1-schnell in four steps (HyperNoise, arXiv 2508.09968); it
has not been tried here. Compare many seeds of prompts that it was not fitted on.
""",
        prompt="A tram climbing a steep street of paper houses, laundry overhead, afternoon sun, tilt-shift photograph",
        steps=4,
        sampler_name="euler",
    )


def golden_noise_z_image_turbo() -> Layout:
    return golden_beside_ordinary(
        load_parts(Z_IMAGE_TURBO, Z_VAE, (QWEN_3,), "lumina2", shift=3.0),
        Z_IMAGE_TURBO_NPNET,
        title="Golden noise for Z-Image-Turbo",
        expect="""
An open question: the net learns from images of two steps, through which the reward's gradient is of use, and here
there are eight. Nobody has published what it gains. Compare many seeds of prompts that it was not fitted on.
""",
        prompt="A baker lifting a loaf shaped like a sleeping cat out of a brick oven, warm light, candid photograph",
        steps=8,
        sampler_name="res_multistep",
    )


TEMPLATES = [
    golden_noise_sdxl,
    golden_noise_ksampler,
    golden_noise_dreamshaper_turbo,
    golden_noise_hunyuan_dit,
    collect_pairs_sdxl,
    pick_best_of_n,
    golden_noise_vs_redenoise,
    redenoise_z_image,
    redenoise_z_image_turbo,
    redenoise_flux_dev,
    redenoise_qwen_image,
    redenoise_krea_2,
    redenoise_sd35,
    collect_pairs_z_image,
    golden_noise_sdxl_turbo,
    golden_noise_flux_schnell,
    golden_noise_z_image_turbo,
]


def custom_sampling(
    checkpoint_file: ModelFile,
    npnet_file: ModelFile,
    *,
    title: str,
    about: str,
    expect: str,
    prompt: str,
    **sampling: str | float,
) -> Layout:
    """One noise in custom sampling, as it is and made golden."""
    checkpoint, npnet = load_checkpoint(checkpoint_file), load_npnet(npnet_file)
    positive, negative = positive_prompt(checkpoint["CLIP"], prompt), negative_prompt(checkpoint["CLIP"])
    latent, ordinary = square_latent(), next_seed()
    golden = golden_noise(npnet, ordinary, positive)
    images = sample_each(
        {"ordinary": ordinary, "golden": golden},
        checkpoint=checkpoint,
        positive=positive,
        negative=negative,
        latent=latent,
        **sampling,
    )
    return row(
        column(group("Models", checkpoint, npnet), group("Prompt", positive, negative)),
        group("Size and noise", latent, ordinary, golden),
        column(
            note(title, about, expect, checkpoint_file, npnet_file),
            row(images, save(images["ordinary"], "ordinary"), save(images["golden"], "golden")),
        ),
    )


def golden_beside_ordinary(
    models: Stack, own: OwnNet, *, title: str, expect: str, prompt: str, steps: int, sampler_name: str
) -> Layout:
    """Two KSamplers of one seed and a distilled flow model, one with the model as it is and one with golden noise."""
    positive = positive_prompt(models["CLIP"], prompt)
    none, size, seed = no_prompt(positive), square_latent("EmptySD3LatentImage"), seed_of_both()
    npnet = load_npnet(own)
    patched = golden_model(models["MODEL"], npnet)
    samples = two_ksamplers(
        {"ordinary": models["MODEL"], "golden": patched},
        positive=positive,
        negative=none,
        latent_image=size,
        seed=seed,
        steps=steps,
        cfg=1.0,
        sampler_name=sampler_name,
        scheduler="simple",
    )
    return row(
        column(group("Models", *models.nodes, npnet), group("Prompt", positive, none)),
        column(group("Size and seed", size, seed), patched),
        column(note(title, BY_REWARD, expect, *models.files, own=own), saved_each(samples, models["VAE"])),
    )


def redenoised_beside_ordinary(
    models: Stack,
    *,
    title: str,
    about: str = """
One seed, twice: ordinary noise, and what **re-denoising** makes of it for your prompt before sampling begins: some
steps down with guidance and as many back without, so that a little of the prompt stays in the noise. No net is needed.
""",
    expect: str = """
Not for every seed, and least where guidance is strong already: compare several seeds. A greater *depth* changes more.
The help of *Re-denoise (Model)* says what it costs, and what it gained where it was measured.
""",
    prompt: str,
    negative: str = "",
    zeroed: bool = False,
    sibling: ModelFile | None = None,
    latent: str = "EmptySD3LatentImage",
    side: int = 1024,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str = "simple",
    guidance: float | None = None,
    depth: int = 1,
) -> Layout:
    """Two KSamplers of one seed, one with the model as it is and one with Re-denoise (Model).

    Args:
        zeroed: no negative prompt, as for models that are told their guidance.
        guidance: on the way down, by default that of sampling.
    """
    positive = positive_prompt(models["CLIP"], prompt)
    none = no_prompt(positive) if zeroed else negative_prompt(models["CLIP"], negative)
    size = square_latent(latent, side)
    undistilled = () if sibling is None else (load_model(sibling, title="Undistilled sibling"),)
    patched = node(
        "NPNetRedenoisePatch",
        model=models["MODEL"],
        cfg=cfg if guidance is None else guidance,
        inversion_cfg=1.0,
        depth=depth,
        inversion="exact",
        color=OURS,
        **({"redenoise_model": undistilled[0]} if undistilled else {}),
    )
    seed = seed_of_both()
    samples = two_ksamplers(
        {"ordinary": models["MODEL"], "re-denoised": patched},
        positive=positive,
        negative=none,
        latent_image=size,
        seed=seed,
        steps=steps,
        cfg=cfg,
        sampler_name=sampler_name,
        scheduler=scheduler,
    )
    files = models.files if sibling is None else (*models.files, sibling)
    return row(
        column(group("Models", *models.nodes, *undistilled), group("Prompt", positive, none)),
        column(group("Size and seed", size, seed), patched),
        column(
            note(title, about, expect, *files),
            saved_each(samples, models["VAE"]),
        ),
    )


def collect_pairs(
    models: Stack,
    *,
    title: str,
    prompt: str,
    dataset: str,
    zeroed: bool = False,
    latent: str = "EmptyLatentImage",
    scheduler: str = "normal",
    steps: int,
    cfg: float = REDENOISE["cfg"],
) -> Layout:
    """Stage I of the paper: a pair of noises, both sampled, scored and saved."""
    scorer, text = load_scorer(HPS), prompt_text(prompt)
    positive = positive_prompt(models["CLIP"], text)
    negative = no_prompt(positive) if zeroed else negative_prompt(models["CLIP"], "")
    size, noise = square_latent(latent), next_seed()
    sigmas = node("BasicScheduler", model=models["MODEL"], scheduler=scheduler, steps=steps, denoise=1.0)
    pair = redenoise_pair(models, positive, negative, noise, sigmas, size, cfg=cfg)
    images = sample_each(
        {"source": pair["source"], "target": pair["target"]},
        checkpoint=models,
        positive=positive,
        negative=negative,
        latent=size,
        scheduler=scheduler,
        steps=steps,
        cfg=cfg,
    )
    verdict = hps_filter(scorer, text, images["source"], images["target"], 90, noise_pair=pair["pair"])
    saved = node(
        "NPNetSavePair",
        noise_pair=verdict["pair"],
        prompt=text,
        dataset=dataset,
        base_model=models.files[0].name.removesuffix(".safetensors"),
        sampling=f"euler, {scheduler}, {steps} steps, cfg {cfg:g}",
        color=OURS,
        box=(PICTURE[0], 100),
    )
    source, target = (
        node("PreviewImage", images=images[side], title=f"From the {side} noise", box=PICTURE)
        for side in ("source", "target")
    )
    return row(
        column(group("Models", *models.nodes, scorer), group("Prompt", text, positive, negative)),
        group("A pair of noises", size, noise, sigmas, pair),
        column(
            note(
                title,
                f"""
Stage I of the paper. *Re-denoise Pair* makes the target noise, both noises are sampled, *HPS Filter* asks which image
suits the prompt better, *Save Noise Pair* appends the pair to the dataset `output/npd/{dataset}`, kept or not.
""",
                """
Queue many runs with many prompts: `npnet fit` reads the dataset and decides which pairs count. With HPSv2 the paper
keeps about three of four. `npnet collect` does the same without ComfyUI, several times faster.
""",
                *models.files,
                HPS,
            ),
            row(column(images, verdict), column(row(source, target), saved)),
        ),
    )


def seed_of_both() -> Node:
    return node("PrimitiveInt", value=0, control_after_generate="increment", title="Seed of both")


def golden_model(model: Output, npnet: Node) -> Node:
    return node("NPNetModelPatch", model=model, npnet=npnet, strength=1.0, long_prompt="truncate", color=OURS)


def two_ksamplers(models: dict[str, Node | Output], **inputs: Node | str | float) -> dict[str, Node]:
    """By the name of the noise that each model starts from, with the same inputs."""
    return {
        name: node("KSampler", model=model, **inputs, denoise=1.0, title=f"From {name} noise")
        for name, model in models.items()
    }


def saved_each(samples: dict[str, Node], vae: Output) -> Layout:
    """The samplers, and the picture of each, by the name of its noise."""
    images = {name: node("VAEDecode", samples=each, vae=vae) for name, each in samples.items()}
    return row(
        group("Sampling", *samples.values()),
        *(column(image, save(image, name)) for name, image in images.items()),
    )


def save(images: Node | Output, name: str, room: int = PICTURE[1]) -> Node:
    title, box = f"{name.capitalize()} noise", (PICTURE[0], room)
    return node("SaveImage", images=images, filename_prefix=f"npnet/{name}", title=title, box=box)
