"""The workflow that ``npnet demo --comfyui`` puts into a ComfyUI: the tiny models that come with the package."""

from __future__ import annotations

from workflows.graph import Node, Output, node
from workflows.layout import Layout, column, group, row
from workflows.parts import OURS, PICTURE, one_line, positive_prompt, prompt_text

NAME = "npnet-shapes-world"  # of the pipeline and the net in trainer/shapes/in_comfyui.py
SHOWN = (400, 340)

ABOUT = """
A tiny text-to-image model makes sixteen pictures of one caption twice: from ordinary noise, and from the **golden
noise** that an NPNet makes of it. A detector scores both by how likely it is that they show what the caption says, and
*HPS Filter* counts how often it prefers golden noise.
"""
EXPECT = """
Single pictures go either way, and for some captions there is no gain: sixteen pictures are no evidence, the page of
`npnet demo` is. Guidance is off (cfg 1), where there is most to gain. Prompts have to be captions like this one,
for the detector reads no others: *two large green circles on a light ground*, *a small red cross at the left on a
dark ground*.
"""
SIDES = """
A size of 64 makes pictures of 32 pixels: this model's latents have a quarter of a picture's side, and *Empty Latent
Image* divides by 8.
"""


def shapes_world() -> Layout:
    base = node("NPNetSmallPipelineLoad", pipeline=NAME, color=OURS)
    npnet = node("NPNetLoad", npnet_name=f"{NAME}.safetensors", color=OURS)
    scorer = node("NPNetScorerLoad", scorer_name=f"{NAME}-detector-b.safetensors", kind="shapes-b", color=OURS)
    prompt = prompt_text("a red cross above a blue circle on a dark ground")
    positive = positive_prompt(base["CLIP"], prompt)
    negative = node("CLIPTextEncode", clip=base["CLIP"], text="", title="No prompt", color="red", box=(300, 50))
    latent = node("EmptyLatentImage", width=64, height=64, batch_size=16, title="Sixteen pictures of 32 pixels")
    seed = node("PrimitiveInt", value=0, control_after_generate="increment", title="Seed of both")
    patched = node(
        "NPNetModelPatch", model=base["MODEL"], npnet=npnet, strength=1.0, long_prompt="truncate", color=OURS
    )

    def sample(model: Node | Output, title: str) -> tuple[Node, Node]:
        samples = node(
            "KSampler",
            model=model,
            positive=positive,
            negative=negative,
            latent_image=latent,
            seed=seed,
            steps=10,
            cfg=1.0,
            sampler_name="ddim",
            scheduler="ddim_uniform",
            denoise=1.0,
            title=title,
        )
        return samples, node("VAEDecode", samples=samples, vae=base["VAE"])

    ordinary, ordinary_images = sample(base["MODEL"], "From ordinary noise")
    golden, golden_images = sample(patched, "From golden noise")
    verdict = node(
        "NPNetHPSFilter",
        scorer=scorer,
        source_images=ordinary_images,
        target_images=golden_images,
        prompt=prompt,
        margin=0.0,
        color=OURS,
        title="Golden against ordinary",
        box=(PICTURE[0], 330),
    )
    return row(
        column(group("Models", base, npnet, scorer), group("Prompt", prompt, positive, negative)),
        column(group("Size and seed", latent, seed), patched, verdict),
        column(
            node("MarkdownNote", text=read_me(), title="Read me", color="blue", box=(400, 250)),
            row(
                group("Sampling", ordinary, golden),
                column(ordinary_images, *shown(ordinary_images, "Ordinary")),
                column(golden_images, *shown(golden_images, "Golden")),
            ),
        ),
    )


def shown(images: Node, noise: str) -> tuple[Node, Node]:
    """The pictures, large enough to be seen."""
    large = node("ImageScale", image=images, upscale_method="nearest-exact", width=128, height=128, crop="disabled")
    return large, node("PreviewImage", images=large, title=f"{noise} noise", box=SHOWN)


def read_me() -> str:
    return f"""\
## Golden noise in the shapes world

{one_line(ABOUT)}

Press **Run**: it takes seconds, without a graphics card. Every run takes the next seed.

## What to expect

{one_line(EXPECT)}

{one_line(SIDES)}
"""
