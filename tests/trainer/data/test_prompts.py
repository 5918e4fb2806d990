"""Prompt files of every kind, as people have them."""

from __future__ import annotations

import csv
import json

import pytest

from npnet_core.errors import InputError
from trainer.data.prompts import KINDS, find_column, read_prompts, read_rows

HARD = ["a cat, a dog", 'the word "yes"', "two\nlines", "zwölf Bögen 🟦", "line\u2028separator\x0c and feed", "0"]


def write(path, prompts, column="prompt"):
    rows = [{"number": i, column: prompt} for i, prompt in enumerate(prompts)]
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        picture = [{"bytes": b"\x89PNG", "path": None}] * len(rows)  # as Hugging Face stores pictures
        table = pyarrow.Table.from_pylist(rows).append_column("picture", pyarrow.array(picture))
        pyarrow.parquet.write_table(table, path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["number", column], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("kind", [kind for kind in KINDS.replace(" or", ",").split(", ") if kind != ".txt"])
def test_what_is_written_is_read(tmp_path, kind):
    path = write(tmp_path / f"set{kind}", HARD, "Caption")
    assert read_prompts(path, "Caption") == HARD
    assert [str(row["number"]) for row in read_rows(path)] == [str(i) for i in range(len(HARD))]
    assert set(read_rows(path)[0]) == {"number", "Caption"}


def test_lines(tmp_path):
    path = tmp_path / "set.TXT"
    path.write_bytes("\ufeff a cat, a dog \r\n\r\n0\r\nzwölf\x85\u2028Bögen".encode())
    assert read_prompts(path) == ["a cat, a dog", "0", "zwölf\x85\u2028Bögen"]


def test_bare_strings(tmp_path):
    """HPD v2's test set is a JSON list of strings."""
    (tmp_path / "set.json").write_text(json.dumps(HARD))
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, HARD)))
    assert read_prompts(tmp_path / "set.json") == read_prompts(tmp_path / "set.jsonl") == HARD


def test_categories_come_with_the_rows(tmp_path):
    """As in GenEval's metadata."""
    rows = [{"tag": "colors", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}]
    (tmp_path / "set.jsonl").write_text(json.dumps(rows[0]))
    assert read_rows(tmp_path / "set.jsonl") == rows


def test_each_prompt_once_in_order(tmp_path):
    path = write(tmp_path / "set.csv", ["b", "a", " b ", "", "c", "a"])
    assert read_prompts(path) == ["b", "a", "c"]


def test_a_column_in_another_case(tmp_path):
    """DrawBench's is called Prompts."""
    path = write(tmp_path / "set.csv", ["a"], "Prompts")
    assert read_prompts(path, "prompts") == ["a"]
    assert find_column(path, [{"prompt": 1, "Prompt": 2}], "Prompt") == "Prompt"
    with pytest.raises(InputError, match="PROMPT"):
        find_column(path, [{"prompt": 1, "Prompt": 2}], "PROMPT")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "There is no prompt file"),
        ("a.txt", b"", r"a\.txt is empty"),
        ("a.csv", b"prompt\n", r"a\.csv has no row below its first line, which names the columns: put"),
        ("a.csv", b"", r"a\.csv is empty"),
        ("a.csv", b"a red ball\n", r"a\.csv has no row below its first line, which names the columns: put"),
        ("a.csv", b"a red ball\na fox\n", r"a red ball, as its first line says.*put the line prompt above it, or save"),
        ("a.tsv", b"a red ball\t3\na fox\t4\n", r"has a red ball, 3, as its first line says.*as \.txt"),
        ("a.jsonl", b'{"text": "a"}\n', r"has no column prompt: it has text, so name one of them \(--column\)\.$"),
        ("a.jsonl", b"\n\n", r"a\.jsonl is empty"),
        ("a.csv", b"prompt,n\n,1\n", "has no prompt in column prompt"),
        ("a.csv", b"text,n\na,1\n", "has no column prompt: it has text, n"),
        ("a.csv", b"prompt\na cat, a dog\n", "row 1 has more cells .* into quotes"),
        ("a.csv", b'prompt\n"a cat', "is not csv"),
        ("a.txt", b"caf\xe9", r"not UTF-8 \(at byte 3\)"),
        ("a.json", b'{"prompts": ["a"]}', "a dict and not a list"),
        ("a.json", b'["a"', r"a\.json is not json"),
        ("a.jsonl", b'{"prompt": ["a"]}', r"Row 1 of .* has \['a'\]"),
        ("a.json", b'["a", 7]', "Row 2 of .* has 7"),
        ("a.json", rb'["\ud83c"]', "half a character"),
        ("a.jsonl", b'"a"\n\n"b\n', r"\(row 3: .* at character 1\)"),
        ("a.jsonl", b'"a"\n\n{"prompt": 3}\n', "Row 3 of .* has 3"),
        ("a.json", b'{"prompt": "a"}\n{"prompt": "b"\n{"prompt": "c"}\n', r"is not json \(row 2: "),
        ("a.json", b'{"prompt": "a"\n{"prompt": "b"}\n', r"is not json \(row 1: "),
        ("a.json", b"[" * 100_000, "is not json"),
        ("a.tsv", b"Prompt\tNote\na cat\t\na\tb\tc\n", "row 2 has more cells"),
        ("a.parquet", b"junk", "is not parquet"),
        ("a.xlsx", b"junk", r"ends in \.xlsx"),
        ("a", b"junk", "ends in nothing"),
    ],
)
def test_wrong_files(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_prompts(tmp_path / name)
    assert "\n" not in str(caught.value)
