"""The verdict on pictures and the two detectors that see for it."""

from __future__ import annotations

import pytest
import torch

from npnet_core.errors import InputError
from npnet_core.preference import convert_scorer, describe_scorer, load_scorer
from npnet_core.preference.shapes import scorer
from npnet_core.preference.shapes.captions import GROUNDS, KINDS, MOST, PLACES, RELATIONS, SIZES, Scene
from npnet_core.preference.shapes.detectors import DETECTORS, Seen
from trainer.shapes import WEIGHTS, world
from trainer.shapes.scorer import load_detector, load_scorers
from trainer.shapes.world import SIZE, WIDE

SIDES = ((-8.0, 1.0), (8.0, 1.0), (1.0, -8.0), (1.0, 8.0))  # left, right, top, bottom, from the middle
FIELDS = ("objects", "size", "layout", "ground")


def seen(objects: dict[str, tuple], ground: str = "dark") -> Seen:
    """A perfect detector's view: name → (how many, where, small or large)."""
    counts = torch.full((1, len(KINDS), MOST + 1), -20.0)
    counts[..., 0] = 20.0
    centres, large = torch.zeros(1, len(KINDS), 2), torch.zeros(1, len(KINDS))
    for name, (number, centre, size) in objects.items():
        kind = KINDS.index(tuple(name.split()))
        counts[0, kind] = -20.0
        counts[0, kind, number] = 20.0
        centres[0, kind], large[0, kind] = torch.tensor(centre), 20.0 * (1 if size == "large" else -1)
    return Seen(counts, centres, large, torch.tensor([20.0 if ground == "light" else -20.0]))


def verdict(caption: str, view: Seen) -> dict[str, float]:
    judged = scorer.judge(view, [Scene.from_caption(caption)])
    assert judged.all_right.item() == float(all(getattr(judged, field) == 1 for field in FIELDS))
    return {field for field in FIELDS if getattr(judged, field).item() == 0}


ONE = "a small red cross at the left on a dark ground"
LEFT = SIDES[0]


@pytest.mark.parametrize(
    ("objects", "ground", "wrong"),
    [
        ({"red cross": (1, LEFT, "small")}, "dark", set()),
        ({"red cross": (1, LEFT, "small")}, "light", {"ground"}),
        ({"red cross": (1, LEFT, "large")}, "dark", {"size"}),
        ({"red cross": (1, SIDES[2], "small")}, "dark", {"layout"}),
        ({"red cross": (2, LEFT, "small")}, "dark", {"objects"}),
        ({"red cross": (1, LEFT, "small"), "blue circle": (1, SIDES[1], "small")}, "dark", {"objects"}),
        ({"red circle": (1, LEFT, "small")}, "dark", {"objects", "size", "layout"}),
        ({}, "light", {"objects", "size", "layout", "ground"}),
    ],
)
def test_verdict_on_one_object(objects, ground, wrong):
    if "red cross" not in objects:  # where a kind that is not there is, and how large, a detector may say anything
        wrong = wrong - {"size", "layout"}
        assert wrong <= verdict(ONE, seen(objects, ground))
    else:
        assert verdict(ONE, seen(objects, ground)) == wrong


@pytest.mark.parametrize("number", [2, 3])
def test_verdict_on_several_counts_them(number):
    caption = f"{'two' if number == 2 else 'three'} large green circles on a light ground"
    for found in range(MOST + 1):
        view = seen({"green circle": (found, (0.0, 0.0), "large")}, "light")
        assert verdict(caption, view) == (set() if found == number else {"objects"})


@pytest.mark.parametrize("side", range(4))
def test_each_place_and_relation_holds_in_one_of_four_arrangements(side):
    alone = f"a small red cross at the {PLACES[side]} on a dark ground"
    two = f"a red cross {RELATIONS[side]} a blue circle on a dark ground"
    for other, (x, y) in enumerate(SIDES):
        right = set() if other == side else {"layout"}
        assert verdict(alone, seen({"red cross": (1, (x, y), "small")})) == right
        shifted = seen({"red cross": (1, (x + 3, y - 2), "small"), "blue circle": (1, (3.0, -2.0), "large")})
        assert verdict(two, shifted) == right


def test_log_likelihood_is_that_of_independent_facts():
    """The sum over all facts of log p, with p by the definitions of softmax and logit, one fact after the other."""
    torch.manual_seed(0)
    scenes = world.random_scenes(30, torch.Generator().manual_seed(0))
    n = len(KINDS)
    view = Seen(2 * torch.randn(30, n, MOST + 1), 9 * torch.randn(30, n, 2), torch.randn(30, n), torch.randn(30))
    scores = scorer.judge(view, scenes).log_likelihood

    def log_sigmoid(x: torch.Tensor) -> float:
        return -(1 + (-x.double()).exp()).log().item()

    for i, scene in enumerate(scenes):
        expected = 0.0
        for kind in range(n):
            number = scene.count if kind == scene.kind else int(kind == scene.other)
            logits = view.counts[i, kind].double()
            p = (logits - logits.max()).clamp(min=-scorer.CERTAIN).exp()
            expected += (p[number] / p.sum()).log().item()
        expected += log_sigmoid(view.light[i] * (1 if scene.ground == "light" else -1))
        if scene.size is not None:
            expected += log_sigmoid(view.large[i, scene.kind] * (1 if scene.size == "large" else -1))
        if (side := scene.place or scene.relation) is not None:
            away = view.centres[i, scene.kind]
            away = away if scene.other is None else away - view.centres[i, scene.other]
            number = (PLACES if scene.place else RELATIONS).index(side)
            along, across = (away[0], away[1]) if number < 2 else (away[1], away[0])
            margin = (along if number % 2 else -along) - across.abs()
            expected += log_sigmoid((margin / scorer.BLUR).clamp(-8, 8))
        assert scores[i].item() == pytest.approx(expected, rel=1e-4)


def test_the_score_of_a_picture_has_a_gradient():
    for name in DETECTORS:
        images = torch.rand(2, *SIZE, 3, requires_grad=True)
        scenes = world.random_scenes(2, torch.Generator().manual_seed(0))
        scorer.judge(load_detector(name)(images), scenes).log_likelihood.sum().backward()
        assert images.grad.abs().amax() > 0


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_take_any_size(name):
    detector = DETECTORS[name]().eval()
    for size in (SIZE, WIDE, (48, 24)):
        view = detector(torch.rand(2, *size, 3))
        assert view.counts.shape == (2, len(KINDS), MOST + 1)
        assert view.centres.shape == (2, len(KINDS), 2)
        assert view.large.shape == (2, len(KINDS))
        assert view.light.shape == (2,)
        assert (view.centres.abs() < torch.tensor([size[1] / 2, size[0] / 2])).all()


def test_the_detectors_differ_in_architecture():
    a, b = (DETECTORS[name]() for name in "ab")
    layers = [{type(module) for module in detector.modules()} for detector in (a, b)]
    assert layers[0] != layers[1]
    assert GROUNDS == ("dark", "light")  # their order is what Seen.light says …
    assert SIZES == ("small", "large")  # … and Seen.large


@pytest.mark.parametrize("name", DETECTORS)
def test_the_shipped_files_are_preference_models(name, tmp_path):
    """Known by their keys, the same by either loader, also converted; other prompts than captions are refused."""
    file = WEIGHTS / f"detector-{name}.safetensors"
    (expected,) = (scorer for scorer in load_scorers() if scorer.kind == f"shapes-{name}")
    convert_scorer(file, tmp_path / "converted.safetensors")
    scenes = world.random_scenes(3, torch.Generator().manual_seed(0))
    images = world.draw(scenes, torch.Generator().manual_seed(0)).images
    captions = [scene.caption for scene in scenes]
    for path in (file, tmp_path / "converted.safetensors"):
        loaded = load_scorer(None, path)
        assert loaded.kind == expected.kind
        assert torch.equal(loaded.score(images, captions), expected.score(images, captions))
    assert f"shapes-{name}" in describe_scorer(file)["preference model"]
    with pytest.raises(InputError, match="is no caption of the shapes world: write one like"):
        loaded.score(images, ["a red fox"] * 3)
