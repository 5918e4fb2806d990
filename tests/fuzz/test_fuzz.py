"""Hostile and unlucky input to the core and the trainer; the nodes' is in tests/nodes/test_fuzz_nodes.py."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import shutil
import zlib
from pathlib import Path
from random import Random

import numpy as np
import pytest
import safetensors.torch
import torch

from npnet_core.architectures import new_net
from npnet_core.checkpoint import CONFIG, load_npnet, save_npnet
from npnet_core.config import UNetConfig
from npnet_core.golden import golden_noise
from npnet_core.npd import Manifest, NPDReader, NPDWriter, dataset_folder, merge
from npnet_core.preference import load_scorer
from npnet_core.preference.files import CONFIG as SCORER_CONFIG
from npnet_core.preference.files import convert_scorer
from npnet_core.selection import keep_pair, top_k
from npnet_core.summary import dataset_overlap, render, summarise
from tests.fuzz.damage import damaged, hostile_pickle, hostile_safetensors, spoilt_json
from tests.fuzz.harness import fuzz, input_error
from tests.fuzz.odd import odd_images, odd_name, odd_text, odd_value
from tests.seeded import small_net
from tests.tiny_fit import BASE
from tests.tiny_scorers import (
    BLIP_CONFIG,
    CLIP_CONFIG,
    HPS_CONFIG,
    write_aesthetic,
    write_clip,
    write_hps,
    write_image_reward,
    write_mps,
)
from trainer.commands.cli import main
from trainer.data.embeddings import Embeddings, store_embeddings
from trainer.data.prompts import read_prompts
from trainer.data.released import import_pairs, read_captions
from trainer.fitting.checkpoints import load_checkpoint, save_checkpoint

SMALLEST = {"resolution": 8, "prompt_tokens": 3, "prompt_dim": 5, "swin_size": 16, "swin_dim": 8}
SMALLEST |= {"swin_depths": (1,), "swin_heads": (2,)}


@pytest.fixture(scope="module")
def npnet():
    return small_net(**SMALLEST)


@pytest.fixture(scope="module")
def npnet_file(npnet, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("npnet") / "net.safetensors"
    save_npnet(npnet, path, {"npnet.base_model": "a base model"})
    return path.read_bytes()


@pytest.fixture(scope="module")
def unet_file(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("unet") / "net.safetensors"
    save_npnet(new_net(UNetConfig(resolution=8, prompt_tokens=3, prompt_dim=5, widths=(32,))), path)
    return path.read_bytes()


def test_npnet_files(npnet_file, unet_file, tmp_path):
    noise, prompt = torch.randn(1, 4, 8, 9), torch.randn(1, 4, 5)
    states = {content: safetensors.torch.load(content) for content in (npnet_file, unet_file)}

    def case(random: Random, folder: Path):
        npnet_file, state = random.choice(list(states.items()))
        kind = random.choice(["damaged", "hostile", "hostile", "pickle"])
        if kind == "pickle":
            what, content = hostile_pickle(random, state, folder)
            if random.random() < 0.2:
                what, content = damaged(random, content)
        elif kind == "hostile":
            what, content = hostile_safetensors(random, npnet_file, (CONFIG,))
        else:
            what, content = damaged(random, npnet_file)
        path = folder / random.choice(["a.safetensors", "a.pth", "a.pt", "a.bin", "a"])
        path.write_bytes(content)

        def run():
            if random.random() < 0.2:
                inspect(path)
            else:
                golden_noise(load_npnet(path), noise, prompt)

        return what, run

    fuzz("NPNet files", case, tmp_path)


def inspect(path: Path) -> None:
    """`npnet inspect`, whose text no terminal may mistake for commands."""
    from trainer.commands import inspect

    with contextlib.redirect_stdout(io.StringIO()) as shown:
        inspect.run(inspect.Options(path))
    assert all(line.isprintable() for line in shown.getvalue().split("\n")), shown.getvalue()


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


def test_preference_files(clip, tmp_path, tmp_path_factory):
    hps = write_hps(tmp_path_factory.mktemp("hps"))
    convert_scorer(hps, converted := hps.with_name("converted.safetensors"), "hpsv2", HPS_CONFIG)
    state = torch.load(hps, weights_only=True)["state_dict"]
    files = {path.name: path.read_bytes() for path in clip.iterdir()}
    images = torch.rand(1, 8, 8, 3)

    def case(random: Random, folder: Path):
        kind = random.choice(["converted", "pickle", "folder"])
        words, path, options = (
            clip,
            folder / "a.safetensors",
            {"kind": random.choice([None, None, None, "hpsv2", "pickscore"])},
        )
        if kind == "converted":
            damage = random.choice([damaged, lambda r, c: hostile_safetensors(r, c, (SCORER_CONFIG,))])
            what, content = damage(random, converted.read_bytes())
            path.write_bytes(content)
        elif kind == "pickle":
            what, content = hostile_pickle(random, state, folder)
            path = folder / "HPS_v2_compressed.pt"
            path.write_bytes(content)
            options |= {"config": HPS_CONFIG}
        else:
            words = path = folder / "pickscore"
            path.mkdir()
            spoilt = random.choice(list(files))
            what, content = damaged(random, files[spoilt])
            if spoilt.endswith(".json") and random.random() < 0.7:
                content = spoilt_json(random, files[spoilt].decode()).encode("utf-8", "surrogatepass")
            what = f"{spoilt}: {what}"
            for name, good in files.items():
                (path / name).write_bytes(content if name == spoilt else good)
        return what, lambda: load_scorer(path=path, tokenizer=words, **options).score(images, ["a red circle"])

    fuzz("preference model files", case, tmp_path)


def test_further_preference_files(clip, tmp_path, tmp_path_factory):
    """Files with another beside them: CLIP's folder for the aesthetic predictor, BERT's words for ImageReward."""
    good = tmp_path_factory.mktemp("good")
    writers = {write_aesthetic: CLIP_CONFIG, write_image_reward: BLIP_CONFIG, write_mps: CLIP_CONFIG}
    files = {write(good): config for write, config in writers.items()}
    states = {path: torch.load(path, weights_only=True) for path in files}
    states = {path: {k: v for k, v in s.items() if v.is_floating_point()} for path, s in states.items()}
    images = torch.rand(1, 8, 8, 3)

    def case(random: Random, folder: Path):
        path = random.choice(list(files))
        for companion in (good / "clip-vit-large-patch14", good / "vocab.txt"):
            (folder / companion.name).symlink_to(companion)
        if random.random() < 0.5:
            what, content = damaged(random, path.read_bytes())
        else:
            what, content = hostile_pickle(random, states[path], folder)
        copy = folder / path.name
        copy.write_bytes(content)
        scorer = {"config": files[path], "tokenizer": clip if path.name.startswith("MPS") else None}
        return f"{path.name}: {what}", lambda: load_scorer(None, copy, **scorer).score(images, ["a red circle"])

    fuzz("further preference model files", case, tmp_path)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dataset") / "pairs"
    with NPDWriter(folder, MANIFEST, worker="w", pairs_per_part=2) as writer:
        for seed in range(5):
            noise = torch.randn(2, 4, 4, 4)
            writer.add(*noise, prompt=f"prompt {seed}", seed=seed, scores={"hpsv2": (0.2, 0.3)}, extra={"kept": True})
    return folder


MANIFEST = Manifest("sdxl", (14.6, 10.0), 5.5, 1.0, "exact", 1, {"base_model": BASE})


def test_datasets(dataset, tmp_path):
    def case(random: Random, folder: Path):
        copy = folder / "pairs"
        shutil.copytree(dataset, copy)
        file = random.choice(sorted(path for path in copy.rglob("*") if path.is_file()))
        if file.suffix == ".safetensors":
            what, content = random.choice([damaged, hostile_safetensors])(random, file.read_bytes())
        elif random.random() < 0.3:
            what, content = damaged(random, file.read_bytes())
        elif file.suffix == ".jsonl":
            what, content = hostile_sidecar(random, file.read_bytes())
        else:
            what = spoilt_json(random, file.read_text())
            content = what.encode("utf-8", "surrogatepass")
        file.write_bytes(content)
        if random.random() < 0.05:
            file.unlink()
        name, options = file.name, {"verify": random.random() < 0.3, "skip_corrupt": random.random() < 0.3}
        use = random.choice([read_all, read_all, join, lambda f, _: merge([f], f.parent / "merged"), look])
        return f"{name}: {what[:200]}", lambda: use(copy, options)

    fuzz("datasets", case, tmp_path)


def read_all(folder: Path, options: dict) -> None:
    reader = NPDReader(folder, **options)
    render(summarise(reader))
    for i in range(len(reader)):
        assert all(noise.dtype == torch.float16 for noise in reader[i])
    for scorer in reader.scorers:
        keep_pair(*reader.scores(scorer).T, 0.0)
    dataset_overlap(reader)


def look(folder: Path, options: dict) -> None:
    inspect(folder)


def join(folder: Path, options: dict) -> None:
    with NPDWriter(folder, MANIFEST, worker="w") as writer:
        writer.add(*torch.zeros(2, 4, 4, 4), prompt="another", seed=1)


def hostile_sidecar(random: Random, content: bytes) -> tuple[str, bytes]:
    """A part's .jsonl with a spoilt line and a checksum that is right."""
    lines = content.decode().splitlines()[:-1]
    number = random.randrange(len(lines))
    lines[number] = what = spoilt_json(random, lines[number])
    if random.random() < 0.2:
        lines = random.choice([lines[:1], lines[1:], [*lines, random.choice(lines)], []])
    body = "".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass")
    return f"line {number}: {what}", body + json.dumps({"crc32": zlib.crc32(body)}).encode() + b"\n"


@pytest.mark.parametrize("mask", [None, [[True, True, False], [True, True, True]]], ids=["version 1", "version 2"])
def test_embeddings(tmp_path, tmp_path_factory, mask):
    good = tmp_path_factory.mktemp("good")
    mask = mask and torch.tensor(mask)
    store_embeddings(good, BASE, ["a", "b"], torch.randn(2, 3, 5), "fingerprint", mask)
    (file,) = good.rglob("*.safetensors")

    def case(random: Random, folder: Path):
        damage = random.choice([damaged, lambda r, c: hostile_safetensors(r, c, ("prompts",))])
        what, content = damage(random, file.read_bytes())
        path = folder / file.relative_to(good)
        path.parent.mkdir(parents=True)
        path.write_bytes(content)

        def run():
            embeddings = Embeddings(folder, BASE)
            known = [prompt for prompt in ("a", "b") if prompt in embeddings]
            if known:
                embeds, mask = embeddings.tokens(known)
                assert embeds.shape == (len(known), max(map(len, embeds)), embeddings.shape[1])
                assert mask is None or mask.shape == embeds.shape[:2]

        return what, run

    fuzz(f"prompt embeddings{' without padding' if mask is not None else ''}", case, tmp_path)


def test_checkpoints_of_a_fit(npnet, tmp_path, tmp_path_factory):
    state = {"weights": npnet.state_dict(), "step": 3}
    content = save_checkpoint(tmp_path_factory.mktemp("good"), 3, state, 1).read_bytes()

    def case(random: Random, folder: Path):
        if random.random() < 0.5:
            what, spoilt = damaged(random, content)
        else:
            what, spoilt = hostile_pickle(random, npnet.state_dict(), folder)
        path = folder / "00000003.pt"
        path.write_bytes(spoilt)
        return what, lambda: load_checkpoint(path)

    fuzz("checkpoints of a fit", case, tmp_path)


ROWS = [{"prompt": "a red circle", "id": 1}, {"prompt": "a blue square, left of it", "id": 2}]
PROMPT_FILES = {
    "a.txt": "a red circle\na blue square\n",
    "a.csv": 'id,prompt\n1,a red circle\n2,"a blue square, left"\n',
    "a.tsv": "id\tprompt\n1\ta red circle\n",
    "a.json": json.dumps(ROWS),
    "a.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
}


def test_prompt_files(tmp_path, tmp_path_factory):
    import pyarrow
    import pyarrow.parquet

    parquet = tmp_path_factory.mktemp("good") / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), parquet)

    def case(random: Random, folder: Path):
        name = random.choice([*PROMPT_FILES, parquet.name])
        if name == parquet.name:
            what, content = damaged(random, parquet.read_bytes())
        elif random.random() < 0.4:
            what, content = damaged(random, PROMPT_FILES[name].encode())
        elif random.random() < 0.5 and name.startswith("a.json"):
            what = spoilt_json(random, random.choice([PROMPT_FILES["a.json"], json.dumps(ROWS[0])]))
            content = what.encode("utf-8", "surrogatepass")
        else:
            what = "\n".join(odd_text(random) for _ in range(random.randrange(4)))
            content = what.encode(random.choice(["utf-8", "utf-8", "utf-16", "utf-8-sig"]), "surrogatepass")
        path = folder / name
        path.write_bytes(content)
        column = random.choice([None, None, "PROMPT", "id", odd_text(random)])

        def run():
            prompts = read_prompts(path, column)
            assert prompts
            assert all(isinstance(prompt, str) and prompt == prompt.strip() for prompt in prompts)
            " ".join(prompts).encode()

        return f"{name}, column {column!r}: {what[:200]!r}", run

    fuzz("prompt files", case, tmp_path)


def test_released_pairs(tmp_path):
    noise = io.BytesIO()
    np.savez(noise, *np.random.RandomState(0).standard_normal((2, 1, 4, 4, 4)).astype(np.float16), np.array(0))
    line = {"index": 0, "seed": 1, "caption": "a red circle", "original_score_list": [0.2], "optimized_score_list": [1]}

    def case(random: Random, folder: Path):
        captions, pair = folder / "captions.json", folder / "pairs" / "0_1.npz"
        pair.parent.mkdir()
        what, text, content = "captions", json.dumps(line), noise.getvalue()
        spoil = random.choice(["captions", "damage", "objects", "arrays"])
        if spoil == "captions":
            text = what = spoilt_json(random, text)
        elif spoil == "damage":
            what, content = damaged(random, content)
        else:
            arrays = [np.zeros((1, 4, 4, 4), np.float16)] * 2 + [np.array(0)]
            place, what = random.randrange(3), "objects"
            if spoil == "objects":
                trap = str(folder.parent / "executed")
                arrays[place] = np.array(
                    [__import__("tests.fuzz.damage").fuzz.damage.Payload(Path.mkdir, trap)], object
                )
            else:
                shapes = [(1, 4, 4, 4), (2, 4, 4, 4), (4, 4, 4), (), (0,), (1, 4, 2, 8), (1, 0, 4, 4)]
                types = [np.float64, np.int8, np.complex64, np.bool_, "U1", "M8[s]"]
                arrays[place] = np.zeros(random.choice(shapes), random.choice(types))
                what = f"array {place} is {arrays[place].dtype} {arrays[place].shape}"
            file = io.BytesIO()
            np.savez(file, *arrays)
            content = file.getvalue()
        captions.write_text(text + "\n", encoding="utf-8", errors="surrogatepass")
        pair.write_bytes(content)

        def run():
            lines = read_captions(captions, ("hpsv2",))
            with NPDWriter(folder / "out", MANIFEST, worker="released") as writer:
                import_pairs(folder / "pairs", lines, writer)

        return what, run

    fuzz("released pairs", case, tmp_path)


def test_golden_noise(npnet, tmp_path):
    def case(random: Random, folder: Path):
        side = [0, 1, 1, 2, 2, 7, 7, 8, 8, 8, 9, 9, 64]
        shape = random.choice(
            [(random.choice([1, 2]), 4, random.choice(side), random.choice(side))] * 12 + [(4, 8, 8), ()]
        )
        tokens = random.choice([0, 1, 1, 2, 2, 3, 3, 4, 4, 30])
        embeds = random.choice(
            [(1, tokens, 5)] * 12 + [(shape[0] if shape else 1, tokens, 5), (3, 3, 5), (1, 3, 6), (5,)]
        )
        noise, prompt = torch.randn(shape), torch.randn(embeds)
        for tensor in (noise, prompt):
            if tensor.numel() and random.random() < 0.08:
                scale = random.choice([0.0, 1e-30, 1e3, 1e30, math.nan, math.inf])
                tensor.view(-1)[random.randrange(tensor.numel()) :] *= scale
        noise = noise.to(
            random.choice([torch.float32] * 8 + [torch.float16, torch.bfloat16, torch.float64, torch.int64])
        )
        strength = random.choice([1.0] * 12 + [0, 2, 0.5, -0.1, 2.1, math.nan, math.inf, True, 1e-320])
        long_prompt = random.choice(["truncate", "average", "recurse"] * 8 + ["", "Truncate", odd_text(random)])

        def run():
            golden = golden_noise(npnet, noise, prompt, strength=strength, long_prompt=long_prompt)
            assert golden.shape == noise.shape
            assert golden.dtype == noise.dtype
            assert golden.isfinite().all()

        what = f"noise {list(shape)} {noise.dtype}, prompt {list(embeds)}, strength {strength}, {long_prompt[:20]!r}"
        return what, run

    fuzz("golden_noise()", case, tmp_path)


@pytest.fixture(scope="module")
def scorers(clip, tmp_path_factory) -> list:
    from tests.tiny_scorers import CLIP_WORDS

    hps = write_hps(tmp_path_factory.mktemp("hps"))
    return [
        load_scorer("pickscore", clip, tokenizer=clip),
        load_scorer("hpsv2", hps, config=HPS_CONFIG, tokenizer=CLIP_WORDS),
    ]


def test_images(scorers, tmp_path):
    def case(random: Random, folder: Path):
        what, images = odd_images(random)
        count = random.choice([len(images) if images.ndim else 1] * 12 + [0, 1, 5])
        prompts = random.choice([["a red circle"] * count] * 12 + ["a red circle"])
        scorer = random.choice(scorers)

        def run():
            scores = scorer.score(images, prompts)
            assert scores.shape == (len(images),)
            assert scores.isfinite().all()
            top_k(scores, random.choice([1] * 8 + [0, 2, 10**9]))

        return f"{what}, {count} prompts", run

    fuzz("images to score", case, tmp_path)


def test_prompts(scorers, tmp_path):
    """Scored, and kept in a dataset that gives them back."""
    image = torch.rand(1, 8, 8, 3)

    def case(random: Random, folder: Path):
        prompt, scorer = odd_text(random), random.choice(scorers)

        def run():
            (score,) = scorer.score(image, [prompt]).tolist()
            with NPDWriter(folder / "pairs", MANIFEST, worker="w") as writer:
                writer.add(*torch.zeros(2, 4, 2, 2), prompt=prompt, seed=0, scores={"hpsv2": (score, score)})
            (record,) = NPDReader(folder / "pairs", verify=True).records
            assert record.key.prompt == prompt

        return f"{prompt[:80]!r}, {len(prompt)} characters", run

    fuzz("prompts", case, tmp_path)


def test_names(tmp_path):
    def case(random: Random, folder: Path):
        name = odd_name(random)

        def dataset():
            with NPDWriter(dataset_folder(folder, name), MANIFEST, worker="w") as writer:
                writer.add(*torch.zeros(2, 4, 2, 2), prompt="a", seed=0)
            assert len(NPDReader(folder / name)) == 1

        def worker():
            with NPDWriter(folder / "pairs", MANIFEST, worker=name) as writer:
                writer.add(*torch.zeros(2, 4, 2, 2), prompt="a", seed=0)
            assert len(NPDReader(folder / "pairs")) == 1

        def read():
            path = folder / "x" / name
            random.choice([load_npnet, inspect, read_prompts, NPDReader, lambda p: load_scorer(None, p)])(path)

        use = random.choice([dataset, dataset, worker, read])
        return f"{use.__name__} {name[:80]!r}", use

    def refusal(error: Exception) -> tuple[str, str] | None:
        if isinstance(error, OSError) and error.errno:  # the command line shows it as it is
            return "refused by the system", str(error)
        return input_error(error)

    fuzz("names", case, tmp_path, refusal)


def test_config_files(dataset, tmp_path):
    """What stands in a TOML file for `npnet fit` and `npnet collect`, up to the point where work would begin."""
    from trainer.commands import collect, fit
    from trainer.commands.options import parse

    def toml(value) -> str:
        return json.dumps(value, ensure_ascii=True) if not isinstance(value, float) else repr(value)

    def case(random: Random, folder: Path):
        command = random.choice([fit, collect])
        names = [field.name for field in dataclasses.fields(command.Options)]
        lines = [f"{random.choice(names)} = {toml(odd_value(random))}" for _ in range(random.choice([1, 1, 2]))]
        if random.random() < 0.1:
            lines.append(random.choice([odd_text(random), "seed = " + "1" * 5000, "seed = " + "[" * 100_000]))
        (folder / "c.toml").write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
        where = ["--dataset", str(dataset)] if command is fit else ["--base", "b", "--prompts", "p"]

        def run():
            options = parse(
                command.Options, "x", [*where, "--out", str(folder / "out"), "--config", str(folder / "c.toml")]
            )
            if command is fit:
                fit.settings_from(options)
            else:
                collect.recipe_from(options)

        return "; ".join(lines)[:200], run

    fuzz("config files", case, tmp_path)


def test_command_lines(npnet_file, clip, dataset, tmp_path):
    """`npnet inspect` and `npnet convert` of anything, to anywhere in a folder: an exit code and a line of text."""

    def case(random: Random, folder: Path):
        folder = folder / "here"  # naming the folder itself as a file to write leaves its traces beside it
        folder.mkdir()
        (folder / "net.safetensors").write_bytes(npnet_file)
        sources = [
            str(folder / "net.safetensors"),
            str(clip),
            str(dataset),
            str(folder),
            str(folder / odd_argument(random)),
        ]
        target = str(folder / random.choice(["b.safetensors", "b", "", "no/folder/b", "net.safetensors", "." * 300]))
        argv = random.choice(
            [
                ["inspect", random.choice(sources)],
                ["inspect", "--svd", random.choice(sources)],
                ["inspect", "--kind", odd_argument(random), random.choice(sources)],
                ["convert", random.choice(sources), target],
                ["convert", "--base-model", odd_argument(random), sources[0], target],
                [
                    "convert",
                    "--captions",
                    random.choice(sources),
                    "--base-model",
                    odd_argument(random),
                    str(folder),
                    target,
                ],
                [odd_argument(random), *[odd_argument(random) for _ in range(random.randrange(3))]],
            ]
        )

        def run():
            with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
                try:
                    code = main(argv)
                except SystemExit as end:  # of argparse
                    code = end.code
            assert code in (0, 1, 2)
            if code:
                assert said.getvalue().startswith(("npnet", "usage"))

        return str(argv)[:300], run

    fuzz("command lines", case, tmp_path)


def odd_argument(random: Random) -> str:
    """No system passes NUL or half a character on a command line."""
    return odd_name(random).replace("\0", "").encode("utf-8", "ignore").decode()


# ---- the harness itself ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda folder: [][1], "IndexError"),
        (lambda folder: (folder.parent / "beside").write_text("x"), "changed .*beside"),
        (lambda folder: safetensors.torch.save_file({}, folder.parent / "beside"), "changed .*beside"),
        (lambda folder: (folder.parent / "beside").mkdir(), "os.mkdir"),
        (lambda folder: __import__("pickle").loads(b"cos\ngetcwd\n."), "pickle.find_class"),
        (lambda folder: __import__("socket").getaddrinfo("localhost", 1), "socket.getaddrinfo"),
        (lambda folder: __import__("subprocess").run(["true"], check=False), "subprocess.Popen"),
        (lambda folder: __import__("os").system("true"), "os.system"),
    ],
)
def test_what_a_case_may_not_do(act, words, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.fuzz.harness._rows", {})
    monkeypatch.setattr("tests.fuzz.harness._write_table", lambda: None)
    with pytest.raises(AssertionError, match=words):
        fuzz("one", lambda random, folder: ("it", lambda: act(folder)), tmp_path, cases=1)


def test_an_error_that_is_no_sentence_fails(tmp_path, monkeypatch):
    from npnet_core.errors import InputError

    def refuse():
        raise InputError("No")

    monkeypatch.setattr("tests.fuzz.harness._rows", {})
    monkeypatch.setattr("tests.fuzz.harness._write_table", lambda: None)
    with pytest.raises(AssertionError, match="unreadable"):
        fuzz("one", lambda random, folder: ("it", refuse), tmp_path, cases=1)
