"""Where the time of ``npnet evaluate`` goes: ``python -m benchmarks.evaluate [--device cuda] [--runs 5]``.

First a whole run of standard, inversion and a net on a small SDXL with random weights, 10 steps: which share of the
time its base model and its preference model compute. Then scoring alone, beside the hpsv2 package's procedure for the
same PNGs: one by one, the checkpoint loaded and the prompt encoded for every image. Where the package is installed (the
environment of ``make bench-score``) that is the package itself; elsewhere its procedure around our network, which
leaves out what else the package does.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from npnet_core.preference import Scorer, load_scorer
from npnet_core.preference.architecture import Architecture
from npnet_core.preference.layouts import OPEN_CLIP
from tests.tiny_scorers import CLIP_WORDS, images, write_clip
from trainer.bases import Schedule
from trainer.data.images import write_image
from trainer.data.prompts import PromptRow
from trainer.evaluation.draws import draw
from trainer.evaluation.methods import choose_methods
from trainer.evaluation.pictures import batches
from trainer.evaluation.sampling_settings import Setting
from trainer.evaluation.score import score_images

from .sizes import REDUCED
from .timing import paired, row, seconds

STEPS, BATCH = 10, 8
PROMPTS = [PromptRow(f"a {colour} {shape}") for colour in ("red", "blue") for shape in ("circle", "square")]


def shares(device: str) -> None:
    """A whole run, on 16 draws."""
    from npnet_core.config import NPNetConfig
    from npnet_core.model import NPNet
    from tests.tiny_pipelines import tiny_sdxl
    from trainer import bases
    from trainer.evaluation.evaluate import evaluate

    from .collect import timed

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wide = {"block_out_channels": (128, 256), "attention_head_dim": (4, 8)}
        base = bases.load_base(tiny_sdxl(folder / "base", **wide), device=device, precision="fp32")
        clip = load_scorer("clipscore", write_clip(folder / "clip"), device)
        small = {"swin_size": 56, "swin_depths": (1, 1), "swin_heads": (3, 6)}
        npnet = NPNet(NPNetConfig(resolution=16, prompt_dim=base.prompt_dim, **small)).eval().to(device)
        setting = Setting(Schedule("ddim", STEPS), 5.5, base.size, base.size)

        def run(out: Path) -> None:
            evaluate(
                base, {"npnet": npnet}, [clip], PROMPTS, settings=[setting], out=out, methods=("inversion", "npnet"),
                seeds_per_prompt=4, batch=BATCH,
            )  # fmt: skip

        run(folder / "warm")
        scored: list[float] = []
        rate = clip.rate

        def timed_rate(pictures: torch.Tensor, prompts: list[str]) -> torch.Tensor:
            scores = []
            scored.append(seconds(lambda: scores.append(rate(pictures, prompts))))
            return scores[0]

        clip.rate = timed_rate
        with timed(base) as sampled:
            start = time.perf_counter()
            run(folder / "out")
            total = time.perf_counter() - start
        count = 3 * 4 * len(PROMPTS)
        row("images per second, scored", f"{count / total:.2f}")
        row("share of the time in the base model", f"{sum(sampled) / total:.1%}", "≥ 90 %")
        row("share of the time in the preference model", f"{sum(scored) / total:.1%}")


def scoring(folder: Path, runs: int) -> None:
    """All images of one setting: two methods, two seeds per prompt."""
    setting = Setting(Schedule(), 5.5, 512, 512)
    methods = choose_methods(["inversion"], {})
    chunks = batches(draw(PROMPTS, range(100), 2), [setting], methods, BATCH)
    shots = [shot for chunk in chunks for shot in chunk]
    for shot, image in zip(shots, images(len(shots), 512, 512), strict=True):
        write_image(folder / shot.image, image, shot.about())
    one_by_one, scorer, name = package(folder) if importlib.util.find_spec("hpsv2") else procedure(folder)

    def ours() -> list[float]:
        scorer.text.known.clear()
        lines = folder / "scores.jsonl"
        lines.unlink(missing_ok=True)
        known: dict = {}
        score_images(scorer, chunks, folder, lines, known)
        return [known[shot.image, "hpsv2"] for shot in shots]

    def theirs() -> list[float]:
        return [one_by_one(folder / shot.image, shot.draw.prompt) for shot in shots]

    worst = max(abs(a - b) for a, b in zip(ours(), theirs(), strict=True))
    row(
        f"{len(shots)} images: difference from {name}",
        f"{worst:.1e}",
        "≤ 1e-3 (fp16)" if name != "package" else "≤ 1e-6",
    )
    a, b, ratio = paired(theirs, ours, runs)
    row(f"{len(shots)} images, {name} / npnet evaluate", f"{a:.2f} / {b:.2f} s = {ratio:.1f}", "≥ 3")


def package(folder: Path) -> tuple[Callable[[Path, str], float], Scorer, str]:
    """The hpsv2 package's own function."""
    from . import hpsv2_package

    network, preprocess = hpsv2_package.random_network(REDUCED, folder)
    checkpoint, words = hpsv2_package.write_files(network, folder)

    def one(path: Path, prompt: str) -> float:
        with Image.open(path) as picture:
            return hpsv2_package.score(network, preprocess, checkpoint, picture.convert("RGB"), prompt)

    return one, load_scorer("hpsv2", checkpoint, config=REDUCED, tokenizer=words), "package"


def procedure(folder: Path) -> tuple[Callable[[Path, str], float], Scorer, str]:
    """What the package does for one image, around our network: its checkpoint in fp16, read each time."""
    from trainer.data.images import read_image

    generator = torch.Generator().manual_seed(0)
    state = {
        key: torch.randn(shape, generator=generator).div_((shape[-1] if len(shape) > 1 else 50) ** 0.5).half()
        for key, shape in OPEN_CLIP.shapes(Architecture.from_dict(REDUCED)).items()
    }
    torch.save({"state_dict": state}, folder / "HPS_v2_random.pt")
    scorer = load_scorer("hpsv2", folder / "HPS_v2_random.pt", config=REDUCED, tokenizer=CLIP_WORDS)
    again = load_scorer("hpsv2", folder / "HPS_v2_random.pt", config=REDUCED, tokenizer=CLIP_WORDS)
    checkpoint = folder / "mapped.pt"
    torch.save({"state_dict": {key: value.half() for key, value in again.model.state_dict().items()}}, checkpoint)

    def one(path: Path, prompt: str) -> float:
        again.model.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
        again.text.known.clear()
        return again.score(read_image(path)[None], [prompt]).item()

    return one, scorer, "procedure"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="of the whole run")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    logging.disable()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {options.runs} runs")
    if importlib.util.find_spec("diffusers"):  # not in the package's environment
        shares(options.device)
    with tempfile.TemporaryDirectory() as folder:
        scoring(Path(folder), options.runs)


if __name__ == "__main__":
    main()
