"""Numbers as people read them."""

from __future__ import annotations

import math

THIN = "\u202f"  # narrow space that does not break
MINUS = "\u2212"


def fixed(value: float, digits: int) -> str:
    """``digits`` decimals; no negative zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if not float(text) else text.replace("-", MINUS)


def signed(value: float, digits: int) -> str:
    """As :func:`fixed`, with a plus for what is above zero."""
    text = fixed(value, digits)
    return text if text.startswith(MINUS) or not float(text) else f"+{text}"


def percent(share: float, digits: int = 1) -> str:
    return f"{fixed(100 * share, digits)}{THIN}%"


def interval(low: float, high: float, digits: int, factor: float = 1) -> str:
    """``[low, high]``, both times ``factor``."""
    return f"[{fixed(factor * low, digits)}, {fixed(factor * high, digits)}]"


def p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def decimals(spread: float, most: int = 4) -> int:
    """How many decimals show two digits of ``spread``; two for none."""
    return max(0, min(most, 1 - math.floor(math.log10(spread)))) if spread > 0 else 2


def brief(value: object) -> str:
    """A figure of unknown size by four digits; thousands apart; "–" for None; anything else as text."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 10_000:
        return f"{value:,.0f}".replace(",", THIN).replace("-", MINUS)
    return f"{value:.4g}".replace("-", MINUS)


def count(number: int, noun: str) -> str:
    """``1 pair``, ``2,000 pairs`` with a thin space."""
    return f"{brief(number)} {noun}{'s' * (number != 1)}"


def listed(parts: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
