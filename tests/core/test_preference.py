"""Each preference model agrees with an independent computation on the same weights."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from npnet_core.errors import InputError
from npnet_core.preference import Scorer, load_scorer, mps
from npnet_core.preference.architecture import Architecture
from npnet_core.preference.pixels import MEAN, STD, crop_to_square, pad_to_square
from npnet_core.preference.tokens import bert_tokenizer, clip_tokenizer, open_clip_tokenizer
from tests import tiny_scorers
from tests.seeded import DATA
from tests.tiny_scorers import BLIP_CONFIG, CLIP_CONFIG, CLIP_WORDS, HPS_CONFIG, images

PROMPTS = ["a red circle left of a blue square", "one green circle", "the blue square"]
SIZES = [(75, 120), (120, 75), (56, 56)]


@pytest.fixture(scope="module")
def hps(tmp_path_factory):
    path = tiny_scorers.write_hps(tmp_path_factory.mktemp("hps"))
    return load_scorer("hpsv2", path, config=HPS_CONFIG, tokenizer=CLIP_WORDS)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    return tiny_scorers.write_clip(tmp_path_factory.mktemp("clip"))


def pictures(batch: Tensor) -> list[Image.Image]:
    return [Image.fromarray((image * 255).round().to(torch.uint8).numpy()) for image in batch]


# HPSv2, against what the hpsv2 package computed


def test_hpsv2_scores_are_the_packages(hps):
    reference = np.load(DATA / "hps_tiny.npz")
    prompts = [str(prompt) for prompt in reference["prompts"]]
    for i, prompt in enumerate(prompts):
        image = torch.from_numpy(reference[f"image_{i}"])[None] / 255
        assert abs(hps.score(image, [prompt]).item() - reference["scores"][i]) < 1e-6
        every = hps.score(image.expand(len(prompts), -1, -1, -1), prompts)
        np.testing.assert_allclose(every, reference["scores_all"][i], atol=1e-6, rtol=0)
        assert abs(pad_to_square(image, 224).mean().item() - reference["pixels_mean"][i]) < 1e-6


def test_hpsv2_tokens_are_the_packages():
    """Mojibake, entities, quotes, other scripts and too long prompts among them."""
    reference = np.load(DATA / "hps_tiny.npz")
    tokenize = open_clip_tokenizer(CLIP_WORDS, Architecture.from_dict(HPS_CONFIG).text_cfg)
    np.testing.assert_array_equal(tokenize([str(prompt) for prompt in reference["prompts"]]), reference["tokens"])
    for prompt, ids in json.loads((DATA / "hpsv2_tokens.json").read_text(encoding="utf-8")):
        assert tokenize([prompt])[0].tolist() == ids + [0] * (77 - len(ids)), prompt


# The others, against the same formulas from other parts


def clip_features(folder, image: Image.Image, prompt: str) -> tuple[Tensor, Tensor, float]:
    """(image, text, logit scale): unit vectors of transformers' own model, processor and tokenizer."""
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizerFast

    clip = CLIPModel.from_pretrained(folder).eval()
    processor = CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    tokens = CLIPTokenizerFast.from_pretrained(folder)(prompt, return_tensors="pt")
    with torch.no_grad():
        output = clip(**tokens, **processor(image, return_tensors="pt"))
    scale = clip.logit_scale.exp().item()
    torch.testing.assert_close(output.logits_per_image, scale * output.image_embeds @ output.text_embeds.T)
    return output.image_embeds[0], output.text_embeds[0], scale


@pytest.mark.parametrize("size", SIZES)
def test_pickscore_and_clipscore(clip_folder, size):
    """Processor and CLIP of transformers; the processor's pixels may differ by 1/255 here and there."""
    batch = images(3, *size)
    pick, clip = (load_scorer(kind, clip_folder).score(batch, PROMPTS) for kind in ("pickscore", "clipscore"))
    for i, (image, prompt) in enumerate(zip(pictures(batch), PROMPTS, strict=True)):
        a, b, scale = clip_features(clip_folder, image, prompt)
        assert abs(pick[i].item() - scale * (a @ b).item()) < 5e-3 * scale
        assert abs(clip[i].item() - 2.5 * max((a @ b).item(), 0)) < 5e-3
    assert clip.min() == 0 or (clip > 0).all()


def test_the_formulas_differ_as_published(clip_folder):
    """The same features: exp(logit_scale)·cos and 2.5 max(cos, 0), and no scale at all for HPSv2's formula."""
    from npnet_core.preference.clip import clip_score, cosine, scaled_cosine

    cos, scale = torch.tensor([-0.2, 0.0, 0.3]), torch.tensor(math.log(100))
    torch.testing.assert_close(scaled_cosine(cos, scale), torch.tensor([-20.0, 0.0, 30.0]))
    torch.testing.assert_close(clip_score(cos, scale), torch.tensor([0.0, 0.0, 0.75]))
    torch.testing.assert_close(cosine(cos, scale), cos)


def test_aesthetic_is_a_matrix_product(tmp_path):
    """torchvision's transforms, transformers' features and the head as one matrix in numpy."""
    transforms = pytest.importorskip("torchvision.transforms")
    head = tiny_scorers.write_aesthetic(tmp_path)
    scorer, batch = load_scorer("aesthetic", head, config=CLIP_CONFIG), images(3, 75, 120)
    matrix, bias = np.eye(128), np.zeros(128)
    state = torch.load(head, weights_only=True)
    for i in (0, 2, 4, 6, 7):
        w, b = (state[f"layers.{i}.{name}"].double().numpy() for name in ("weight", "bias"))
        matrix, bias = w @ matrix, w @ bias + b
    preprocess = transforms.Compose(
        [
            transforms.Resize(56, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(56),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    pixels = torch.stack([preprocess(image) for image in pictures(batch)])
    from transformers import CLIPModel

    clip = CLIPModel.from_pretrained(tmp_path / "clip-vit-large-patch14").eval()
    with torch.no_grad():
        features = clip.visual_projection(clip.vision_model(pixels).pooler_output).double().numpy()
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    expected = (features @ matrix.T + bias)[:, 0]
    np.testing.assert_allclose(scorer.score(batch, PROMPTS), expected, atol=2e-3)
    assert expected.std() > 0.01  # the pictures are told apart


def blip(state: dict[str, Tensor], pixels: Tensor, ids: Tensor) -> Tensor:
    """ImageReward by hand from published keys: [B] rewards of pixels [B, 3, 64, 64] and ids [B, T]."""

    def attend(q, k, v, heads, mask=0.0):
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + mask).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)

    def linear(x, name):
        return x @ state[name + ".weight"].T + state[name + ".bias"]

    def norm(x, name, eps):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + eps).sqrt()
        return x * state[name + ".weight"] + state[name + ".bias"]

    eye = "blip.visual_encoder."
    patches = F.unfold(pixels, 16, stride=16).transpose(1, 2)  # [B, 16, 3·16·16]
    x = patches @ state[eye + "patch_embed.proj.weight"].flatten(1).T + state[eye + "patch_embed.proj.bias"]
    x = torch.cat([state[eye + "cls_token"].expand(len(x), 1, -1), x], 1) + state[eye + "pos_embed"]
    for i in range(2):
        block = f"{eye}blocks.{i}."
        q, k, v = linear(norm(x, block + "norm1", 1e-6), block + "attn.qkv").chunk(3, -1)
        x = x + linear(attend(q, k, v, 4), block + "attn.proj")
        x = x + linear(F.gelu(linear(norm(x, block + "norm2", 1e-6), block + "mlp.fc1")), block + "mlp.fc2")
    image = norm(x, eye + "norm", 1e-6)

    text = "blip.text_encoder."
    words = state[text + "embeddings.word_embeddings.weight"][ids]
    y = words + state[text + "embeddings.position_embeddings.weight"][: ids.shape[1]]
    y = norm(y, text + "embeddings.LayerNorm", 1e-12)
    mask = torch.where(ids == 0, -1e9, 0.0)[:, None, None]
    for i in range(2):
        layer = f"{text}encoder.layer.{i}."
        for name, context, hidden in (("attention", None, mask), ("crossattention", image, 0.0)):
            source = y if context is None else context
            q = linear(y, f"{layer}{name}.self.query")
            k, v = (linear(source, f"{layer}{name}.self.{part}") for part in ("key", "value"))
            out = linear(attend(q, k, v, 4, hidden), f"{layer}{name}.output.dense")
            y = norm(out + y, f"{layer}{name}.output.LayerNorm", 1e-12)
        out = linear(F.gelu(linear(y, layer + "intermediate.dense")), layer + "output.dense")
        y = norm(out + y, layer + "output.LayerNorm", 1e-12)
    reward = y[:, 0]
    for i in (0, 2, 4, 6, 7):
        reward = linear(reward, f"mlp.layers.{i}")
    return (reward[:, 0] - 0.16717362830052426) / 1.0333394966054072


def test_image_reward_is_blip_by_hand(tmp_path):
    path = tiny_scorers.write_image_reward(tmp_path)
    scorer, batch = load_scorer(None, path, config=BLIP_CONFIG), images(2, 64, 64)
    ids = torch.tensor([[2, 5, 6, 8, 11, 7, 9, 10, 3], [2, 5, 1, 3, 0, 0, 0, 0, 0]])
    state = {key: value.double() for key, value in torch.load(path, weights_only=True).items()}
    expected = blip(state, crop_to_square(batch, 64).double(), F.pad(ids, (0, 26)))
    scores = scorer.score(batch, ["a red circle, blue squares", "A purple"])
    torch.testing.assert_close(scores, expected.float(), atol=2e-5, rtol=2e-5)
    assert abs(scores[0] - scores[1]) > 0.01


def test_mps_is_its_formula(tmp_path, clip_folder, monkeypatch):
    """Attention word by word and head by head, with transformers' own towers."""
    from transformers import CLIPModel

    from npnet_core.preference.clip import clip_config

    monkeypatch.setattr(mps, "THRESHOLD", 0.8)  # in random towers everything is alike
    path = tiny_scorers.write_mps(tmp_path)
    scorer = load_scorer(None, path, config=CLIP_CONFIG, tokenizer=clip_folder)
    state = torch.load(path, weights_only=True)
    clip = CLIPModel(clip_config(Architecture.from_dict(CLIP_CONFIG))).eval()
    clip.load_state_dict({key[6:]: value for key, value in state.items() if key.startswith("model.")})
    tokenize = clip_tokenizer(clip_folder, Architecture.from_dict(CLIP_CONFIG).text_cfg)
    batch = images(2, 56, 56)

    def attend(q, k, v):  # one query [D], keys and values [M, 64]
        heads = q.unflatten(0, (-1, 64))
        return torch.cat([(k @ head / 8).softmax(0) @ v for head in heads])

    def turn(x, place):  # the plane of coordinates i and i + 32 turns by place / 10000^(i/32)
        heads = torch.complex(*x.unflatten(-1, (-1, 2, 32)).unbind(-2))
        speed = torch.tensor([10000 ** (-i / 32) for i in range(32)], dtype=torch.float64)
        turned = heads * torch.polar(torch.ones(32, dtype=torch.float64), place * speed)
        return torch.stack([turned.real, turned.imag], -2).flatten(-3)

    def gated(x):
        return x[: len(x) // 2] * F.silu(x[len(x) // 2 :])

    with torch.no_grad():
        for pixels, prompt in zip(crop_to_square(batch, 56), PROMPTS, strict=False):
            tokens = clip.text_model(tokenize([prompt, mps.CONDITION]))
            words, condition = clip.text_projection(tokens.last_hidden_state).double()
            end = clip.text_projection(tokens.pooler_output)[0].double()
            similar = (words @ condition.T).max(1).values
            words = words[similar / similar.max() > mps.THRESHOLD]
            assert 0 < len(words) < 77  # the condition chooses
            x = clip.visual_projection(clip.vision_model(pixels[None]).last_hidden_state)[0].double()
            for i in range(4):
                layer = f"cross_model.layers.{i}."
                w = {key[len(layer) :]: value.double() for key, value in state.items() if key.startswith(layer)}
                y = F.layer_norm(x, (128,), w["0.fn.norm.weight"])
                k, v = (words @ w["0.fn.to_kv.weight"].T).split(64, -1)
                x = torch.stack(
                    [
                        a
                        + w["0.fn.to_out.weight"] @ attend(w["0.fn.to_q.weight"] @ b, k, v)
                        + w["0.fn.ff.2.weight"] @ gated(w["0.fn.ff.0.weight"] @ b)
                        for a, b in zip(x, y, strict=True)
                    ]
                )
                y = F.layer_norm(x, (128,), w["1.fn.norm.weight"]) @ w["1.fn.fused_attn_ff_proj.weight"].T
                q, k, v, ff = y.split((128, 64, 64, 1024), -1)
                k = torch.stack([turn(row, place) for place, row in enumerate(k)])
                x = torch.stack(
                    [
                        a
                        + w["1.fn.attn_out.weight"] @ attend(turn(b, place), k, v)
                        + w["1.fn.ff_out.1.weight"] @ gated(c)
                        for place, (a, b, c) in enumerate(zip(x, q, ff, strict=True))
                    ]
                )
            expected = clip.logit_scale.exp() * F.cosine_similarity(x[0], end, dim=0)
            score = scorer.score(batch[:1] if prompt == PROMPTS[0] else batch[1:], [prompt])
            assert abs(score.item() - expected.item()) < 1e-4
    # Upstream's maximum over the batch would make a score depend on its neighbours.
    both = scorer.score(batch, PROMPTS[:2])
    torch.testing.assert_close(both[1:], scorer.score(batch[1:], PROMPTS[1:2]), atol=1e-5, rtol=1e-5)


# Pixels and tokens


@pytest.mark.parametrize("size", [(300, 517), (417, 285), (227, 225), (100, 90), (224, 400), (224, 224)])
def test_cropped_pixels_are_pils(size):
    """One of 255 levels apart at most, at one place in a thousand: PIL's weights are fixed-point numbers."""
    transforms = pytest.importorskip("torchvision.transforms")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    bicubic = transforms.InterpolationMode.BICUBIC
    cut = transforms.Compose([transforms.Resize(224, bicubic), transforms.CenterCrop(224), transforms.ToTensor()])
    expected = transforms.Normalize(MEAN, STD)(cut(image))
    pixels = crop_to_square(torch.from_numpy(np.array(image))[None] / 255, 224, as_torchvision=True)[0]
    levels = (pixels - expected).abs() * torch.tensor(STD)[:, None, None] * 255
    assert levels.max() < 1.01
    assert (levels > 0.5).float().mean() < 1e-3


@pytest.mark.parametrize("size", [(300, 517), (417, 285), (224, 224)])
def test_cropped_pixels_are_the_processors(size):
    from transformers import CLIPImageProcessor

    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = CLIPImageProcessor()(Image.fromarray(image), return_tensors="pt")["pixel_values"][0]
    pixels = crop_to_square(torch.from_numpy(image)[None] / 255, 224)[0]
    levels = (pixels - expected).abs() * torch.tensor(STD)[:, None, None] * 255
    assert levels.max() < 1.01
    assert (levels > 0.5).float().mean() < 1e-2


@pytest.mark.parametrize("size", [(300, 517), (517, 300), (90, 100), (224, 112), (400, 3), (224, 224)])
def test_padded_pixels_are_torchvisions(size):
    """The whole image in the middle of black, where it overshoots at edges too."""
    functional = pytest.importorskip("torchvision.transforms.functional")
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)) / 255
    image[: size[0] // 2] = (image[: size[0] // 2, :1] > 0.5).float()  # stripes
    sides = [max(1, round(side * (224 / max(size)))) for side in size]
    bicubic = functional.InterpolationMode.BICUBIC
    small = functional.resize(image.movedim(-1, 0), sides, bicubic, antialias=True)
    left, top = (224 - sides[1]) // 2, (224 - sides[0]) // 2
    padded = functional.pad(small, [left, top, 224 - sides[1] - left, 224 - sides[0] - top])
    expected = functional.normalize(padded, MEAN, STD)
    torch.testing.assert_close(pad_to_square(image[None], 224)[0], expected, atol=1e-6, rtol=0)
    assert max(size) == 224 or (small.max() > 1 and small.min() < 0)


def test_scores_are_those_of_the_saved_image(hps):
    """Values between two of 255 levels count as the nearest, as in the PNG that they would be saved as."""
    batch = images(1, 64, 96)
    between = (batch + (torch.rand(batch.shape, generator=torch.Generator().manual_seed(0)) - 0.5) / 256).clamp(0, 1)
    assert torch.equal(hps.score(batch, ["a cat"]), hps.score(between, ["a cat"]))


def test_clips_tokens(clip_folder):
    """With its own filler, and the cut that keeps the end."""
    from transformers import CLIPTokenizerFast

    text = Architecture.from_dict(CLIP_CONFIG).text_cfg
    prompts = [*PROMPTS, "", "  RED   circle\n", "a " * 200]
    reference = CLIPTokenizerFast.from_pretrained(clip_folder)
    expected = reference(prompts, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    assert torch.equal(clip_tokenizer(clip_folder, text)(prompts), expected["input_ids"])


def test_what_stands_behind_the_end_does_not_matter(hps):
    """So the text tower reads no more than the longest prompt of a batch."""
    ids = torch.from_numpy(np.load(DATA / "hps_tiny.npz")["tokens"])
    with torch.no_grad():
        full = hps.model.clip.text_projection(hps.model.clip.text_model(ids).pooler_output)
        short = torch.cat([hps.model.text_features(row) for row in ids.split(1)])
    torch.testing.assert_close(short, F.normalize(full, dim=-1), atol=1e-6, rtol=0)


def test_berts_words_are_cut_at_35(tmp_path):
    tiny_scorers.write_image_reward(tmp_path)
    ids = bert_tokenizer(tmp_path, Architecture.from_dict(BLIP_CONFIG).text_cfg)(["A red circles", "a " * 50])
    assert ids[0].tolist() == [2, 5, 6, 8, 10, 3] + [0] * 29
    assert ids[1].tolist() == [2] + [5] * 33 + [3]


# The interface


def test_a_batch_scores_as_its_items(hps):
    batch = images(3, 64, 96)
    together = hps.score(batch, PROMPTS)
    alone = torch.cat([hps.score(batch[i : i + 1], [PROMPTS[i]]) for i in range(3)])
    assert together.shape == (3,)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    assert not together.requires_grad


def test_each_distinct_prompt_is_encoded_once(hps, monkeypatch):
    from npnet_core.preference import clip

    rows = []
    hook = hps.model.clip.text_model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"] if "input_ids" in kwargs else args[0])),
        with_kwargs=True,
    )
    monkeypatch.setattr(clip, "REMEMBERED", 2)
    batch = images(4, 32, 32)
    first = hps.score(batch, ["w", "x", "w", "x"])
    second = torch.stack([hps.score(batch[i : i + 1], [prompt])[0] for i, prompt in enumerate("xwwx")])
    assert (first - second).abs().max() > 1e-3  # the prompt counts
    torch.testing.assert_close(hps.score(batch, list("xwwx")), second, atol=1e-6, rtol=0)
    assert rows == [2]
    hps.score(batch[:1], ["y"])  # w, the oldest, leaves
    hps.score(batch[:1], ["x"])
    assert rows == [2, 1]
    torch.testing.assert_close(hps.score(batch, ["w", "x", "w", "x"]), first, atol=1e-6, rtol=0)
    assert rows == [2, 1, 1]
    hook.remove()


def test_scores_follow_the_weights(hps):
    """Moved between two calls, here to another type: what computes is where and what the weights are."""
    batch, before = images(2, 64, 64), hps.model.clip.visual_projection.weight.dtype
    expected = hps.score(batch, PROMPTS[:2])
    hps.model.double()
    scores = hps.score(batch, PROMPTS[:2])
    hps.model.to(before)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=0)
    hps.model.device = "anywhere"  # memory managers note it there, which transformers' own models refuse
    del hps.model.device


def test_half_precision_changes_scores_little(tmp_path, clip_folder):
    """A factor of exp(logit_scale) would be off by a percent if the scale were rounded with the towers."""
    batch = images(3, 64, 96)
    for kind, path, options in (
        ("hpsv2", tiny_scorers.write_hps(tmp_path), {"config": HPS_CONFIG, "tokenizer": CLIP_WORDS}),
        ("pickscore", clip_folder, {}),
    ):
        exact = load_scorer(kind, path, **options)
        half = load_scorer(kind, path, dtype=torch.bfloat16, **options)
        scale = exact.model.clip.logit_scale
        assert half.model.clip.visual_projection.weight.dtype == torch.bfloat16
        assert half.model.clip.logit_scale == scale
        unit = 1 if kind == "hpsv2" else scale.exp().item()
        assert (half.score(batch, PROMPTS) - exact.score(batch, PROMPTS)).abs().max() < 0.02 * unit


def test_another_scorer_is_few_lines():
    class Brightness(Scorer):
        def rate(self, images, prompts):
            return images.mean((1, 2, 3)) * self.model.weight.item()

    scorer = Brightness("brightness", torch.nn.Linear(1, 1))
    torch.nn.init.constant_(scorer.model.weight, 2.0)
    images = torch.stack([torch.zeros(8, 8, 3), torch.full((8, 8, 3), 0.25), torch.full((8, 8, 3), 1.2)])
    torch.testing.assert_close(scorer.score(images, [""] * 3), torch.tensor([0.0, 0.5, 2.0]))


@pytest.mark.parametrize(
    ("batch", "prompts", "message"),
    [
        (images(2, 32, 32), ["a cat"], "2 images came with 1 prompts"),
        (images(2, 32, 32), "ab", "a single string"),
        (images(1, 32, 32).movedim(-1, 1), ["a cat"], r"\[1, 3, 32, 32\]"),
        (images(1, 32, 32)[..., [0, 1, 2, 2]], ["a cat"], r"\[1, 32, 32, 4\]"),
        (images(0, 32, 32), [], r"\[0, 32, 32, 3\]"),
        ((images(1, 32, 32) * 255).to(torch.uint8), ["a cat"], "torch.uint8"),
        (images(1, 32, 32) * 255, ["a cat"], "bring them into 0..1"),
        (images(1, 32, 32) * 2 - 1, ["a cat"], "bring them into 0..1"),
        (images(1, 32, 32) * torch.tensor([1.0, math.nan, 1.0]), ["a cat"], "NaN"),
        (images(1, 32, 32) + math.inf, ["a cat"], "inf"),
    ],
)
def test_wrong_images_and_prompts(hps, batch, prompts, message):
    with pytest.raises(InputError, match=message):
        hps.score(batch, prompts)
