"""Prompt sets as they were published, and folders of them."""

from __future__ import annotations

import codecs
import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from npnet_core.errors import InputError
from trainer.data.prompts import PromptRow, read_prompt_set
from trainer.data.prompts import read_prompts as read_column

GENEVAL = Path(__file__).parents[4] / "shared" / "prompts" / "geneval_metadata.jsonl"
COMMAS = 'A red cube, a blue sphere, and the word "no, never"'


def write_csv(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([header, *rows])
    return path


def test_drawbench(tmp_path):
    rows = [["A red colored car.", "Colors"], [COMMAS, "DALL-E"], ["A black apple.\nBelow it, a green one.", "Colors"]]
    path = write_csv(tmp_path / "drawbench.csv", ["Prompts", "Category"], rows)
    assert read_prompt_set(path) == [PromptRow(*row) for row in rows]


def test_partiprompts(tmp_path):
    path = write_csv(tmp_path / "p2.tsv", ["Prompt", "Category", "Challenge", "Note"], [[COMMAS, "Arts", "Basic", ""]])
    assert read_prompt_set(path) == [PromptRow(COMMAS, "Arts")]


def test_partiprompts_as_published(tmp_path):
    """No cell is quoted, and prompts and notes hold quotation marks."""
    path = tmp_path / "PartiPrompts.tsv"
    path.write_text(
        "Prompt\tCategory\tChallenge\tNote\n"
        '"H I" in thick letters on a wall\tIllustrations\tWriting & Symbols\t\n'
        'a dog saying "I see"\tAnimals\tWriting & Symbols\t\n'
        'two dogs at a table\tAnimals\tImagination\tDescription of "Dogs"\n'
    )
    assert read_prompt_set(path) == [
        PromptRow('"H I" in thick letters on a wall', "Illustrations"),
        PromptRow('a dog saying "I see"', "Animals"),
        PromptRow("two dogs at a table", "Animals"),
    ]


def test_a_semicolon_csv_as_excel_saves_it(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes(codecs.BOM_UTF8 + 'prompt;category\r\n"ein Fuß; groß";Füße\r\na cat, a dog;\r\n'.encode())
    assert read_prompt_set(path) == [PromptRow("ein Fuß; groß", "Füße"), PromptRow("a cat, a dog")]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_json_in_a_json(tmp_path, end):
    rows = [{"prompt": COMMAS, "tag": "text"}, {"prompt": "a cat", "tag": "animals"}]
    (tmp_path / "metadata.json").write_bytes(end.join([*map(json.dumps, rows), "", ""]).encode())
    assert read_prompt_set(tmp_path / "metadata.json") == [PromptRow(*row.values()) for row in rows]


def test_a_single_line_of_json_in_a_json(tmp_path):
    (tmp_path / "one.json").write_text('{"Prompt": "a cat", "tag": "animals"}\n')
    assert read_prompt_set(tmp_path / "one.json") == [PromptRow("a cat", "animals")]


def test_mjhq_30k(tmp_path):
    """Rows by the names of their pictures."""
    rows = {"0a3c": {"category": "animals", "prompt": COMMAS}, "9f": {"category": "food", "prompt": "an egg"}}
    (tmp_path / "meta_data.json").write_text(json.dumps(rows))
    assert read_prompt_set(tmp_path / "meta_data.json") == [PromptRow(COMMAS, "animals"), PromptRow("an egg", "food")]


def test_t2i_compbench_is_a_folder_of_txt(tmp_path):
    (tmp_path / "color.txt").write_bytes(b"a green bench\r\na red car\r\n")
    (tmp_path / "numeracy.txt").write_bytes(b"two boys\nsix cats\n")
    (tmp_path / "._color.txt").write_bytes(b"\x00\x05\x16\x07\xb0")  # macOS's
    expected = [PromptRow(*row) for row in zip(["a green bench", "a red car"], ["color"] * 2, strict=True)]
    assert read_prompt_set(tmp_path) == [
        *expected,
        PromptRow("two boys", "numeracy"),
        PromptRow("six cats", "numeracy"),
    ]
    assert read_column(tmp_path) == ["a green bench", "a red car", "two boys", "six cats"]


def test_dpg_bench_is_a_folder_with_a_prompt_per_file(tmp_path):
    """Without a line break at the end; names that are each prompt's own are no categories."""
    for name in ("0", "COCOval2014000000000192", "partiprompts10"):
        (tmp_path / f"{name}.txt").write_text(f"A long text, {name}. And more.")
    assert read_prompt_set(tmp_path) == [
        PromptRow(f"A long text, {name}. And more.") for name in ("0", "COCOval2014000000000192", "partiprompts10")
    ]


def test_hpd_v2(tmp_path):
    """The test set is one list of dicts; the benchmark a list of prompts per style."""
    annotated = [{"prompt": COMMAS, "image_path": ["1.jpg", "2.jpg"], "rank": [1, 0], "user_hash": "a"}]
    (tmp_path / "test.json").write_text(json.dumps(annotated))
    assert read_prompt_set(tmp_path / "test.json") == [PromptRow(COMMAS)]
    styles = tmp_path / "benchmark"
    styles.mkdir()
    (styles / "photo.json").write_text(json.dumps(["a dog, asleep", "a cat"]))
    (styles / "anime.json").write_text(json.dumps([COMMAS, "a cat"]))
    (styles / "LICENSE").touch()
    assert read_prompt_set(styles) == [
        PromptRow(COMMAS, "anime"),
        PromptRow("a cat", "anime"),  # of a prompt that is in two files the first counts
        PromptRow("a dog, asleep", "photo"),
    ]


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet"])
def test_pick_a_pic(tmp_path, kind):
    path = tmp_path / f"validation.{kind}"
    rows = [{"caption": text, "image_0_uid": "x", "label_0": 0.5} for text in (COMMAS, "a fox", COMMAS, "ein Fuß")]
    if kind == "csv":
        write_csv(path, list(rows[0]), [list(map(str, row.values())) for row in rows])
    elif kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pictures = pyarrow.array([b"\xff\xd8"] * len(rows))
        times = pyarrow.array([1_672_531_200_000_000_001] * len(rows), pyarrow.timestamp("ns"))
        table = pyarrow.Table.from_pylist(rows).append_column("jpg_0", pictures).append_column("created_at", times)
        pyarrow.parquet.write_table(table, path)
    else:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("\n".join(lines) if kind == "jsonl" else f"[{','.join(lines)}]", encoding="utf-8")
    assert read_prompt_set(path) == [PromptRow(COMMAS), PromptRow("a fox"), PromptRow("ein Fuß")]


def test_geneval(tmp_path):
    rows = [{"tag": "counting", "include": [{"class": "bench", "count": 2}], "prompt": "a photo of two benches"}]
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_prompt_set(path) == [PromptRow("a photo of two benches", "counting")]


@pytest.mark.skipif(not GENEVAL.exists(), reason=f"GenEval's prompts are not in {'/'.join(GENEVAL.parts[-3:])}")
def test_all_of_geneval():
    """553 prompts in six tasks."""
    raw = [json.loads(line) for line in GENEVAL.read_text().splitlines()]
    rows = read_prompt_set(GENEVAL)
    assert dict(rows) == {row["prompt"]: row["tag"] for row in reversed(raw)}
    assert sorted(Counter(row["tag"] for row in raw).values()) == [80, 80, 94, 99, 100, 100]
    assert [row.prompt for row in rows] == read_column(GENEVAL)


def test_people_have_files_of_their_own(tmp_path):
    (tmp_path / "mine.txt").write_text(f"{COMMAS}\n\n  a fox  \na fox\n")
    assert read_prompt_set(tmp_path / "mine.txt") == [PromptRow(COMMAS), PromptRow("a fox")]
    path = write_csv(tmp_path / "mine.csv", ["Text", "TAG"], [[COMMAS, "1"], ["a fox", " "]])
    assert read_prompt_set(path, "text") == [PromptRow(COMMAS, "1"), PromptRow("a fox")]
    both = write_csv(tmp_path / "both.csv", ["caption", "prompt"], [["no", "yes"]])
    assert read_prompt_set(both) == [PromptRow("yes")]


@pytest.mark.parametrize(
    ("name", "content", "column", "message"),
    [
        ("a.csv", "words\na fox\n", None, "has no column prompt: it has words"),
        ("a.csv", "prompt\na fox\n", "caption", "has no column caption: it has prompt"),
        ("a.csv", "prompt,category\na fox, a dog,animals\n", None, "put prompts with commas into quotes"),
        ("a.json", '[{"prompt": 3}]', None, "has 3 where a prompt belongs"),
        ("a.jsonl", '{"prompt": ""}\n', None, "has no prompt"),
        ("a.jsonl", '{"prompt": "a"}\n\n{"Prompt": "b"}\n', None, "Row 3 of .* has no prompt, only Prompt"),
        ("a.txt", "\n", None, "is empty"),
    ],
)
def test_wrong_sets_are_one_sentence(tmp_path, name, content, column, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_prompt_set(tmp_path / name, column)


def test_an_empty_folder_and_none(tmp_path):
    with pytest.raises(InputError, match="has no prompt file"):
        read_prompt_set(tmp_path)
    with pytest.raises(InputError, match="There is no prompt file"):
        read_prompt_set(tmp_path / "nowhere.csv")
