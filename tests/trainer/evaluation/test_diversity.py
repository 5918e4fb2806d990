"""Diversity: pairwise distances by hand, transformers' own DINO, resumed runs, and what the report makes of it."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image

from npnet_core.errors import InputError
from tests.markup import parse, section, tables
from tests.trainer.collecting.test_collect import Palette
from tests.trainer.evaluation.test_evaluate import PROMPTS, SETTING, base, command, models, npnets  # noqa: F401
from trainer.commands.cli import main
from trainer.data.images import read_image
from trainer.data.jsonl import read_shards
from trainer.evaluation import dino as dino_module
from trainer.evaluation.dino import Dino, centre
from trainer.evaluation.diversity import KINDS, cosine, rms
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.results import summarise
from trainer.report.report import write_report

METHODS = ("standard", "npnet", "cfg-2")


def write_dino(folder, salt: int = 0, **changes) -> Dino:
    """A tiny DINOv2 with random weights."""
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(salt)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    Dinov2Model(Dinov2Config(**sizes | changes)).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return Dino(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory, base, npnets):  # noqa: F811
    """(folder, DINO, rows of the report) of three prompts with three seeds each."""
    folder = tmp_path_factory.mktemp("diversity")
    dino = write_dino(folder / "dino")
    evaluation = evaluate(
        base,
        {"a": npnets["a"]},
        [Palette()],
        PROMPTS[:3],
        settings=[SETTING],
        out=folder / "out",
        methods=METHODS,
        seeds_per_prompt=3,
        dino=dino,
    )
    return folder / "out", dino, evaluation


def pairs_mean(values: list[torch.Tensor], distance) -> float:
    return float(np.mean([float(distance(a, b)) for a, b in itertools.combinations(values, 2)]))


def test_spreads_are_means_over_all_pairs():
    x = torch.randn(5, 40)
    rows = list(x.double())
    assert rms(x).item() == pytest.approx(pairs_mean(rows, lambda a, b: (a - b).square().mean().sqrt()), rel=1e-5)
    expected = pairs_mean(rows, lambda a, b: 1 - torch.cosine_similarity(a, b, dim=0))
    assert cosine(x).item() == pytest.approx(expected, rel=1e-5)
    assert rms(x[:1].expand(3, -1)) == cosine(x[:1].expand(3, -1)) == 0


@torch.no_grad()
def test_every_figure_is_that_of_the_pictures_on_the_disk(run, base):  # noqa: F811
    from transformers import AutoImageProcessor, AutoModel

    out, dino, evaluation = run
    model = AutoModel.from_pretrained(dino.folder)
    processor = AutoImageProcessor.from_pretrained(dino.folder)
    entries = {(each["kind"], each["method"]): each for each in evaluation.about["diversity"]}
    assert entries.keys() == set(itertools.product(KINDS, ("standard", "a", "cfg-2")))
    found: dict[tuple, list] = {}
    for (_, method), rows in itertools.groupby(
        sorted(evaluation.rows, key=lambda row: (row["prompt"], row["method"])),
        key=lambda row: (row["prompt"], row["method"]),
    ):
        images = [read_image(out / row["image"]) for row in rows]
        vae = base.pipe.vae
        latents = [
            vae.encode(2 * image.movedim(-1, 0)[None] - 1).latent_dist.mode() * vae.config.scaling_factor
            for image in images
        ]
        bytes_ = [(image * 255).round().to(torch.uint8).numpy() for image in images]
        features = [
            model(**processor([Image.fromarray(image)], return_tensors="pt")).pooler_output[0] for image in bytes_
        ]
        for kind, values, distance in (
            ("pixels", images, lambda a, b: (a - b).square().mean().sqrt()),
            ("latents", latents, lambda a, b: (a - b).square().mean().sqrt()),
            ("dino", features, lambda a, b: 1 - torch.cosine_similarity(a, b, dim=0)),
        ):
            found.setdefault((kind, method), []).append(pairs_mean(values, distance))
    for (kind, method), values in found.items():
        entry, standard = entries[kind, method], found[kind, "standard"]
        tolerance = 0.02 if kind == "dino" else 1e-4  # its pictures are resized by another library
        assert entry["mean"] == pytest.approx(np.mean(values), rel=tolerance)
        assert min(values) * 0.97 <= entry["mean_low"] <= entry["mean"] <= entry["mean_high"] <= max(values) * 1.03
        assert (entry["prompts"], entry["seeds"]) == (3, 3)
        assert ("difference" in entry) == (method != "standard")
        if method != "standard":
            difference = np.mean(values) - np.mean(standard)
            assert entry["difference"] == pytest.approx(difference, abs=tolerance * np.mean(values))
            assert entry["difference_low"] <= entry["difference"] <= entry["difference_high"]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 96), (90, 61), (20, 28)])
def test_pictures_are_cut_as_transformers_does(tmp_path, height, width):
    from transformers import AutoImageProcessor

    write_dino(tmp_path)
    image = torch.rand(height, width, 3).mul(255).round() / 255
    processor = AutoImageProcessor.from_pretrained(tmp_path, do_normalize=False)
    pixels = processor([Image.fromarray((image * 255).to(torch.uint8).numpy())], return_tensors="pt").pixel_values
    difference = (centre(image[None], 32, 28) - pixels).abs()
    assert difference.max() <= 3 / 255
    assert difference.mean() < 0.5 / 255


def test_nothing_is_measured_twice_and_more_seeds_are(run, base, npnets, monkeypatch):  # noqa: F811
    out, dino, before = run
    arguments = (base, {"a": npnets["a"]}, [Palette()], PROMPTS[:3])
    settings = {"settings": [SETTING], "out": out, "methods": METHODS, "dino": dino}
    lines = len(read_shards(out, "diversity"))
    assert lines == 3 * 3 * 3
    with monkeypatch.context() as patched:
        patched.setattr(dino_module, "load_part", None)  # nothing needs it
        again = evaluate(*arguments, **settings, seeds_per_prompt=3)
    assert again.about["diversity"] == before.about["diversity"]
    assert len(read_shards(out, "diversity")) == lines
    more = evaluate(*arguments, **settings, seeds_per_prompt=4)
    assert {each["seeds"] for each in more.about["diversity"]} == {4}
    assert len(read_shards(out, "diversity")) == 2 * lines
    fewer = evaluate(*arguments, **settings | {"dino": None}, seeds_per_prompt=1)
    assert fewer.about["diversity"] == []


def test_the_report_shows_it(run, tmp_path):
    out, _, evaluation = run
    results = summarise(evaluation.rows, evaluation.about)
    write_report(out, results)
    stored = json.loads((out / "results.json").read_text(encoding="utf-8"))["about"]["diversity"]
    assert stored == evaluation.about["diversity"]
    root = parse((out / "report.html").read_text(encoding="utf-8"))
    ((head, *rows),) = tables(section(root, "Diversity"))
    assert head == ["method", "predictions", "seconds", "prompts", *KINDS.values()]
    assert [(row[0], row[1], row[3]) for row in rows] == [("standard", "4", "3"), ("a", "4", "3"), ("cfg-2", "4", "3")]
    entries = {(each["method"], each["kind"]): each for each in stored}
    for method, *_, cells in ((row[0], row[4:]) for row in rows):
        for kind, shown in zip(KINDS, cells, strict=True):
            mean, *change = shown.split("\n")
            assert float(mean) == pytest.approx(entries[method, kind]["mean"], rel=0.05)
            assert bool(change) == (method != "standard")
    assert "## Diversity" in (out / "report.md").read_text(encoding="utf-8")
    one_seed = summarise(evaluation.rows, evaluation.about | {"diversity": []})
    write_report(tmp_path, one_seed | {"items": [each | {"images": {}} for each in one_seed["items"]]})
    assert "more alike was not measured" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_command_takes_a_folder(tmp_path, models):  # noqa: F811
    write_dino(tmp_path / "dino")
    more = ["--seeds-per-prompt", 2, "--dino", tmp_path / "dino", "--limit", 2, "--selected-by", "clipscore"]
    assert main(command(models, tmp_path / "out", *more)) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert {each["kind"] for each in results["about"]["diversity"]} == set(KINDS)
    assert results["about"]["selecting"] == ["clipscore"]
    assert main(command(models, tmp_path / "out", "--selected-by", "hpsv2")) == 2


def test_other_dinos_are_another_run(run, base, npnets, tmp_path):  # noqa: F811
    out, *_ = run
    other = write_dino(tmp_path / "dino", salt=1)
    with pytest.raises(InputError, match="weights of dino"):
        evaluate(base, {"a": npnets["a"]}, [Palette()], PROMPTS[:3], settings=[SETTING], out=out, dino=other)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda folder: (folder / "model.safetensors").unlink(),
            "has no model.safetensors: give a transformers folder",
        ),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json: give"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be loaded .*: check"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "vit"}'),
            "of type vit: give one of dinov2",
        ),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "cannot be (loaded|read)"),
        (lambda folder: write_dino(folder, num_hidden_layers=1) and restore(folder, 2), "not have the weights"),
    ],
)
def test_folders_that_hold_no_dino(tmp_path, damage, words):
    folder = tmp_path / "dino"
    write_dino(folder)
    damage(folder)
    with pytest.raises(InputError, match=words):
        Dino(folder).load(torch.device("cpu"))


def restore(folder, layers: int) -> None:
    """A config that promises more layers than the weights have."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"num_hidden_layers": layers}), encoding="utf-8")
