"""The shapes world: captions and pictures, against facts that can be read off the pictures."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from scipy import ndimage
from torch import Tensor

from npnet_core.errors import InputError
from npnet_core.preference.shapes.captions import KINDS, SCENES, SHAPES, Scene
from trainer.shapes import components as parts
from trainer.shapes import world
from trainer.shapes.world import COLOURS, SIZE, WIDE

FILLED = {  # area of a shape of radius 1
    "circle": math.pi,
    "square": 1.76**2,
    "triangle": 0.58 * 1.85**2,
    "cross": 2 * 0.68 * 2 - 0.68**2,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_caption_names_its_scene():
    assert len({scene.caption for scene in SCENES}) == len(set(SCENES)) == len(SCENES) == 3520
    assert [Scene.from_caption(scene.caption) for scene in SCENES] == list(SCENES)
    assert Counter(scene.about for scene in SCENES) == {"one": 320, "several": 160, "two": 3040}


@pytest.mark.parametrize(
    "prompt", ["", "a red circle", "a red circle left of a blue square", "a large cat at the top on a dark ground"]
)
def test_other_prompts_are_refused(prompt):
    with pytest.raises(InputError, match="no caption"):
        Scene.from_caption(prompt)


def test_captions_are_split_without_rest():
    choosing, reporting = world.split_captions()
    assert (len(choosing), len(reporting)) == (2640, 880)
    assert set(choosing).isdisjoint(reporting)
    assert {*choosing, *reporting} == {scene.caption for scene in SCENES}
    assert world.split_captions() == (choosing, reporting)
    about = Counter(Scene.from_caption(caption).about for caption in reporting)
    assert about == {"one": 80, "several": 40, "two": 760}


def test_the_split_is_what_it_was():
    """What was collected and reported with one split would leak in another."""
    choosing, reporting = world.split_captions()
    assert choosing[:2] == [
        "a red circle right of a purple cross on a dark ground",
        "a red square left of a purple triangle on a light ground",
    ]
    assert reporting[:2] == [
        "a purple circle right of a purple cross on a dark ground",
        "a yellow triangle right of a green triangle on a light ground",
    ]


def coverage(image: Tensor, colour: str) -> Tensor:
    """[H, W] in 0..1: how much of each pixel is of that colour and not of the ground, in a picture of nothing else."""
    ground = image.flatten(0, 1).median(0).values
    change = torch.tensor(COLOURS[colour]) - ground
    return ((image - ground) @ change / change.square().sum()).clamp(0, 1)


def centre_of(inside: Tensor) -> Tensor:
    """(x, y) in pixels from the middle."""
    y, x = ndimage.center_of_mass(inside.numpy())
    return torch.tensor([x + 0.5 - inside.shape[1] / 2, y + 0.5 - inside.shape[0] / 2], dtype=torch.float)


SIDES = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "top": (1, -1), "bottom": (1, 1), "below": (1, 1)}


def lies(side: str, away: Tensor) -> bool:
    """Whether a vector (x, y) points to a side, which a caption names as a place or a relation."""
    axis, sign = SIDES[side.removesuffix(" of")]
    return (sign * away[axis] > away[1 - axis].abs()).item()


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_pictures_of_one_colour_show_what_their_captions_say(size):
    """Objects are counted as connected pieces, their radius follows from their area."""
    scenes = [scene for scene in SCENES if scene.about != "two"]
    images, centres = world.draw(scenes, generator(), size)
    assert images.shape == (len(scenes), *size, 3)
    assert images.min() >= 0
    assert images.max() <= 1
    for scene, image, (expected, _) in zip(scenes, images, centres, strict=True):
        colour, shape = KINDS[scene.kind]
        inside = coverage(image, colour)
        assert ndimage.label(inside.numpy() > 0.5)[1] == scene.count
        radius = (inside.sum().item() / scene.count / FILLED[shape]) ** 0.5
        assert (radius > 4.15) == (scene.size == "large")
        assert (image.flatten(0, 1).median(0).values.mean() > 0.5) == (scene.ground == "light")
        centre = centre_of(inside)
        torch.testing.assert_close(centre, expected, atol=1.6, rtol=0)  # a triangle's lies below its box's middle
        if scene.place is not None:
            assert lies(scene.place, centre)


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_pictures_of_two_show_how_they_lie(size):
    scenes = [s for s in SCENES if s.about == "two" and KINDS[s.kind][0] != KINDS[s.other][0]][::11]
    for scene, image, expected in zip(scenes, *world.draw(scenes, generator(), size), strict=True):
        found = []
        for kind in (scene.kind, scene.other):
            colour = torch.tensor(COLOURS[KINDS[kind][0]])
            found.append(centre_of(((image - colour).abs().amax(2) < 0.06).float()))
        assert lies(scene.relation, found[0] - found[1])
        torch.testing.assert_close(torch.stack(found), expected, atol=1.6, rtol=0)


def test_shapes_differ_as_their_names_say():
    """Share of the bounding box that is filled: a circle π/4, a square all, a triangle half, a cross five ninths."""
    for shape, filled in (("circle", 0.785), ("square", 1.0), ("triangle", 0.5), ("cross", 0.564)):
        scene = Scene("dark", KINDS.index(("red", shape)), size="large", place="left")
        shares = []
        for image in world.draw([scene] * 50, generator()).images:
            points = (coverage(image, "red") > 0.5).nonzero()
            shares.append(len(points) / (points.amax(0) - points.amin(0) + 1).prod())
        assert torch.stack(shares).mean().item() == pytest.approx(filled, abs=0.1)


def test_pictures_are_a_function_of_the_generator():
    scenes = world.random_scenes(20, generator(3))
    assert scenes == world.random_scenes(20, generator(3)) != world.random_scenes(20, generator(4))
    first, again, other = (world.draw(scenes, generator(seed)).images for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_random_scenes_are_of_every_kind_alike():
    about = Counter(scene.about for scene in world.random_scenes(3000, generator()))
    assert all(900 < number < 1100 for number in about.values())


def test_facts_count_what_scenes_say():
    scenes = [SCENES[0], SCENES[400], SCENES[1000]]
    facts = world.Facts.of(scenes)
    assert facts.counts().sum(1).tolist() == [1, scenes[1].count, 2]
    for row, scene in zip(facts.counts(), scenes, strict=True):
        assert row[scene.kind] == scene.count
        assert scene.other is None or row[scene.other] == 1


def test_every_word_is_one_token():
    """But "above", which a merge of "bottom" takes a piece out of; the shipped model has learnt it so."""
    tokenizer = parts.clip_tokenizer()
    above = ["a", "bo", "v", "e</w>"]
    for scene in SCENES[::7]:
        ids = tokenizer(scene.caption, padding="max_length").input_ids
        assert len(ids) == parts.TOKENS
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == scene.caption
        words = ([word + "</w>"] if word != "above" else above for word in scene.caption.split())
        assert tokenizer.tokenize(scene.caption) == [token for word in words for token in word]


def test_every_word_is_one_token_of_the_flow_model_too():
    from trainer.shapes.flow_batches import SEQUENCE, chat_ids

    tokenizer = parts.qwen_tokenizer()
    around = len(chat_ids(tokenizer, ""))
    for scene in SCENES[::7]:
        ids = chat_ids(tokenizer, scene.caption)
        assert len(ids) - around == len(scene.caption.split())
        assert len(ids) <= SEQUENCE
        assert scene.caption in tokenizer.decode(ids)


def test_kinds_are_all_there_are():
    assert len(KINDS) == len(COLOURS) * len(SHAPES) == 20
