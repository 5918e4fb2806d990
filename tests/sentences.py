"""What the message of an error is held to."""

from __future__ import annotations

import re


def is_one_sentence(message: str) -> bool:
    """One line that ends as a sentence does, with a remedy after a colon or semicolon, and no second sentence in it."""
    return bool(re.fullmatch(r".*[:;] .*\.", message)) and not re.search(r"[.!?]['\")]? +[A-Z]", message)


def is_readable(message: str) -> bool:
    """The same of a message that quotes what strangers wrote: a line of bearable length, without control characters."""
    return message.isprintable() and len(message) <= 20_000 and bool(re.fullmatch(r".*[:;] .*[.?]", message))
