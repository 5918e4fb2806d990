"""Tables: what csv writes, what spreadsheets save, and what was published without quoting."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainer.data.table import read_table

CELLS = st.text(st.sampled_from("ab \"'é,;\t\n“"), max_size=8) | st.text(max_size=5)
HPD = """序号,caption,caption_zh,备注
0,A fox wrestles a bear in a ring.
1,"Old harbour" - a painting of boats, in oil, by night.
2,"A sign, in neon, that says ""open""."
3,A picture titled "Queen of the Robots," made by two painters, and a third.
4,A stop sign with the phrase "hammer time" on it.\x20
"""


def clean(cell: str) -> str:
    """Without what no text file keeps: carriage returns and NUL, see test_textfile."""
    return cell.replace("\r", " ").replace("\0", " ")


FEW_LINES, ONE_LINE = CELLS.filter(lambda cell: cell.count("\n") < 2), CELLS.map(lambda cell: cell.replace("\n", " "))


@given(st.lists(st.tuples(FEW_LINES, ONE_LINE), min_size=1, max_size=6), st.sampled_from(",;\t"))
@example([('"', "a"), ('b"', "c")], ",")
@example([("\n", "")], ",")
@example([('"H I" in', 'says "go"')], ";")
def test_what_csv_writes_is_read(rows, separator):
    """csv's own reader agrees with it on every quoted cell; blank rows do not count for us."""
    rows = [tuple(map(clean, row)) for row in rows]
    if separator == "\t":  # a quoted cell holds tabs or line breaks
        rows = [tuple(cell.replace("\t", " ") for cell in row) for row in rows]
    file = io.StringIO()
    csv.writer(file, delimiter=separator, lineterminator="\n").writerows([("prompt", "category"), *rows])
    expected = [dict(zip(("prompt", "category"), row, strict=True)) for row in rows if row[0].strip() or row[1].strip()]
    assert list(read_table(file.getvalue(), separator).values()) == expected


def test_a_tsv_without_quoting():
    """PartiPrompts: whatever the quotation marks, a line is a row; a cell that is quoted as a whole is not."""
    lines = [
        '"H I" in thick letters',
        '"Go, says a sign',
        "a cat",
        'a dog that says woof"',
        'a sign "stop"',
        '"A" or "B"',
    ]
    text = "Prompt\tCategory\n" + "".join(f"{line}\tSigns\n" for line in lines) + '"""Go"" it says"\t"Signs"\n'
    rows = read_table(text, "\t")
    assert [row["Prompt"] for row in rows.values()] == [*lines, '"Go" it says']
    assert {row["Category"] for row in rows.values()} == {"Signs"}


def test_a_comma_in_the_name_of_a_tsv_s_only_column_separates_nothing():
    assert read_table("Prompt (subject, style)\na cat, oil\n", "\t") == {1: {"Prompt (subject, style)": "a cat, oil"}}


def test_a_tsv_whose_last_cells_an_editor_has_cut_off():
    text = 'Prompt\tCategory\tNote\n"Go, says a sign\tSigns\na cat\na dog that says woof"\tAnimals\tx\n'
    assert [row["Prompt"] for row in read_table(text, "\t").values()] == [
        '"Go, says a sign',
        "a cat",
        'a dog that says woof"',
    ]


def test_commas_without_quotes_where_the_last_columns_are_left_out():
    """HPD_prompt.csv of the paper's authors, in its form."""
    assert [row["caption"] for row in read_table(HPD, ",").values()] == [
        "A fox wrestles a bear in a ring.",
        '"Old harbour" - a painting of boats, in oil, by night.',
        'A sign, in neon, that says "open".',
        'A picture titled "Queen of the Robots," made by two painters, and a third.',
        'A stop sign with the phrase "hammer time" on it. ',
    ]
    beginning = "".join(HPD.splitlines(keepends=True)[:3])  # no row has more cells than there are names
    assert read_table(beginning, ",")[2]["caption"] == '"Old harbour" - a painting of boats, in oil, by night.'


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("prompt;category\na cat, a dog;animals\n", [("a cat, a dog", "animals")]),
        ("sep=;\nprompt;category\na cat, a dog;animals\n", [("a cat, a dog", "animals")]),
        ('sep=\t\nprompt\tcategory\n"a cat, a dog"\tanimals\n', [("a cat, a dog", "animals")]),
        ("prompt\tcategory\na cat, a dog\tanimals\n", [("a cat, a dog", "animals")]),
        ("\n prompt ,category,,\n\na cat,animals,,\n,,\na dog,,\n", [("a cat", "animals"), ("a dog", "")]),
        ("prompt,category\na cat\na dog,animals\n", [("a cat", None), ("a dog", "animals")]),
        ("prompt,category\na cat\na dog, x\na fox,y\n", [("a cat", None), ("a dog", " x"), ("a fox", "y")]),
        ("prompt, category\na cat\na dog, animals\n", [("a cat", None), ("a dog", " animals")]),
    ],
)
def test_spreadsheets(text, rows):
    assert [tuple(row.values()) for row in read_table(text, ",").values()] == rows


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (['"a sign saying "stop" in rain",text'], r"row 301 has quotation marks .*line 304"),
        (['"a cat,animals'], r"row 301 has quotation marks .*line 304"),
        (
            ['"Go, says a sign,Signs', "a cat,Animals", 'a dog says woof",Animals'],
            r"row 301 runs over 3 lines .*line 304",
        ),
        (["a cat, a dog,animals"], r"row 301 has more cells than the first line \(line 304"),
        (["a cat", "a dog, animals", "a fox, red,animals"], r"row 303 has more cells .*\(line 306"),
    ],
)
def test_a_bad_row_is_named(rows, words):
    """By its number below the names and by its line: one row takes two, and one line is blank."""
    text = "prompt,category\n" + "a red fox,animals\n" * 299 + '\n"two\nlines",text\n' + "\n".join(rows) + "\na hen,x\n"
    with pytest.raises(ValueError, match=words):
        read_table(text, ",")


def test_columns_of_one_name_are_refused():
    with pytest.raises(ValueError, match="names prompt twice"):
        read_table("prompt,prompt\na,b\n", ",")


@pytest.mark.parametrize("names", ["id,prompt,tag", "id, prompt, tag"])
def test_spaces_around_a_quoted_cell_are_not_of_it(names):
    rows = read_table(f'{names}\n1, "a fox", "x"\n2, "a cat, ""Tom""" , y\n3,  a dog,z\n', ",")
    assert [row["prompt"] for row in rows.values()] == ["a fox", 'a cat, "Tom"', "  a dog"]
