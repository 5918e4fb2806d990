"""Files of preference models: which kind they are, what is refused, and that conversion changes nothing."""

from __future__ import annotations

import json
import re
import shutil
import socket
import zipfile

import pytest
import safetensors
import safetensors.torch
import torch

from npnet_core.errors import InputError
from npnet_core.preference import KINDS, convert_scorer, describe_scorer, load_scorer, read_scorer
from npnet_core.preference.architecture import Architecture
from tests import tiny_scorers
from tests.tiny_scorers import BLIP_CONFIG, CLIP_CONFIG, CLIP_WORDS, HPS_CONFIG, images

PROMPTS = ["a red circle left of a blue square", "one green circle"]
PUBLISHED = [kind for kind, facts in KINDS.items() if facts.architecture is not None]  # all but the shapes world's
CONFIGS = {"hpsv2": HPS_CONFIG, "hpsv2.1": HPS_CONFIG, "imagereward": BLIP_CONFIG}


def write(kind: str, folder):
    """A file or folder of a kind as it is published."""
    if kind in ("pickscore", "clipscore"):
        return tiny_scorers.write_clip(folder / {"pickscore": "PickScore_v1", "clipscore": "clip-vit-large"}[kind])
    if kind in ("hpsv2", "hpsv2.1"):
        return tiny_scorers.write_hps(folder, KINDS[kind].file)
    writers = {"aesthetic": "write_aesthetic", "imagereward": "write_image_reward", "mps": "write_mps"}
    return getattr(tiny_scorers, writers[kind])(folder)


def words(kind: str, folder):
    """The vocabulary of `write`'s models, for those that CLIP's is right for."""
    return CLIP_WORDS if kind in ("hpsv2", "hpsv2.1") else tiny_scorers.write_clip(folder / "words")


def test_a_checksum_of_other_tensors_is_not_kept(tmp_path):
    """Other people's files may hash what we leave out, or in another order."""
    source = write("hpsv2", tmp_path)
    tensors = torch.load(source, weights_only=True)["state_dict"]
    others = tmp_path / "HPS_v2.safetensors"
    safetensors.torch.save_file(tensors, others, {"modelspec.hash_sha256": "0x00"})
    convert_scorer(others, tmp_path / "ours.safetensors", config=CONFIGS.get("hpsv2", CLIP_CONFIG))
    assert load_scorer(None, tmp_path / "ours.safetensors", tokenizer=words("hpsv2", tmp_path)).kind == "hpsv2"


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_converted_file_needs_no_more_than_its_name(kind, tmp_path):
    """The kind is found in the published file; converted, kind and config are in its metadata."""
    source = write(kind, tmp_path)
    config = None if source.is_dir() else CONFIGS.get(kind, CLIP_CONFIG)
    tokenizer = words(kind, tmp_path)
    expected = load_scorer(None, source, config=config, tokenizer=tokenizer)
    target = tmp_path / "converted" / "anything.safetensors"
    target.parent.mkdir()
    convert_scorer(source, target, config=config)
    if kind == "imagereward":
        shutil.copy(tmp_path / "vocab.txt", target.parent)
    scorer = load_scorer(None, target, tokenizer=tokenizer)
    assert scorer.kind == expected.kind == kind
    batch = images(2, 60, 80)
    assert torch.equal(scorer.score(batch, PROMPTS), expected.score(batch, PROMPTS))

    after = safetensors.torch.load_file(target)
    if source.is_dir():
        before = safetensors.torch.load_file(source / "model.safetensors")
    else:
        before = torch.load(source, weights_only=True)
    for key, value in before.get("state_dict", before).items():
        assert torch.equal(after[key], value) if KINDS[kind].layout.reads(key) else key not in after
    with safetensors.safe_open(target, "pt") as file:
        assert file.metadata()["npnet.scorer"] == kind
        assert "converted from" in file.metadata()["npnet.provenance"]
    rows = describe_scorer(target)
    assert kind in rows["preference model"]
    assert rows["npnet.scorer"] == kind


def test_half_precision_files_stay_so_and_compute_in_fp32(tmp_path):
    """The published HPSv2 files are fp16."""
    state = {key: value.half() for key, value in tiny_scorers.hps_state().items()}
    torch.save({"state_dict": state}, tmp_path / "HPS_v2.1_compressed.pt")
    convert_scorer(tmp_path / "HPS_v2.1_compressed.pt", tmp_path / "x.safetensors", config=HPS_CONFIG)
    assert {value.dtype for value in safetensors.torch.load_file(tmp_path / "x.safetensors").values()} == {
        torch.float16
    }
    model = load_scorer(None, tmp_path / "x.safetensors", tokenizer=CLIP_WORDS).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert "float16" in describe_scorer(tmp_path / "x.safetensors")["parameters"]


def test_a_scorer_does_not_change_with_its_file(tmp_path):
    """Weights are a copy, not mapped from a file that may be replaced."""
    source = write("pickscore", tmp_path)
    scorer, batch = load_scorer(None, source), images(2, 60, 80)
    expected = scorer.score(batch, PROMPTS)
    weights = source / "model.safetensors"
    with weights.open("r+b") as file:
        file.seek(-1000, 2)
        file.write(bytes(1000))
    size = weights.stat().st_size
    with weights.open("r+b") as file:
        file.truncate(size // 2)
    scorer.text.known.clear()
    assert torch.equal(scorer.score(batch, PROMPTS), expected)


# Which kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("HPS_v2_compressed.pt", "hpsv2"),
        ("hpsv2.pt", "hpsv2"),
        ("hps-v2.0.pt", "hpsv2"),
        ("HPS_v2.1_compressed.pt", "hpsv2.1"),
        ("hpsv2_1.pt", "hpsv2.1"),
        ("hpsv21.pt", "hpsv2.1"),
    ],
)
def test_names_tell_the_two_hps_apart(tmp_path, name, kind):
    path = tiny_scorers.write_hps(tmp_path, name)
    assert read_scorer(path, None, HPS_CONFIG).kind == kind
    assert read_scorer(path, kind, HPS_CONFIG).kind == kind
    other = ({"hpsv2", "hpsv2.1"} - {kind}).pop()
    with pytest.raises(InputError, match=f"choose {re.escape(kind)}"):
        read_scorer(path, other, HPS_CONFIG)


def test_what_only_its_name_could_tell_has_to_be_chosen(tmp_path):
    path = tiny_scorers.write_hps(tmp_path, "scorer.pt")
    with pytest.raises(InputError, match=r"HPSv2 or HPSv2\.1.*choose its kind, hpsv2 or hpsv2\.1"):
        read_scorer(path, None, HPS_CONFIG)
    assert read_scorer(path, "hpsv2.1", HPS_CONFIG).kind == "hpsv2.1"
    folder = tiny_scorers.write_clip(tmp_path / "mine")
    with pytest.raises(InputError, match="choose its kind, pickscore or clipscore"):
        read_scorer(folder)
    assert read_scorer(folder, "clipscore").kind == "clipscore"


def test_metadata_outweighs_names(tmp_path):
    source = tiny_scorers.write_hps(tmp_path)
    convert_scorer(source, tmp_path / "hpsv2.1.safetensors", "hpsv2", HPS_CONFIG)
    assert read_scorer(tmp_path / "hpsv2.1.safetensors").kind == "hpsv2"
    with pytest.raises(InputError, match=r"says by its metadata or name that it is HPSv2, not HPSv2\.1"):
        read_scorer(tmp_path / "hpsv2.1.safetensors", "hpsv2.1")


def test_an_hps_file_is_no_pickscore(tmp_path):
    with pytest.raises(InputError, match=r"is not PickScore but HPSv2 or HPSv2\.1 by its keys"):
        load_scorer("pickscore", tiny_scorers.write_hps(tmp_path))
    with pytest.raises(InputError, match="is not HPSv2 but PickScore or CLIPScore by its keys"):
        load_scorer("hpsv2", tiny_scorers.write_clip(tmp_path / "PickScore_v1"))


def test_a_folder_is_named_by_its_weights_too(tmp_path):
    """ComfyUI lists files, so a folder's weights stand for it; in the hub's cache the repository's name counts."""
    folder = tiny_scorers.write_clip(tmp_path / "PickScore_v1")
    assert load_scorer(None, folder / "model.safetensors").kind == "pickscore"
    snapshot = tmp_path / "models--yuvalkirstain--PickScore_v1" / "snapshots" / "0123"
    snapshot.parent.mkdir(parents=True)
    shutil.move(folder, snapshot)
    assert read_scorer(snapshot).kind == "pickscore"
    assert read_scorer(snapshot / "model.safetensors").kind == "pickscore"


def test_an_older_transformers_folder(tmp_path):
    """pytorch_model.bin, with the position ids that used to be stored, and quick_gelu."""
    folder = tiny_scorers.write_clip(tmp_path / "clip-vit-base")
    state = safetensors.torch.load_file(folder / "model.safetensors")
    expected = load_scorer(None, folder).score(images(1, 60, 60), PROMPTS[:1])
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    scorer = load_scorer(None, folder)
    assert scorer.kind == "clipscore"
    assert torch.equal(scorer.score(images(1, 60, 60), PROMPTS[:1]), expected)
    config = json.loads((folder / "config.json").read_text())
    for tower in ("vision_config", "text_config"):
        config[tower]["hidden_act"] = "quick_gelu"
    (folder / "config.json").write_text(json.dumps(config))
    quick = load_scorer(None, folder)
    assert quick.model.architecture.quick_gelu
    assert not torch.equal(quick.score(images(1, 60, 60), PROMPTS[:1]), expected)


# What is refused


def test_every_wrong_key_is_named_at_once(tmp_path):
    state = tiny_scorers.hps_state()
    del state["visual.proj"], state["transformer.resblocks.1.attn.in_proj_weight"]
    state["visual.extra"], state["ln_final.bias"] = torch.zeros(1), torch.zeros(3)
    torch.save({"state_dict": state}, tmp_path / "hpsv2.pt")
    with pytest.raises(InputError) as error:
        read_scorer(tmp_path / "hpsv2.pt", None, HPS_CONFIG)
    for part in (
        "2 missing (transformer.resblocks.1.attn.in_proj_weight, visual.proj)",
        "1 unexpected (visual.extra)",
        "1 misshapen (ln_final.bias [3] instead of [64])",
    ):
        assert part in str(error.value)


def test_weights_that_are_no_numbers(tmp_path):
    state = tiny_scorers.hps_state()
    state["ln_final.bias"][1] = torch.nan
    torch.save({"state_dict": state}, tmp_path / "hpsv2.pt")
    with pytest.raises(InputError, match=r"NaN or infinite weights in ln_final\.bias"):
        read_scorer(tmp_path / "hpsv2.pt", None, HPS_CONFIG)


def damaged(path, how: str):
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "flipped":
        with zipfile.ZipFile(path) as archive:
            largest = max(archive.infolist(), key=lambda info: info.file_size)
        content[largest.header_offset + largest.file_size // 2] ^= 1
    elif how == "empty":
        content = b""
    elif how == "a web page":
        content = b"<!DOCTYPE html><html>Sign in</html>"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [("truncated", "truncated or damaged"), ("flipped", "checksum"), ("empty", "is empty"), ("a web page", "neither")],
)
def test_a_corrupt_file(tmp_path, how, message):
    path = damaged(tiny_scorers.write_hps(tmp_path), how)
    with pytest.raises(InputError, match=message):
        load_scorer("hpsv2", path, config=HPS_CONFIG, tokenizer=CLIP_WORDS)


def test_a_truncated_safetensors_file(tmp_path):
    folder = tiny_scorers.write_clip(tmp_path / "PickScore_v1")
    path = damaged(folder / "model.safetensors", "truncated")
    with pytest.raises(InputError, match="truncated or damaged"):
        load_scorer(None, path)


class Program:
    def __reduce__(self):
        return (print, ("this ran",))


def test_no_program_is_unpickled(tmp_path, capsys):
    torch.save({"state_dict": Program()}, tmp_path / "hpsv2.pt")
    with pytest.raises(InputError, match="could run code"):
        read_scorer(tmp_path / "hpsv2.pt")
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.zeros(2), "b": torch.zeros(2)}, r"no preference model that we know \(it has keys such as a, b\)"),
        (
            {"epoch": 3, "model": {"a": torch.zeros(2)}},
            r"no preference model that we know \(it has keys such as model.a\)",
        ),
        ({"kind": 3, "model": {"a": torch.zeros(2)}}, "no tensor under kind"),
        ([torch.zeros(2)], "holds a list"),
    ],
)
def test_other_files(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InputError, match=message):
        read_scorer(tmp_path / "x.pt")


def test_other_wrong_names(tmp_path):
    with pytest.raises(InputError, match="There is no file"):
        load_scorer("hpsv2", tmp_path / "hpsv2.pt")
    with pytest.raises(InputError, match="no preference model hps: choose one of hpsv2, "):
        load_scorer("hps", tmp_path / "hpsv2.pt")
    with pytest.raises(InputError, match=r"no preference model .*: choose one of hpsv2, "):
        load_scorer({"hpsv2": 1}, tmp_path / "hpsv2.pt")
    with pytest.raises(InputError, match="Neither a file nor a known preference model"):
        load_scorer(None)
    with pytest.raises(InputError, match="no transformers folder"):
        load_scorer(None, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes(safetensors.torch.save({"vision_model.x": torch.zeros(1)}))
    with pytest.raises(InputError, match="holds a bert, not a CLIP"):
        load_scorer("clipscore", tmp_path)


@pytest.mark.parametrize("config", [{}, {**HPS_CONFIG, "colour": 1}, {**HPS_CONFIG, "vision_cfg": {"layers": 2}}])
def test_a_config_that_is_not_open_clips(tmp_path, config):
    with pytest.raises(InputError, match=r"is not open_clip's .*: give embed_dim"):
        read_scorer(tiny_scorers.write_hps(tmp_path), None, config)


# Vocabularies


def test_a_missing_vocabulary(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    path = tiny_scorers.write_hps(tmp_path)
    with pytest.raises(InputError, match=r"vocab\.json and merges\.txt\) is not beside .*put it there"):
        load_scorer("hpsv2", path, config=HPS_CONFIG)
    with pytest.raises(InputError, match="There is no tokenizer folder"):
        load_scorer("hpsv2", path, config=HPS_CONFIG, tokenizer=tmp_path / "nowhere")
    path = tiny_scorers.write_image_reward(tmp_path)
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(InputError, match=r"vocab\.txt of bert-base-uncased"):
        load_scorer("imagereward", path, config=BLIP_CONFIG, tokenizer=CLIP_WORDS)


def test_a_vocabulary_of_another_model(tmp_path):
    path = tiny_scorers.write_hps(tmp_path)
    other = tiny_scorers.write_clip(tmp_path / "other")
    with pytest.raises(InputError, match="end token is 49407"):
        load_scorer("hpsv2", path, config=HPS_CONFIG, tokenizer=other)
    path = tiny_scorers.write_image_reward(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join([*tiny_scorers.BERT_VOCABULARY, *map(str, range(50))]))
    with pytest.raises(InputError, match="for a model that knows 40"):
        load_scorer("imagereward", path, config=BLIP_CONFIG)


def test_a_tokenizer_folder_that_transformers_wrote(tmp_path):
    """Such as a base model's: newer versions write tokenizer.json alone."""
    from transformers import CLIPTokenizerFast

    path = tiny_scorers.write_hps(tmp_path)
    expected = load_scorer("hpsv2", path, config=HPS_CONFIG, tokenizer=CLIP_WORDS)
    tokenizer = CLIPTokenizerFast.from_pretrained(CLIP_WORDS)
    tokenizer(["a cat"], padding="max_length", truncation=True, max_length=5)  # settings that must not stay
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "tokenizer" / name).unlink(missing_ok=True)
    scorer = load_scorer("hpsv2", path, config=HPS_CONFIG, tokenizer=tmp_path / "tokenizer")
    batch = images(2, 32, 32)
    prompts = ["a red circle left of a blue square, highly detailed, 8k", "A cat"]
    assert torch.equal(scorer.score(batch, prompts), expected.score(batch, prompts))


# What is on the machine already


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's cache, empty, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HPS_ROOT", str(tmp_path / "hps"))
    monkeypatch.setenv("HOME", str(tmp_path))

    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)

    def snapshot(repository: str):
        folder = tmp_path / "hub" / ("models--" + repository.replace("/", "--"))
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("0123")
        (folder / "snapshots" / "0123").mkdir(parents=True)
        return folder / "snapshots" / "0123"

    return snapshot


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_downloaded(hub, kind):
    with pytest.raises(InputError, match=rf"No weights of .* are on this machine: get .* and name it, {kind}=FILE"):
        load_scorer(kind)


def test_downloads_of_the_hub_are_found(hub):
    words = hub("openai/clip-vit-large-patch14")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(CLIP_WORDS / name, words)
    hps = hub("xswu/HPSv2")
    tiny_scorers.write_hps(hps, "HPS_v2_compressed.pt")
    tiny_scorers.write_hps(hps, "HPS_v2.1_compressed.pt")
    for kind in ("hpsv2", "hpsv2.1"):
        assert load_scorer(kind, config=HPS_CONFIG).kind == kind
    tiny_scorers.write_clip(hub("yuvalkirstain/PickScore_v1"))
    assert load_scorer("pickscore").kind == "pickscore"
    reward, bert = hub("THUDM/ImageReward"), hub("bert-base-uncased")
    tiny_scorers.write_image_reward(reward)
    shutil.move(reward / "vocab.txt", bert / "vocab.txt")
    assert load_scorer("imagereward", config=BLIP_CONFIG).kind == "imagereward"


def test_downloads_of_the_packages_are_found(hub, tmp_path):
    (tmp_path / "hps").mkdir()
    tiny_scorers.write_hps(tmp_path / "hps", "HPS_v2.1_compressed.pt")
    assert load_scorer("hpsv2.1", config=HPS_CONFIG, tokenizer=CLIP_WORDS).kind == "hpsv2.1"
    folder = tmp_path / ".cache" / "ImageReward"
    folder.mkdir(parents=True)
    tiny_scorers.write_image_reward(folder)
    assert load_scorer("imagereward", config=BLIP_CONFIG).kind == "imagereward"


def test_an_aesthetic_head_finds_its_tower(hub, tmp_path):
    head = tiny_scorers.write_aesthetic(tmp_path)
    expected = load_scorer("aesthetic", head, config=CLIP_CONFIG).score(images(1, 60, 60), [""])
    for place in (
        hub("openai/clip-vit-large-patch14") / "model.safetensors",
        tmp_path / "clip-vit-large-patch14.safetensors",
    ):
        shutil.copy(tmp_path / "clip-vit-large-patch14" / "model.safetensors", place)
    shutil.rmtree(tmp_path / "clip-vit-large-patch14")
    for _ in range(2):  # beside it as a file, then in the cache
        scorer = load_scorer(None, head, config=CLIP_CONFIG)
        assert torch.equal(scorer.score(images(1, 60, 60), [""]), expected)
        (tmp_path / "clip-vit-large-patch14.safetensors").unlink(missing_ok=True)
    shutil.rmtree(tmp_path / "hub")
    with pytest.raises(InputError, match="head without its image tower: put the folder clip-vit-large-patch14"):
        load_scorer(None, head, config=CLIP_CONFIG)


# Published sizes, without their weights


@pytest.mark.parametrize(
    ("kind", "parameters", "some"),
    [
        ("hpsv2", 986_109_441, {"visual.transformer.resblocks.31.attn.in_proj_weight": (3840, 1280)}),
        ("pickscore", 986_109_441, {"text_model.encoder.layers.23.mlp.fc1.weight": (4096, 1024)}),
        ("clipscore", 427_616_513, {"vision_model.embeddings.position_embedding.weight": (257, 1024)}),
        ("imagereward", 446_000_000, {"blip.text_encoder.embeddings.word_embeddings.weight": (30524, 768)}),
    ],
)
def test_published_sizes(kind, parameters, some):
    """As their authors print them; ImageReward's from the 1.79 GB of its fp32 file."""
    shapes = KINDS[kind].layout.shapes(KINDS[kind].architecture)
    total = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert total == parameters if kind != "imagereward" else abs(total - parameters) < 2_000_000
    for key, shape in some.items():
        assert shapes[key] == shape


def test_an_architecture_survives_its_dict():
    for architecture in (KINDS[kind].architecture for kind in PUBLISHED):
        assert Architecture.from_dict(json.loads(json.dumps(architecture.to_dict()))) == architecture
