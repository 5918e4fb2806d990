"""Encodings and line ends."""

from __future__ import annotations

import codecs

import pytest

from npnet_core.errors import InputError
from trainer.data.textfile import read_text

TEXT = "zwölf Bögen\n\n红狐狸 🟦\u2028\n"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode(),
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
        lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    ],
)
def test_one_text_however_it_was_saved(tmp_path, encode, end):
    (tmp_path / "a").write_bytes(encode(TEXT.replace("\n", end)))
    assert read_text(tmp_path / "a", "The file") == TEXT


def test_the_mark_of_a_second_file_behind_a_first_goes_too(tmp_path):
    (tmp_path / "a").write_bytes(2 * (codecs.BOM_UTF8 + b"a cat\r\n"))
    assert read_text(tmp_path / "a", "The file") == "a cat\na cat\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a\nb\ncafé".encode("cp1252"), r"The file \S+ is not UTF-8 \(at byte 7\) in line 3: save it as UTF-8"),
        (codecs.BOM_UTF16_LE + b"a\0b", "is not the UTF-16 that its first bytes say"),
        ("a cat".encode("utf-16-le"), "has a NUL character in line 1"),
        (b"a\r\nb\0", "has a NUL character in line 2"),
    ],
)
def test_other_bytes_are_refused(tmp_path, content, words):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_text(tmp_path / "a", "The file")
