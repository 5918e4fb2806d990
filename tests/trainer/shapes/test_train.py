"""Training of the shapes world's models, and what the shipped ones can do."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from npnet_core.preference.shapes.detectors import DETECTORS
from npnet_core.preference.shapes.scorer import judge
from trainer import bases
from trainer.bases import load_base
from trainer.shapes import BASE, FLOW, WEIGHTS, first, train, world
from trainer.shapes import components as parts
from trainer.shapes.flow_batches import chat_ids, hidden_states, velocity
from trainer.shapes.scorer import load_detector
from trainer.shapes.train import Round
from trainer.shapes.world import SIZE, WIDE
from trainer.shapes.worlds import WORLDS


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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


@pytest.mark.parametrize("size", [(8, 8), (6, 10)])
def test_the_batched_transformer_computes_what_diffusers_does(size):
    pipe = load_base(FLOW).pipe
    captions = [world.SCENES[i].caption for i in (0, 350, 1000)]
    x, sigma = torch.randn(3, 4, *size, generator=generator()), torch.tensor([0.9, 0.5, 0.1])
    with torch.no_grad():
        states, lengths = hidden_states(pipe.text_encoder, [chat_ids(pipe.tokenizer, caption) for caption in captions])
        ours = velocity(pipe.transformer, x, sigma, states, lengths)
        theirs, _ = pipe.encode_prompt(captions, device="cpu", do_classifier_free_guidance=False)
        out = pipe.transformer(list(x[:, :, None]), 1 - sigma, theirs, return_dict=False)[0]
    assert lengths.tolist() == [len(each) for each in theirs]
    assert len(set(lengths.tolist())) > 1
    for row, length, each in zip(states, lengths, theirs, strict=True):
        torch.testing.assert_close(row[:length], each, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours, -torch.stack(out)[:, :, 0], atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def retrained(tmp_path_factory):
    """Trained for a moment: everything the shipped folder has, but no skill."""
    moment = Round(2, 1e-3, 4)
    folder = tmp_path_factory.mktemp("shapes")
    train.retrain(folder, 0, rounds={name: (moment,) for name in train.ROUNDS} | {"z-image": (moment, moment)})
    return folder


def test_what_is_written_is_what_the_package_ships(retrained):
    def files(folder):
        return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}

    assert files(retrained) == files(WEIGHTS)
    for path in retrained.rglob("*.safetensors"):
        shipped = load_file(WEIGHTS / path.relative_to(retrained))
        written = load_file(path)
        assert {key: value.shape for key, value in written.items()} == {
            key: value.shape for key, value in shipped.items()
        }
        for name, value in written.items():
            assert value.isfinite().all(), f"{path.name}: {name}"


def test_written_models_load_like_any_base_model(retrained):
    for name, family, prediction in (("sd", "sd", "v_prediction"), ("flow", "z-image", "flow_prediction")):
        made = WORLDS[name](retrained)
        base = load_base(made.base)
        assert (base.family, base.prediction, base.size) == (family, prediction, 32)
        assert base.prompt_dim == parts.WIDTH
        assert [each.kind for each in made.scorers(made.detectors)] == ["shapes-b", "captions-right", "shapes-a"]


def test_the_average_of_a_round_begins_the_next(retrained):
    """What was trained is not where a fresh one begins."""
    torch.manual_seed(200)
    fresh = parts.stable_diffusion(parts.autoencoder()).unet.state_dict()
    written = load_base(retrained / "base").network.state_dict()
    assert any(not torch.equal(value, fresh[name].half().float()) for name, value in written.items())


def test_shipped_weights_are_small():
    folders = (WEIGHTS, first.WEIGHTS)
    assert sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()) <= 20e6


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_shipped_detectors_and_autoencoder_know_the_world(name, size):
    scenes = world.random_scenes(300, generator(5))
    images, centres = world.draw(scenes, generator(5), size)
    detector = load_detector(name)
    with torch.no_grad():
        decoded = train.reconstruct(load_base(BASE).pipe.vae, images)
        assert (decoded - images).square().mean().sqrt() < 0.04
        for pictures, share in ((images, 0.97), (decoded, 0.95)):  # the autoencoder blurs some objects away
            view = detector(pictures)
            told, others = judge(view, scenes), judge(view, scenes[1:] + scenes[:1])
            assert told.all_right.mean() > share
            assert (told.log_likelihood > others.log_likelihood).float().mean() > 0.98
    kinds = torch.tensor([scene.kind for scene in scenes])
    found = detector(images).centres[torch.arange(len(scenes)), kinds]
    assert (found - centres[:, 0]).abs().mean() < 1


@pytest.mark.parametrize("name", ["sd", "flow"])
@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_shipped_models_paint_what_they_are_told(name, size):
    """Shares of 40 captions; by chance their own one would be the likelier for half of them, ± 0.16."""
    made = WORLDS[name]()
    base = load_base(made.base)
    captions = made.captions()[0][:40]
    noise = bases.initial_noise(base, range(40), *size)
    latents = bases.sample(base, noise, bases.encode(base, captions), made.recipe.schedule, made.guidance)
    images = bases.decode(base, latents, batch=40)
    assert images.shape == (40, *size, 3)
    scenes = [world.Scene.from_caption(caption) for caption in captions]
    for detector in DETECTORS:
        view = load_detector(detector)(images)
        told, others = judge(view, scenes), judge(view, scenes[1:] + scenes[:1])
        assert told.all_right.mean() > 0.2
        assert (told.log_likelihood > others.log_likelihood).float().mean() > 0.75
