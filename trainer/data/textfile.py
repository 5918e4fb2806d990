"""Text files as people's programs save them: UTF-8, or UTF-16 that says so, and lines that end as anywhere."""

from __future__ import annotations

import codecs
from pathlib import Path

from npnet_core.errors import InputError

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path, what: str) -> str:
    """The text of a file; its lines end in ``\\n``.

    Args:
        path: in UTF-8, with or without a byte order mark, or in UTF-16 with one, as Excel and PowerShell save it.
        what: names the file in the error, ``The prompt file``.

    Raises:
        InputError: for another encoding, or NUL, which no text has.
    """
    content = path.read_bytes()
    encoding = "utf-16" if content.startswith(UTF16) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        name = {"utf-8-sig": "UTF-8", "utf-16": "the UTF-16 that its first bytes say it is"}[encoding]
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{what} {path} is not {name} (at byte {error.start}) in line {line}: save it as UTF-8."
        ) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\n\ufeff", "\n")  # a mark where files were joined
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(
            f"{what} {path} has a NUL character in line {line}: it is damaged or no UTF-8, save it as UTF-8."
        )
    return text
