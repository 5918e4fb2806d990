"""The dataset on disk: round trips, kills, races, damage, refusals."""

from __future__ import annotations

import dataclasses
import itertools
import json
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from npnet_core import npd
from npnet_core.errors import InputError
from npnet_core.npd import Manifest, NPDReader, NPDWriter, PairKey, dataset_folder, merge

MANIFEST = Manifest("sdxl", (11.0, 8.5), 5.5, 1.0, "exact", 1, {"base model": "tiny", "sampler": "ddim, 10 steps"})
EMBEDDING = dataclasses.replace(MANIFEST, guidance="embedding")
SHAPE = (4, 8, 8)

forks = pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has imported torch: Linux only")


def noises(prompt: str, seed: int, shape: tuple[int, int, int] = SHAPE) -> tuple[torch.Tensor, torch.Tensor]:
    """A pair that can be made again from its name, in fp16 from the start."""
    generator = torch.Generator().manual_seed(seed ^ zlib.crc32(repr(prompt).encode()))
    source, target = torch.randn(2, *shape, generator=generator).half()
    return source, target


def add(writer: NPDWriter, prompt: str, seed: int, shape=SHAPE, **more) -> bool:
    scores = {"hpsv2": (0.25, 0.25 + seed / 1000), "aes": (5.0, 5.5)}
    return writer.add(*noises(prompt, seed, shape), prompt=prompt, seed=seed, scores=scores, **more)


def fill(folder: Path, keys: list[tuple[str, int]], worker="w", pairs_per_part=3, manifest=MANIFEST) -> Path:
    with NPDWriter(folder, manifest, worker=worker, pairs_per_part=pairs_per_part) as writer:
        for prompt, seed in keys:
            add(writer, prompt, seed)
    return folder


def check_pairs(reader: NPDReader) -> None:
    """Every pair is exactly what was written under its name."""
    for record, (source, target) in zip(reader.records, reader, strict=True):
        expected = noises(record.key.prompt, record.key.seed, record.key.shape)
        assert torch.equal(source, expected[0])
        assert torch.equal(target, expected[1])


def seeds_of(reader: NPDReader) -> list[int]:
    return [record.key.seed for record in reader.records]


def files_of(folder: Path) -> set[str]:
    return {path.name for path in (folder / "parts").iterdir()}


KEYS = [
    (prompt, seed) for prompt in ("a red circle", "zwölf\nBögen “quoted” \ud83c 🟦", "") for seed in (7, 3, 2**64 - 1)
]


# -- round trips ------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path):
    with NPDWriter(tmp_path, MANIFEST, worker="w0", pairs_per_part=4) as writer:
        for i, (prompt, seed) in enumerate(KEYS):
            pair = torch.full((2, *SHAPE), float(i))
            assert writer.add(
                *pair,
                prompt=prompt,
                seed=seed,
                scores={"hpsv2": (0.1 + i, 1 / 3)},
                extra={"kept": i % 2 == 0},
            )
    reader = NPDReader(tmp_path)
    assert len(reader) == len(KEYS)
    assert reader.manifest == MANIFEST
    assert [(r.key.prompt, r.key.seed) for r in reader.records] == sorted(KEYS)
    assert reader.prompts == sorted({prompt for prompt, _ in KEYS})
    for record, (source, target) in zip(reader.records, reader, strict=True):
        i = KEYS.index((record.key.prompt, record.key.seed))
        assert record.key.shape == SHAPE == tuple(source.shape)
        assert source.dtype == target.dtype == torch.float16
        assert (source == i).all()
        assert (target == i).all()
        assert record.scores == {"hpsv2": (0.1 + i, 1 / 3)}
        assert record.extra == {"kept": i % 2 == 0}
        assert record.settings == MANIFEST
    assert reader.duplicates == 0
    assert len(reader.parts) == 3


@settings(max_examples=25)
@given(st.data())
def test_random_access_to_mixed_sizes(tmp_path_factory, data):
    shapes = [(4, 13, 19), (4, 8, 8), (16, 4, 4), (4, 1, 3)]
    picks = data.draw(st.lists(st.sampled_from(shapes), min_size=1, max_size=12))
    folder = tmp_path_factory.mktemp("npd")
    with NPDWriter(folder, MANIFEST, worker="w", pairs_per_part=data.draw(st.integers(1, 5))) as writer:
        for seed, shape in enumerate(picks):
            add(writer, "p", seed, shape)
    reader = NPDReader(folder)
    check_pairs(reader)
    index = data.draw(st.integers(-len(reader), len(reader) - 1))
    shape = reader.records[index].key.shape
    same = [i for i, record in enumerate(reader.records) if record.key.shape == shape]
    batch = data.draw(st.lists(st.sampled_from(same), min_size=1))
    source, target = reader.batch(batch)
    for row, i in enumerate(batch):
        assert torch.equal(source[row], reader[i][0])
        assert torch.equal(target[row], reader[i][1])


def test_parts_are_ordinary_safetensors(tmp_path):
    fill(tmp_path, KEYS)
    reader = NPDReader(tmp_path)
    for record, pair in zip(reader.records, reader, strict=True):
        rows = [json.loads(line) for line in record.part.with_suffix(".jsonl").read_text().splitlines()[1:-1]]
        name = str([(row["prompt"], row["seed"]) for row in rows].index(record.key[:2]))
        assert torch.equal(load_file(record.part)[name], torch.stack(pair))
        with safe_open(record.part, "pt") as file:
            assert len(file.keys()) == len(rows) <= 3


def test_rounding_to_fp16_is_small_beside_the_change(tmp_path):
    source = torch.randn(4, 128, 128, generator=torch.Generator().manual_seed(0))
    target = source + 0.3 * torch.randn(4, 128, 128, generator=torch.Generator().manual_seed(1))
    with NPDWriter(tmp_path, MANIFEST, worker="w") as writer:
        writer.add(source, target, prompt="p", seed=0)
    read_source, read_target = (noise.float() for noise in NPDReader(tmp_path)[0])
    assert (read_source - source).square().mean() < 5e-8
    change = target - source
    assert (read_target - read_source - change).square().mean() < 2e-6 * change.square().mean()


def test_the_seeds_noise_can_be_recognised(tmp_path):
    fill(tmp_path, [("p", 5)])
    record = NPDReader(tmp_path).records[0]
    source, target = noises("p", 5)
    assert record.source_crc32 == zlib.crc32(source.numpy().tobytes())
    assert record.crc32 == zlib.crc32(torch.stack([source, target]).numpy().tobytes())


def test_what_a_reader_returns_is_the_callers_own(tmp_path):
    reader = NPDReader(fill(tmp_path, KEYS))
    reader[0][0].zero_()
    reader.batch([0, 1])[1].zero_()
    check_pairs(reader)
    check_pairs(NPDReader(tmp_path))


def test_a_reader_can_be_sent_to_another_process(tmp_path):
    reader = NPDReader(fill(tmp_path, KEYS))
    check_pairs(reader)
    sent = pickle.dumps(reader)
    assert len(sent) < len(pickle.dumps(NPDReader(tmp_path))) + 100  # no noise in it
    check_pairs(pickle.loads(sent))


def test_scores(tmp_path):
    reader = NPDReader(fill(tmp_path, [("p", seed) for seed in (3, 1, 2)]))
    assert reader.scorers == ["aes", "hpsv2"]
    assert reader.scores("hpsv2").tolist() == [[0.25, 0.251], [0.25, 0.252], [0.25, 0.253]]
    with NPDWriter(tmp_path, MANIFEST, worker="w") as writer:
        writer.add(*noises("p", 9), prompt="p", seed=9)
    with pytest.raises(InputError, match=r"1 of 4 pairs .* 'hpsv2': choose among aes, hpsv2"):
        NPDReader(tmp_path).scores("hpsv2")


def test_an_empty_dataset_is_one(tmp_path):
    NPDWriter(tmp_path, MANIFEST, worker="w").flush()
    reader = NPDReader(tmp_path)
    assert len(reader) == 0
    assert reader.prompts == reader.parts == []


# -- the same set, however it was written -----------------------------------------------------------------------------


def test_resuming_writes_only_what_is_missing(tmp_path):
    fill(tmp_path, KEYS[:4])
    before = files_of(tmp_path)
    with NPDWriter(tmp_path, MANIFEST, worker="w", pairs_per_part=3) as writer:
        assert [PairKey(*key, SHAPE) in writer for key in KEYS] == [True] * 4 + [False] * 5
        assert [add(writer, *key) for key in KEYS] == [False] * 4 + [True] * 5
        assert [PairKey(*key, SHAPE) in writer for key in KEYS] == [True] * 9
        assert add(writer, *KEYS[0], shape=(4, 8, 9))
        assert add(writer, *KEYS[0], item=1)
    assert before < files_of(tmp_path)
    assert len(NPDReader(tmp_path)) == len(KEYS) + 2


def test_hash_and_order_depend_on_the_set_alone(tmp_path):
    one = NPDReader(fill(tmp_path / "one", KEYS, pairs_per_part=100))
    fill(tmp_path / "two", KEYS[::-2], worker="b", pairs_per_part=2)
    two = NPDReader(fill(tmp_path / "two", KEYS, worker="a", pairs_per_part=1))
    assert one.hash == two.hash
    assert [r.key for r in one.records] == [r.key for r in two.records]
    assert one.hash != NPDReader(fill(tmp_path / "less", KEYS[1:])).hash
    with NPDWriter(tmp_path / "scored", MANIFEST, worker="w") as writer:
        for prompt, seed in KEYS:
            writer.add(*noises(prompt, seed), prompt=prompt, seed=seed, scores={"hpsv2": (0.25, 0.3)})
    assert one.hash != NPDReader(tmp_path / "scored").hash


def test_racing_writers_leave_each_pair_once(tmp_path):
    first = NPDWriter(tmp_path, MANIFEST, worker="w", pairs_per_part=2)
    second = NPDWriter(tmp_path, MANIFEST, worker="w", pairs_per_part=3)  # the same name, both find nothing
    for prompt, seed in KEYS:
        assert add(first, prompt, seed)
        assert add(second, prompt, seed)
    first.flush()
    second.flush()
    reader = NPDReader(tmp_path)
    check_pairs(reader)
    assert len(reader) == reader.duplicates == len(KEYS)


def test_of_two_different_twins_the_same_one_counts_in_any_order(tmp_path):
    source = torch.zeros(SHAPE)
    targets = [torch.zeros(SHAPE), torch.ones(SHAPE)]
    kept = []
    for order in ((0, 1), (1, 0)):
        folder = tmp_path / str(order[0])
        writers = [NPDWriter(folder, MANIFEST, worker=worker) for worker in "ab"]
        for twin, writer in zip(order, writers, strict=True):
            writer.add(source, targets[twin], prompt="p", seed=0)
            writer.flush()
        assert len(NPDReader(folder)) == NPDReader(folder).duplicates == 1
        kept.append(NPDReader(folder)[0][1])
    assert torch.equal(*kept)


def test_a_noise_is_more_than_its_seed(tmp_path):
    """Two sources of one seed are two pairs, in any order, on resuming and merging; another target is none."""
    one, other = noises("p", 0), noises("varied", 0)
    for name, order in {"there": (one, other), "back": (other, one)}.items():
        with NPDWriter(tmp_path / name, MANIFEST, worker=name) as writer:
            assert [writer.add(*pair, prompt="p", seed=0) for pair in order] == [True, True]
            assert [writer.add(*pair, prompt="p", seed=0) for pair in order] == [False, False]
        with NPDWriter(tmp_path / name, MANIFEST, worker=name) as writer:
            assert PairKey("p", 0, SHAPE) in writer
            assert not writer.add(one[0], other[1], prompt="p", seed=0)  # as a GPU makes another target every time
    there, back = (NPDReader(tmp_path / name) for name in ("there", "back"))
    assert merge([there.folder, back.folder], tmp_path / "all") == 2
    for reader in (there, back, NPDReader(tmp_path / "all")):
        assert reader.hash == there.hash
        assert [r.key for r in reader.records] == [PairKey("p", 0, SHAPE)] * 2
        found = {record.source_crc32: pair for record, pair in zip(reader.records, reader, strict=True)}
        for source, target in (one, other):
            assert torch.equal(torch.stack(found[npd.source_crc32(source)]), torch.stack([source, target]))
    assert there.duplicates == 0
    assert NPDReader(tmp_path / "all").duplicates == 2


def test_order_and_hash_are_those_of_0_1_0(tmp_path):
    """Of nets that were fitted, the metadata hold it."""
    with NPDWriter(tmp_path, MANIFEST, worker="w", pairs_per_part=2) as writer:
        for i, (prompt, seed) in enumerate([("b", 5), ("a", 7), ("a", 3), ("ä", 3)]):
            pair = torch.arange(-64.0, 64.0).view(2, 4, 4, 4) / (64 + i)
            writer.add(*pair, prompt=prompt, seed=seed, item=i, scores={"hpsv2": (0.25, 0.5)})
        writer.add(*pair.flip(0), prompt="a", seed=3, item=0, scores={"hpsv2": (0.25, 0.5)})
    reader = NPDReader(tmp_path)
    assert [(*r.key[:2], r.key.item) for r in reader.records] == [
        ("a", 3, 0), ("a", 3, 2), ("a", 7, 1), ("b", 5, 0), ("ä", 3, 3),
    ]  # fmt: skip
    assert reader.hash == "b54b51e617edd4127c4ddf9308d9c806adf16cc920fc5b8712111354d473cdde"


def test_merge(tmp_path):
    one, two = fill(tmp_path / "one", KEYS[:5]), fill(tmp_path / "two", KEYS[3:])
    assert merge([one, two], tmp_path / "all") == 4
    assert merge([one, two], tmp_path / "all") == 0
    reader = NPDReader(tmp_path / "all")
    check_pairs(reader)
    assert len(reader) == len(KEYS)
    assert reader.duplicates == 2
    assert merge([two], one) == 2
    assert NPDReader(one).hash == reader.hash == NPDReader(fill(tmp_path / "direct", KEYS)).hash


def test_a_dataset_is_not_merged_into_itself(tmp_path):
    one, two = fill(tmp_path / "one", KEYS[:5]), fill(tmp_path / "two", KEYS[3:])
    (tmp_path / "link").symlink_to(one)
    parts = sorted((one / "parts").iterdir())
    for destination in (one, tmp_path / "two" / ".." / "one", tmp_path / "link"):
        with pytest.raises(InputError, match=r"merged into itself.*leave it out of the sources"):
            merge([two, one], destination)
    assert sorted((one / "parts").iterdir()) == parts


def test_merge_refuses_before_it_copies(tmp_path):
    one = fill(tmp_path / "one", KEYS[:5])
    other = fill(tmp_path / "other", KEYS, manifest=dataclasses.replace(MANIFEST, cfg=7.5))
    with pytest.raises(InputError, match=r"other.*one.*cfg 7.5 and 5.5"):
        merge([one, other], tmp_path / "all")
    flip(next((one / "parts").glob("*.safetensors")), -1)
    with pytest.raises(InputError, match="1 of 2 parts"):
        merge([one], tmp_path / "all")
    assert not (tmp_path / "all").exists()


# -- kills, races, full disks -----------------------------------------------------------------------------------------


def in_fork(target, *args) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    return process


def exit_code(process: multiprocessing.Process) -> int | None:
    process.join(timeout=60)
    return process.exitcode


def write_forever(folder: Path, committed: int) -> None:
    """Append pairs for ever, and say down the pipe which are on the disk."""
    writer = NPDWriter(folder, MANIFEST, worker="w")
    for seed in itertools.count():
        if add(writer, "p", seed) and seed % 2:
            writer.flush()
            os.write(committed, b"%d\n%d\n" % (seed - 1, seed))


@forks
def test_fifty_kills_lose_nothing_that_was_committed(tmp_path):
    folder = tmp_path / "set"
    generator = random.Random(0)
    promised: set[int] = set()
    for attempt in range(50):
        receive, send = os.pipe()
        process = in_fork(write_forever, folder, send)
        os.close(send)
        # every second one is killed while it opens the dataset, or soon after; the others have committed by then
        said = os.read(receive, 1000) if attempt % 2 else b""
        time.sleep(generator.uniform(0.0, 0.04))
        process.kill()
        assert exit_code(process) == -signal.SIGKILL
        with os.fdopen(receive, "rb") as pipe:
            promised |= {int(line) for line in (said + pipe.read()).split()}
        if (folder / "manifest.json").exists():
            reader = NPDReader(folder, verify=True)
            check_pairs(reader)
            assert promised <= set(seeds_of(reader))
            assert reader.duplicates == 0
    assert seeds_of(reader) == list(range(len(reader)))  # each seed once, none left out: nobody wrote one twice
    assert len(reader) >= 50  # the writers were at work


def die_at(event_number: int, folder: Path) -> None:
    """One part, and a SIGKILL just before the n-th thing that is asked of the operating system."""
    seen = iter(range(10**9))

    def hook(event: str, args: tuple) -> None:
        if event in ("open", "os.rename", "os.remove", "os.mkdir") and next(seen) == event_number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    fill(folder, KEYS[3:6])
    os._exit(0)


@forks
def test_a_kill_before_every_file_operation(tmp_path):
    whole = fill(tmp_path / "whole", KEYS[:6])
    for n in range(100):
        folder = tmp_path / str(n)
        fill(folder, KEYS[:3])
        code = exit_code(in_fork(die_at, n, folder))
        assert code in (0, -signal.SIGKILL)
        reader = NPDReader(folder, verify=True)
        check_pairs(reader)
        assert len(reader) in (3, 6)
        assert NPDReader(fill(folder, KEYS[:6])).hash == NPDReader(whole).hash  # and the work goes on
        if code == 0:
            break
    assert code == 0
    assert n > 8


def leftover(folder: Path) -> set[str]:
    committed = {path.stem for path in (folder / "parts").glob("*.jsonl")}
    return {name for name in files_of(folder) if name.partition(".")[0] not in committed}


@forks
def test_leftovers_of_the_killed_go_after_an_hour(tmp_path):
    for n in range(30):
        assert exit_code(in_fork(die_at, n, tmp_path)) == -signal.SIGKILL
        if (tmp_path / "parts").exists() and leftover(tmp_path):
            break
    fill(tmp_path, [("p", 1)])
    assert leftover(tmp_path)  # it could still be somebody's
    for name in leftover(tmp_path):
        os.utime(tmp_path / "parts" / name, times=(time.time() - npd.STALE - 60,) * 2)
    fill(tmp_path, [("p", 2)])
    assert not leftover(tmp_path)
    check_pairs(NPDReader(tmp_path))


def write_all(folder: Path, start) -> None:
    start.wait()
    fill(folder, [("p", seed) for seed in range(60)], pairs_per_part=2)
    os._exit(0)


@forks
def test_writers_of_one_name_at_once(tmp_path):
    start = multiprocessing.get_context("fork").Barrier(3)
    processes = [in_fork(write_all, tmp_path / "set", start) for _ in range(3)]
    for process in processes:
        assert exit_code(process) == 0
    reader = NPDReader(tmp_path / "set")
    check_pairs(reader)
    assert seeds_of(reader) == list(range(60))
    assert not leftover(tmp_path / "set")
    assert [path.name for path in (tmp_path / "set").iterdir() if path.suffix == ".tmp"] == []


def run_out_of_disk(folder: Path, limit: int, extra: dict) -> None:
    import resource

    writer = NPDWriter(folder, MANIFEST, worker="w", pairs_per_part=100)
    add(writer, "p", 1, extra=extra)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    with pytest.raises(InputError, match=r"failed \(File too large\): make room"):
        writer.flush()
    assert files_of(folder) == {"before-000000.jsonl", "before-000000.safetensors"}
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    writer.flush()  # the pairs still wait


@forks
@pytest.mark.parametrize(("limit", "extra"), [(500, {}), (10_000, {"long": "x" * 20_000})])  # .safetensors, .jsonl
def test_a_full_disk_leaves_nothing_half_written(tmp_path, limit, extra):
    fill(tmp_path, [("p", 0)], worker="before")
    assert exit_code(in_fork(run_out_of_disk, tmp_path, limit, extra)) == 0
    reader = NPDReader(tmp_path)
    check_pairs(reader)
    assert seeds_of(reader) == [0, 1]


def test_leaving_the_block_by_an_error_keeps_what_is_whole(tmp_path):
    def interrupted() -> None:
        with NPDWriter(tmp_path, MANIFEST, worker="w") as writer:
            add(writer, "p", 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert seeds_of(NPDReader(tmp_path)) == [1]


# -- damage -----------------------------------------------------------------------------------------------------------


def flip(path: Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return fill(tmp_path_factory.mktemp("sound"), KEYS)


@settings(max_examples=150)
@given(st.sampled_from([".safetensors", ".jsonl"]), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
@example(".jsonl", 0.0, 0)
@example(".jsonl", 1 - 1e-9, 3)
@example(".safetensors", 0.0, 7)
def test_any_flipped_bit_is_found_named_and_counted(sound, tmp_path_factory, suffix, where, bit):
    folder = tmp_path_factory.mktemp("npd") / "set"
    shutil.copytree(sound, folder)
    path = folder / "parts" / f"w-000001{suffix}"
    flip(path, int(where * path.stat().st_size), bit)
    with pytest.raises(InputError, match=r"1 of 3 parts .* damaged \(w-000001: .*--skip-corrupt"):
        NPDReader(folder, verify=True)
    reader = NPDReader(folder, skip_corrupt=True)
    check_pairs(reader)
    assert len(reader) == len(KEYS) - 3
    shutil.rmtree(folder)


def test_a_flip_in_noise_is_found_when_it_is_read(sound, tmp_path):
    folder = shutil.copytree(sound, tmp_path / "set")
    reader = NPDReader(folder)
    record = reader.records[2]
    flip(record.part, record.offset + 17)
    for read in (lambda: reader[2], lambda: reader.batch([0, 2]), lambda: NPDReader(folder)[2]):
        with pytest.raises(InputError, match=f"1 of 3 parts .* damaged .{record.part.stem}: "):
            read()
    for i in {0, 1, 3, 4} - {2}:
        assert torch.equal(reader[i][0], noises(*reader.records[i].key[:2])[0])


@pytest.mark.parametrize("break_it", ["cut", "cut sidecar", "empty sidecar", "remove"])
def test_cut_and_missing_files_are_named_on_opening(sound, tmp_path, caplog, break_it):
    folder = shutil.copytree(sound, tmp_path / "set")
    tensors, sidecar = folder / "parts" / "w-000000.safetensors", folder / "parts" / "w-000000.jsonl"
    if break_it == "remove":
        tensors.unlink()
    else:
        path = tensors if break_it == "cut" else sidecar
        data = path.read_bytes()
        path.write_bytes(b"" if break_it == "empty sidecar" else data[: len(data) // 2])
    for opening in (NPDReader, lambda folder: NPDWriter(folder, MANIFEST, worker="w")):
        with pytest.raises(InputError, match=r"1 of 3 parts .* damaged \(w-000000: its"):
            opening(folder)
    assert len(NPDReader(folder, skip_corrupt=True)) == len(KEYS) - 3
    assert "1 of 3 parts" in caplog.text
    assert "left out" in caplog.text
    for path in (tensors, sidecar):
        path.unlink(missing_ok=True)
    assert NPDReader(fill(folder, KEYS)).hash == NPDReader(sound).hash  # as the message says: collected again


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"base_family": "sd1"}, "base_family sdxl and sd1"),
        ({"sigmas": (11.0, 8.4)}, r"sigmas \(11.0, 8.5\) and \(11.0, 8.4\)"),
        ({"cfg": 3.5, "rounds": 2}, "cfg 5.5 and 3.5; rounds 1 and 2"),
        ({"inversion_cfg": 1.5}, "inversion_cfg 1.0 and 1.5"),
        ({"inversion": "released"}, "inversion exact and released"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, change, named):
    fill(tmp_path, KEYS[:1])
    with pytest.raises(InputError, match=named):
        NPDWriter(tmp_path, dataclasses.replace(MANIFEST, **change), worker="w")


def test_what_is_only_recorded_may_differ_and_is_kept_per_pair(tmp_path):
    fill(tmp_path, [("p", 0)])
    close = dataclasses.replace(MANIFEST, sigmas=(11.0 * (1 + 9e-6), 8.5), recorded={"sampler": "euler, 20 steps"})
    fill(tmp_path, [("p", 1)], manifest=close)
    reader = NPDReader(tmp_path)
    assert reader.manifest == MANIFEST
    assert [record.settings for record in reader.records] == [MANIFEST, close]
    with pytest.raises(InputError, match="sigmas"):
        fill(tmp_path, [], manifest=dataclasses.replace(MANIFEST, sigmas=(11.0 * (1 + 2e-5), 8.5)))


def test_a_part_of_another_dataset_is_refused(tmp_path):
    fill(tmp_path / "one", KEYS[:3])
    fill(tmp_path / "two", KEYS[3:], worker="x", manifest=dataclasses.replace(MANIFEST, rounds=3))
    shutil.copytree(tmp_path / "two" / "parts", tmp_path / "one" / "parts", dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"x-000000.*rounds 3 and 1"):
        NPDReader(tmp_path / "one")


def test_folders_that_are_no_dataset(tmp_path):
    for folder in (tmp_path / "missing", tmp_path):
        with pytest.raises(InputError, match="no noise prompt dataset"):
            NPDReader(folder)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        NPDWriter(tmp_path, MANIFEST, worker="w")
    for use in (NPDReader, lambda path: NPDWriter(path, MANIFEST, worker="w")):
        with pytest.raises(InputError):
            use(tmp_path / "notes.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 1}', '{"version": 1, "cfgg": 2}', "\xff"])
def test_a_damaged_manifest_is_made_again_from_the_settings(tmp_path, content):
    fill(tmp_path, KEYS)
    (tmp_path / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"manifest.json is damaged: delete it"):
        NPDReader(tmp_path)
    (tmp_path / "manifest.json").unlink()
    assert len(NPDReader(fill(tmp_path, KEYS))) == len(KEYS)


def test_newer_versions_are_refused(tmp_path, monkeypatch):
    fill(tmp_path, KEYS[:1])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"version": npd.VERSION + 1, "new": 1}))
    with pytest.raises(InputError, match="newer version"):
        NPDReader(tmp_path)
    fill(tmp_path / "newer", KEYS[:1], manifest=EMBEDDING)
    (tmp_path / "newer" / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(npd, "VERSION", 1)  # as 0.1.0 reads
    with pytest.raises(InputError, match="newer version"):
        NPDReader(tmp_path / "newer")


def test_what_version_1_can_say_is_version_1(tmp_path):
    """To the byte what 0.1.0 wrote."""
    fill(tmp_path, KEYS)
    settings = dataclasses.asdict(MANIFEST)
    del settings["guidance"], settings["redenoised_with"]
    settings["sigmas"] = list(settings["sigmas"])
    assert (tmp_path / "manifest.json").read_text() == json.dumps({"version": 1} | settings, indent=2)
    for part in (tmp_path / "parts").glob("*.jsonl"):
        header = json.loads(part.read_bytes().splitlines()[0])
        assert header["version"] == 1
        assert list(header["settings"].items()) == list(settings.items())


@pytest.mark.parametrize("change", [{"guidance": "embedding"}, {"redenoised_with": "0123456789abcdef"}])
def test_how_guidance_entered_is_version_2_and_compared(tmp_path, change):
    manifest = dataclasses.replace(MANIFEST, **change)
    fill(tmp_path / "a", KEYS, manifest=manifest)
    assert NPDReader(tmp_path / "a", verify=True).manifest == manifest
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["version"] == 2
    [(name, value)] = change.items()
    with pytest.raises(InputError, match=f"{name} {value} and {getattr(MANIFEST, name)}"):
        NPDWriter(tmp_path / "a", MANIFEST, worker="w")
    fill(tmp_path / "b", [("another", 1)], manifest=manifest)
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert NPDReader(tmp_path / "both", verify=True).manifest == manifest


@pytest.mark.parametrize("change", [{"guidance": "none"}, {"guidance": None}, {"redenoised_with": 7}])
def test_what_is_no_guidance_makes_no_manifest(change):
    with pytest.raises(ValueError, match="no guidance"):
        dataclasses.replace(MANIFEST, **change)


@pytest.mark.parametrize("whole", [np.int64(7), torch.tensor(7)])
def test_whole_numbers_of_other_libraries_are_seeds(tmp_path, whole):
    with NPDWriter(tmp_path, MANIFEST, worker="w") as writer:
        writer.add(*noises("p", 7), prompt="p", seed=whole, item=whole)
    assert NPDReader(tmp_path, verify=True).records[0].key == ("p", 7, SHAPE, 7)


@pytest.mark.parametrize("change", [{"seed": None}, {"seed": 7.0}, {"seed": "7"}, {"item": 0.5}, {"prompt": 7}])
def test_what_no_reader_would_take_is_not_written(tmp_path, change):
    """Noises of other packs may have no seed at all."""
    with NPDWriter(tmp_path, MANIFEST, worker="w") as writer:
        with pytest.raises(InputError, match=r"whole numbers|give a text"):
            writer.add(*noises("p", 7), **({"prompt": "p", "seed": 7} | change))
        assert add(writer, "p", 7)
    assert len(NPDReader(tmp_path, verify=True)) == 1


def test_pairs_that_cannot_be_stored(tmp_path):
    good = torch.zeros(SHAPE)
    writer = NPDWriter(tmp_path, MANIFEST, worker="w")
    for source, target, scores, said in (
        (good, torch.zeros(4, 8, 9), {}, "make no pair"),
        (good[None], good[None], {}, "make no pair"),
        (good, good / 0, {}, "NaN or infinite"),
        (good, good + 1e6, {}, "NaN or infinite"),  # beyond fp16
        (good, good, {"hpsv2": (0.2, float("nan"))}, "hpsv2 scored"),
        (good, good, {"hpsv2": (0.2,)}, "two finite numbers"),
    ):
        with pytest.raises(InputError, match=said):
            writer.add(source, target, prompt="p", seed=1, scores=scores)
    with pytest.raises(InputError, match="a character in two halves"):  # it would come back as one
        writer.add(good, good, prompt="\udbee\udf01", seed=1)
    writer.flush()
    assert len(NPDReader(tmp_path)) == 0


@pytest.mark.parametrize("worker", ["", "a/b", "..", "a.b", "ä", "a b"])
def test_worker_names(tmp_path, worker):
    with pytest.raises(InputError, match="worker name"):
        NPDWriter(tmp_path, MANIFEST, worker=worker)


@pytest.mark.parametrize("name", ["pairs", "my pairs 2", "SDXL_10-steps.v2", "Übung", "console", "com10"])
def test_names_of_datasets(tmp_path, name):
    assert dataset_folder(tmp_path, name) == tmp_path / name
    fill(dataset_folder(tmp_path, name), KEYS[:1])


REFUSED = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "a\\b",
    "/etc",
    "C:x",
    "a\0b",
    "a\nb",
    " a",
    "a ",
    "a.",
    ".hidden",
    "con",
]
REFUSED += ["NUL.txt", "Com1", "LPT9.a.b", "aux ", "x" * 101, "a\u202eb", "\ud800", "a*", "a?", "COM¹"]


@pytest.mark.parametrize("name", REFUSED)
def test_names_that_lead_elsewhere(tmp_path, name):
    with pytest.raises(InputError, match="cannot be a folder's name"):
        dataset_folder(tmp_path, name)


@given(st.text(max_size=30) | st.lists(st.sampled_from(["..", "/", "\\", "a", ".", "\0", "~"])).map("".join))
def test_no_accepted_name_leaves_the_folder(name):
    root = Path("root").resolve()
    try:
        folder = dataset_folder(root, name)
    except InputError:
        return
    assert folder.resolve().parent == root


def test_opening_leaves_other_peoples_files_alone(tmp_path):
    fill(tmp_path / "set", [("p", 0)])
    notes, folder = tmp_path / "set" / "parts" / "notes.txt", tmp_path / "set" / "parts" / "old"
    notes.write_text("mine")
    folder.mkdir()
    for path in (notes, folder):
        os.utime(path, times=(time.time() - 2 * npd.STALE,) * 2)
    fill(tmp_path / "set", [("p", 1)])
    assert notes.read_text() == "mine"
    assert folder.is_dir()
    assert len(NPDReader(tmp_path / "set")) == 2


APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(100)


def test_names_that_begin_with_a_dot_are_others(tmp_path):
    """macOS puts ``._NAME`` beside every file on a disk that it does not format itself, and .DS_Store into folders."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / ".DS_Store").touch()
    fill(tmp_path / "set", [("p", 0)])
    parts = tmp_path / "set" / "parts"
    beside = [path.with_name(f"._{path.name}") for path in (*parts.iterdir(), parts / "w-000007.safetensors.tmp")]
    for path in beside:
        path.write_bytes(APPLE_DOUBLE)
        os.utime(path, times=(time.time() - 2 * npd.STALE,) * 2)
    fill(tmp_path / "set", [("p", 1)])
    assert len(NPDReader(tmp_path / "set", verify=True)) == 2
    assert all(path.read_bytes() == APPLE_DOUBLE for path in beside)
    assert merge([tmp_path / "set"], tmp_path / "all") == 2
