"""The section ``trainer`` of ``benchmarks.gpu``: the shapes world's stages on a device, beside the same on the CPU."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from npnet_core.checkpoint import load_npnet
from npnet_core.npd import NPDReader
from trainer import bases
from trainer.collecting.collect import collect
from trainer.collecting.keys import pair_keys
from trainer.collecting.manifest import manifest, open_dataset
from trainer.data.prompts import PromptRow
from trainer.evaluation.evaluate import evaluate
from trainer.fitting.fit import fit
from trainer.fitting.settings import NetSettings, NoisePairs, Runtime, Settings, Training
from trainer.shapes.pipeline_stages import SMALL_SWIN, SMALL_UNET, two_settings
from trainer.shapes.worlds import stable_diffusion

from .timing import row, seconds

NETS = {"npnet": SMALL_SWIN, "unet": SMALL_UNET}
WORLD = stable_diffusion()


def measure(device: str, tiny: bool) -> None:
    """Rows on the device and the CPU. A fit needs gradients: call it outside torch.inference_mode."""
    captions, epochs = (8, 1) if tiny else (200, 5)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        pairs(out, device, captions)
        nets = fits(out, device, epochs)
        comparison(out, device, nets, captions // 4)


def pairs(out: Path, device: str, captions: int) -> None:
    """``npnet collect`` in single precision in both places, and on a card in half: OUT/pairs-cpu and others."""
    precisions = {"cpu": ("cpu", "fp32"), "device": (device, "fp32")}
    if device != "cpu":
        precisions["half"] = (device, "fp16")
    for name, (where, precision) in precisions.items():
        base = bases.load_base(WORLD.base, device=where, precision=precision)
        scorers = WORLD.scorers(WORLD.detectors, where)[:1]
        keys = pair_keys(WORLD.captions()[0][:captions], range(1025), 1, bases.latent_shape(base, None, None))
        settings = manifest(base, WORLD.recipe, [scorer.kind for scorer in scorers])
        with open_dataset(out / f"pairs-{name}", settings, worker=name) as writer:
            time = seconds(lambda b=base, s=scorers, k=keys, w=writer: collect(b, s, WORLD.recipe, k, w, batch=50))
        row(f"collect, {where}, {precision}", f"{1e3 * time / len(keys):.1f} ms a pair")
    changes = {name: change(out / f"pairs-{name}") for name in precisions}
    for name in [name for name in precisions if name != "cpu"]:  # a card convolves in TF32, also in single precision
        relative = (changes[name] - changes["cpu"]).norm() / changes["cpu"].norm()
        row(f"collect: {' '.join(precisions[name])} against CPU, relative", f"{relative:.1e}")


def change(dataset: Path) -> Tensor:
    """Target − source of every pair, in the order of prompts and seeds."""
    reader = NPDReader(dataset)
    source, target = reader.batch(range(len(reader)))
    return target - source


def fits(out: Path, device: str, epochs: int) -> dict[str, Path]:
    """``npnet fit`` on the CPU's pairs: on the CPU, and twice on the device."""
    nets = {}
    for name, shape in NETS.items():
        runs = {"cpu": "cpu", "device": device, "again": device}
        files, times = {}, {}
        for run, where in runs.items():
            settings = Settings(
                out / f"fit-{name}-{run}",
                NoisePairs(out / "pairs-cpu", scorer=("none",)),
                NetSettings(**shape),
                Training(lr=1e-3, epochs=epochs, seed=0),
                Runtime(device=where),
            )
            times[run] = seconds(lambda s=settings: fit(s))
            files[run] = settings.out / "npnet.safetensors"
        fitted = {run: load_npnet(path) for run, path in files.items()}
        explained = [json.loads(fitted[run].metadata["npnet.validation"])["validation_explained"] for run in runs]
        row(f"fit {name}: explained, CPU, {device}", f"{explained[0]:.2%}, {explained[1]:.2%}")
        row(f"fit {name}: seconds, CPU, {device}", f"{times['cpu']:.1f}, {times['again']:.1f}")
        differences = [
            (a - b).abs().max().item()
            for a, b in zip(fitted["device"].parameters(), fitted["again"].parameters(), strict=True)
        ]
        row(f"fit {name}: weights of two runs on {device}", f"{max(differences):.1e}", "0")
        nets[name] = files["device"]
    return nets


def comparison(out: Path, device: str, nets: Mapping[str, Path], captions: int) -> None:
    """``npnet evaluate`` in single precision: how far apart the scores of the same pictures are."""
    scores = {}
    for name, where in {"cpu": "cpu", "device": device}.items():
        evaluation = evaluate(
            bases.load_base(WORLD.base, device=where, precision="fp32"),
            {net: load_npnet(path).to(where) for net, path in nets.items()},
            WORLD.scorers(WORLD.detectors, where)[:1],
            [PromptRow(caption) for caption in WORLD.captions()[0][: max(2, captions)]],
            settings=list(two_settings(WORLD).values()),
            out=out / f"evaluation-{name}",
            methods=("standard", "inversion", "npnet", "wrong-prompt"),
            batch=50,
        )
        scores[name] = {(each["image"], each["metric"]): each["score"] for each in evaluation.rows}
    different = [abs(scores["device"][key] - score) for key, score in scores["cpu"].items()]
    row(f"evaluate: scores, CPU against {device}, median", f"{statistics.median(different):.1e}")
    row(f"evaluate: the same, the largest of {len(different)}", f"{max(different):.1e}")
