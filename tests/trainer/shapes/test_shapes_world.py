"""The shapes world: captions, pictures, and the verdict on them, against facts that can be read off the pictures."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from npnet_core.errors import InputError
from trainer import bases
from trainer.bases import load_base
from trainer.shapes import BASE, WEIGHTS, scorer, train, world
from trainer.shapes import components as parts
from trainer.shapes.world import COLOURS, KINDS, RELATIONS, SCENES, SHAPES, SIZE, WIDE, Scene


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_caption_names_its_scene():
    assert len(set(SCENES)) == len(SCENES) == 12 * 11 * 4
    assert [Scene.from_caption(scene.caption) for scene in SCENES] == list(SCENES)


@pytest.mark.parametrize("prompt", ["", "a red circle", "a red circle left of a blue square and more", "a cat"])
def test_other_prompts_are_refused(prompt):
    with pytest.raises(InputError, match="no caption"):
        Scene.from_caption(prompt)


def test_captions_are_split_without_rest():
    choosing, reporting = world.split_captions()
    assert len(choosing) == 400
    assert set(choosing).isdisjoint(reporting)
    assert {*choosing, *reporting} == {scene.caption for scene in SCENES}
    assert world.split_captions() == (choosing, reporting)


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_pictures_show_what_their_captions_say(size):
    """Colours are counted, and centres of mass compared, in the picture alone."""
    scenes = [scene for scene in SCENES if KINDS[scene.first][0] != KINDS[scene.second][0]][::5]
    images, centres = world.draw(scenes, generator(), size)
    assert images.shape == (len(scenes), *size, 3)
    assert images.min() >= 0
    assert images.max() <= 1
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    for scene, image, expected in zip(scenes, images, centres, strict=True):
        found = []
        for kind in (scene.first, scene.second):
            colour = torch.tensor(COLOURS[KINDS[kind][0]])
            inside = (image - colour).abs().amax(2) < 0.05
            found.append(torch.stack([x[inside].mean(), y[inside].mean()]))
        right_and_down = found[1] - found[0]
        axis, sign = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}[
            RELATIONS[scene.relation]
        ]
        assert sign * right_and_down[axis] > 2 * abs(right_and_down[1 - axis])
        # a triangle's centre of mass lies below the middle of its box
        torch.testing.assert_close(torch.stack(found), expected, atol=1.6, rtol=0)


def test_shapes_differ_as_their_names_say():
    """Share of the bounding box that is filled: a circle π/4, a square all, a triangle half."""
    for shape, filled in (("circle", 0.785), ("square", 1.0), ("triangle", 0.5)):
        scene = Scene(KINDS.index(("red", shape)), 0, KINDS.index(("blue", "square")))
        shares = []
        for image in world.draw([scene] * 50, generator()).images:
            red = image[..., 0] - image[..., 2] > 0.37  # half of it, between red and the ground
            points = red.nonzero()
            shares.append(len(points) / (points.amax(0) - points.amin(0) + 1).prod())
        assert torch.stack(shares).mean().item() == pytest.approx(filled, abs=0.1)


def test_pictures_are_a_function_of_the_generator():
    scenes = world.random_scenes(20, generator(3))
    assert scenes == world.random_scenes(20, generator(3)) != world.random_scenes(20, generator(4))
    first, again, other = (world.draw(scenes, generator(seed)).images for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_word_is_one_token():
    tokenizer = parts.tokenizer()
    for scene in SCENES:
        ids = tokenizer(scene.caption, padding="max_length").input_ids
        assert len(ids) == parts.TOKENS
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == scene.caption
        assert tokenizer.tokenize(scene.caption) == [word + "</w>" for word in scene.caption.split()]


def seen(kinds: dict[str, tuple[float, float]]) -> scorer.Seen:
    """A perfect detector's view of objects at places."""
    presence, centres = torch.full((1, len(KINDS)), -20.0), torch.zeros(1, len(KINDS), 2)
    for name, centre in kinds.items():
        kind = KINDS.index(tuple(name.split()))
        presence[0, kind], centres[0, kind] = 20.0, torch.tensor(centre)
    return scorer.Seen(presence, centres)


CAPTION = "a red circle left of a blue square"


@pytest.mark.parametrize(
    ("objects", "expected"),  # objects, attributes, relation, all_right
    [
        ({"red circle": (8, 16), "blue square": (24, 16)}, (1, 1, 1, 1)),
        ({"red circle": (24, 16), "blue square": (8, 16)}, (1, 1, 0, 0)),
        ({"red circle": (8, 16), "blue square": (24, 16), "yellow square": (4, 4)}, (1, 1, 1, 0)),
        ({"red circle": (8, 16), "green square": (24, 16)}, (1, 0.5, 0, 0)),
        ({"blue circle": (8, 16), "red square": (24, 16)}, (1, 0, 0, 0)),
        ({"red circle": (8, 16)}, (0.5, 0.5, 0, 0)),
        ({}, (0, 0, 0, 0)),
    ],
)
def test_verdict_of_a_perfect_detector(objects, expected):
    verdict = scorer.judge(seen(objects), [Scene.from_caption(CAPTION)])
    assert tuple(field.item() for field in verdict[1:]) == expected


@pytest.mark.parametrize("relation", RELATIONS)
def test_each_relation_holds_in_one_of_four_arrangements(relation):
    caption = f"a red circle {relation} a blue square"
    places = {"left of": (8, 16), "right of": (24, 16), "above": (16, 8), "below": (16, 24)}
    for name, place in places.items():
        verdict = scorer.judge(seen({"red circle": place, "blue square": (16, 16)}), [Scene.from_caption(caption)])
        assert verdict.relation.item() == (name == relation)


def test_log_likelihood_is_that_of_independent_facts():
    """The sum over all facts of log p, with p by the definition of a logit, in another order of operations."""
    torch.manual_seed(0)
    scenes = world.random_scenes(30, generator())
    view = scorer.Seen(4 * torch.randn(30, len(KINDS)), 32 * torch.rand(30, len(KINDS), 2))
    scores = scorer.judge(view, scenes).log_likelihood
    for scene, logits, centres, score in zip(scenes, view.presence, view.centres, scores, strict=True):
        p = 1 / (1 + (-logits.double().clamp(-8, 8)).exp())
        facts = [p[kind] if kind in (scene.first, scene.second) else 1 - p[kind] for kind in range(len(KINDS))]
        step = (centres[scene.second] - centres[scene.first]).double()
        apart = {"left of": step[0], "right of": -step[0], "above": step[1], "below": -step[1]}
        facts.append(1 / (1 + (-apart[RELATIONS[scene.relation]] / 1.6).exp()))
        assert score.item() == pytest.approx(sum(fact.log().item() for fact in facts), rel=1e-4)


def test_normalised_latents_decode_as_before():
    torch.manual_seed(0)
    vae = parts.autoencoder().requires_grad_(False)
    x = train.to_network(world.draw(world.random_scenes(64, generator()), generator()).images)
    before = vae.encode(x).latent_dist
    pictures, noise = vae.decode(before.mode()).sample, (before.std / before.mean.std((0, 2, 3), keepdim=True))
    train.normalise_latents(vae, x)
    after = vae.encode(x).latent_dist
    torch.testing.assert_close(after.mode().mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(after.mode().std((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(after.std, noise, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(vae.decode(after.mode()).sample, pictures, atol=1e-4, rtol=1e-3)


def test_the_detector_takes_any_size():
    detector = scorer.Detector().eval()
    for size in (SIZE, WIDE, (48, 24)):
        view = detector(torch.rand(2, *size, 3))
        assert view.presence.shape == (2, len(KINDS))
        assert view.centres.shape == (2, len(KINDS), 2)
        assert (view.centres > 0).all()
        assert (view.centres < torch.tensor([size[1], size[0]])).all()
    assert len(KINDS) == len(COLOURS) * len(SHAPES)


@pytest.fixture(scope="module")
def retrained(tmp_path_factory):
    """Trained for a moment: everything the shipped folder has, but no skill."""
    torch.manual_seed(0)
    pipe, g = parts.pipeline(), generator()
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    train.train_autoencoder(pipe.vae, g, steps=4)
    detector = train.train_detector(pipe.vae, g, steps=2)
    train.train_text_to_image(pipe, g, steps=2)
    folder = tmp_path_factory.mktemp("shapes")
    train.save(folder, pipe, detector)
    return folder, pipe, detector, before


def test_saved_parts_load_like_any_base_model(retrained):
    folder, pipe, detector, before = retrained
    base = load_base(folder / "base")
    assert (base.family, base.prediction, base.pixels, base.size) == ("sd", "v_prediction", 2, 32)
    assert (base.prompt_tokens, base.prompt_dim) == (parts.TOKENS, parts.WIDTH)
    for name, value in pipe.unet.state_dict().items():
        torch.testing.assert_close(base.network.state_dict()[name], value.half().float(), atol=0, rtol=0)
    assert any(not torch.equal(value, before[name]) for name, value in pipe.unet.state_dict().items())
    torch.testing.assert_close(
        scorer.load_detector(folder / "detector.safetensors").state_dict(),
        {name: value.half().float() for name, value in detector.state_dict().items()},
    )


def test_training_leaves_no_number_that_fp16_cannot_hold(retrained):
    for path in retrained[0].rglob("*.safetensors"):
        for name, value in load_file(path).items():
            assert value.isfinite().all(), f"{path.name}: {name}"


def test_shipped_weights_are_small():
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= 6e6


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_shipped_detector_and_autoencoder_know_the_world(size):
    scenes = world.random_scenes(200, generator(5))
    images, centres = world.draw(scenes, generator(5), size)
    captions = [scene.caption for scene in scenes]
    preference, right = scorer.load_scorers()
    decoded = train.reconstruct(load_base(BASE).pipe.vae, images).detach()
    assert (decoded - images).square().mean().sqrt() < 0.04
    for pictures in (images, decoded):
        assert right.score(pictures, captions).mean() > 0.98
        others = captions[1:] + captions[:1]
        assert (preference.score(pictures, captions) > preference.score(pictures, others)).float().mean() > 0.98
    view = preference.model(images)
    rows, kinds = torch.arange(200)[:, None], torch.tensor([(scene.first, scene.second) for scene in scenes])
    assert (view.centres[rows, kinds] - centres).abs().mean() < 1


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_shipped_model_paints_what_it_is_told(size):
    base = load_base(BASE)
    captions = world.split_captions()[1][:40]
    noise = bases.initial_noise(base, range(40), *size)
    latents = bases.sample(base, noise, bases.encode(base, captions), bases.Schedule("ddim", 10), 5.5)
    images = bases.decode(base, latents, batch=40)
    assert images.shape == (40, *size, 3)
    scenes = [Scene.from_caption(caption) for caption in captions]
    view = scorer.load_detector()(images)
    told, others = scorer.judge(view, scenes), scorer.judge(view, scenes[1:] + scenes[:1])
    assert told.attributes.mean() > 0.6
    assert (told.log_likelihood > others.log_likelihood).float().mean() > 0.75  # chance: 0.5 ± 0.16 of 40
