"""A picture within the page."""

from __future__ import annotations

import base64
import io
from typing import Literal


def data_uri(image, kind: Literal["png", "jpeg"], **settings) -> str:
    """A ``data:`` URI of a Pillow image, encoded with Pillow's ``settings``."""
    content = io.BytesIO()
    image.save(content, kind, **settings)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
