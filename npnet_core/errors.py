"""Errors in words that a user can act on."""

from collections.abc import Sequence

LONGEST = 20_000  # characters of a message; one that names every key of a file stays whole


def escaped(text: str) -> str:
    """The text with escapes for everything that a terminal could obey instead of showing it, line breaks included."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def reason(error: Exception) -> str:
    """The first line of what another library says of its error, or the error's type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def first_of(names: Sequence[str], count: int = 3) -> str:
    """``a, b, c and 2 more``."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


class InputError(ValueError):
    """Wrong input. The message is one sentence: what came, what was expected, what to do.

    It may quote what strangers wrote into a file, so it is escaped, and a message without end loses its middle.
    """

    __module__ = "npnet_core"  # ComfyUI shows it before the message, and a custom node's begins with its path

    def __init__(self, message: str):
        text = escaped(message)
        if len(text) > LONGEST:
            text = f"{text[: LONGEST // 2]} … {text[3 - LONGEST // 2 :]}"
        super().__init__(text)
