"""What a test logs is carried from xdist's process to the one that prints: `make test` would end here with an error."""

from __future__ import annotations

import logging


def test_half_a_surrogate_pair_is_carried():
    logging.getLogger(__name__).warning("a file name may hold \ud800")
