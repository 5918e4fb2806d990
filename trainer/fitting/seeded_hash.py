"""What a seed makes of a text: the same on every machine, and for another seed another."""

from __future__ import annotations

import hashlib


def seeded_hash(seed: int, text: str) -> bytes:
    """SHA-256 of both."""
    return hashlib.sha256(f"{seed} {text}".encode()).digest()
