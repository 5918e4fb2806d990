"""What a noise pair costs: ``python -m benchmarks.collect [--device cuda] [--runs 7]``.

``npnet collect`` beside the released code's procedure, written from its description: one pair at a time, one pipeline
for the source's image and another for pair and target's image, 2n + 2 guided evaluations of both branches, prompts
encoded by each, images through PIL, and the preference model loaded for every image.

Both have SDXL's classes with random weights and the same small CLIP; they take turns. On the tiny base model calls
cost more than arithmetic, as on a GPU that one image does not fill. On the small one arithmetic costs all, and both do
nearly the same of it: there the share of the time that the base model takes means something.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import diffusers
import numpy as np
import torch

from npnet_core.npd import NPDWriter, PairKey
from npnet_core.preference import Scorer, load_scorer
from tests.tiny_pipelines import tiny_sdxl
from tests.tiny_scorers import write_clip
from trainer import bases
from trainer.bases import Base, Schedule
from trainer.collecting.collect import collect
from trainer.collecting.keys import pair_keys
from trainer.collecting.manifest import manifest
from trainer.collecting.recipe import Recipe

from .timing import median_seconds, paired, row

STEPS, CFG, INVERSION_CFG = 10, 5.5, 1.0
WORDS = [
    f"{count} {colour} {shape}" for count in ("a", "one") for colour in ("red", "blue") for shape in ("cat", "dog")
]


class Released:
    """The released procedure for one base model."""

    def __init__(self, folder: Path, clip: Path, device: str, size: int):
        self.pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True).to(device)
        self.pipe.scheduler = diffusers.DDIMScheduler.from_config(self.pipe.scheduler.config)
        self.pipe.set_progress_bar_config(disable=True)
        self.inverse = diffusers.DDIMInverseScheduler.from_config(self.pipe.scheduler.config)
        self.clip, self.device, self.size = clip, device, size

    def __call__(self, keys: Sequence[PairKey], out: Path) -> None:
        with (out / "log.json").open("w") as log:
            for index, key in enumerate(keys):
                noise = torch.randn(1, *key.shape, generator=torch.manual_seed(key.seed)).to(self.device)
                source = self.image(key.prompt, noise)
                target = self.pair_and_image(key, noise, out / f"{index}_{key.seed}.npz", index)
                scores = [self.score(key.prompt, image) for image in (source, target)]
                log.write(
                    json.dumps({"index": index, "seed": key.seed, "caption": key.prompt, "scores": scores}) + "\n"
                )

    def image(self, prompt: str, latents: torch.Tensor):
        sizes = {"height": self.size, "width": self.size}
        return self.pipe(prompt, latents=latents, num_inference_steps=STEPS, guidance_scale=CFG, **sizes).images[0]

    @torch.no_grad()
    def pair_and_image(self, key: PairKey, noise: torch.Tensor, path: Path, index: int):
        """The second pipeline: re-denoise, save the pair, start again from the target."""
        pipe, scheduler = self.pipe, self.pipe.scheduler
        embeds, uncond, pooled, uncond_pooled = pipe.encode_prompt(key.prompt, device=self.device)
        time_ids = torch.tensor([[self.size, self.size, 0, 0, self.size, self.size]] * 2, device=self.device).to(noise)
        cond = {
            "encoder_hidden_states": torch.cat([uncond, embeds]),
            "added_cond_kwargs": {"text_embeds": torch.cat([uncond_pooled, pooled]), "time_ids": time_ids},
        }

        def eps(x: torch.Tensor, t: torch.Tensor, cfg: float) -> torch.Tensor:
            without, with_prompt = pipe.unet(torch.cat([x, x]), t, **cond, return_dict=False)[0].chunk(2)
            return without + cfg * (with_prompt - without)

        scheduler.set_timesteps(STEPS, device=self.device)
        self.inverse.set_timesteps(STEPS, device=self.device)
        first, second = scheduler.timesteps[:2]
        lower = scheduler.step(eps(noise, first, CFG), first, noise).prev_sample
        x = self.inverse.step(eps(lower, first, INVERSION_CFG), second, lower).prev_sample
        np.savez(path, noise.cpu().numpy(), x.cpu().numpy(), index)
        for t in scheduler.timesteps:
            x = scheduler.step(eps(x, t, CFG), t, x).prev_sample
        decoded = pipe.vae.decode(x / pipe.vae.config.scaling_factor, return_dict=False)[0]
        return pipe.image_processor.postprocess(decoded, output_type="pil")[0]

    def score(self, prompt: str, image) -> float:
        scorer = load_scorer("clipscore", self.clip, self.device)
        return scorer.score(torch.from_numpy(np.array(image))[None].float() / 255, [prompt]).item()


class Ours:
    """``npnet collect`` without its command line: models are loaded."""

    def __init__(self, folder: Path, clip: Path, device: str, size: int, batch: int):
        self.base = bases.load_base(folder, device=device, precision="fp32")
        self.scorer: Scorer = load_scorer("clipscore", clip, device)
        self.recipe = Recipe(Schedule("ddim", STEPS), height=size, width=size, cfg=CFG, inversion_cfg=INVERSION_CFG)
        self.batch = batch

    def __call__(self, keys: Sequence[PairKey], out: Path) -> None:
        self.scorer.text.known.clear()
        settings = manifest(self.base, self.recipe, ["clipscore"])
        with NPDWriter(out, settings, worker="benchmark") as writer:
            collect(self.base, [self.scorer], self.recipe, keys, writer, batch=self.batch)


@contextmanager
def timed(base: Base) -> Iterator[list[float]]:
    """The seconds of every call of the base model's parts."""
    parts = [base.network, base.pipe.vae.decoder, base.pipe.text_encoder, base.pipe.text_encoder_2]
    started, times = [], []

    def now() -> float:
        if base.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    hooks = [part.register_forward_pre_hook(lambda *_: started.append(now())) for part in parts]
    hooks += [part.register_forward_hook(lambda *_: times.append(now() - started.pop())) for part in parts]
    yield times
    for hook in hooks:
        hook.remove()


def side_by_side(name: str, folder: Path, clip: Path, *, device: str, size: int, batch: int, runs: int) -> None:
    """One batch of pairs by each of the two, in turn."""
    ours, released = Ours(folder, clip, device, size, batch), Released(folder, clip, device, size)
    keys = pair_keys(WORDS, range(1025), 2, bases.latent_shape(ours.base, size, size))[:batch]

    def fresh(procedure: Ours | Released) -> None:
        with tempfile.TemporaryDirectory() as out:
            procedure(keys, Path(out))

    a, b, ratio = paired(lambda: fresh(released), lambda: fresh(ours), runs)
    load = median_seconds(lambda: load_scorer("clipscore", clip, device), runs)
    row(f"{name}: released procedure", f"{batch / a:.2f} pairs/s")
    row(f"{name}: of it, loading the preference model", f"{2 * load * batch / a:.1%}")
    row(f"{name}: npnet collect, batch {batch}", f"{batch / b:.2f} pairs/s")
    bound = "≥ 3" if name == "tiny" else f"by arithmetic alone {(2 * STEPS + 2) / (2 * STEPS + 0.5):.2f}"
    row(f"{name}: times as fast", f"{ratio:.2f}", bound)
    with timed(ours.base) as times:
        start = time.perf_counter()
        fresh(ours)
        total = time.perf_counter() - start
    share = sum(times) / total
    row(f"{name}: share of the time in the base model", f"{share:.1%}", "≥ 90 %" if name == "small" else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {options.runs} runs, {STEPS} steps"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clip = write_clip(folder / "clip")
        shared = {"clip": clip, "device": options.device, "runs": options.runs}
        side_by_side("tiny", tiny_sdxl(folder / "tiny"), size=64, batch=16, **shared)
        wide = {"block_out_channels": (128, 256), "attention_head_dim": (4, 8)}
        side_by_side("small", tiny_sdxl(folder / "small", **wide), size=128, batch=4, **shared)


if __name__ == "__main__":
    main()
