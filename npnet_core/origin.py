"""What a net's file says of what it was trained on, as a sentence for people."""

from __future__ import annotations

import json
from collections.abc import Mapping

from .errors import escaped


def trained_on(metadata: Mapping[str, str]) -> str:
    """One line; "" for a file that does not say it, as published ones, or not as ``npnet fit`` does."""
    base = metadata.get("npnet.base_model", "a base model that is not named")
    try:
        if "npnet.reward" in metadata:
            reward = json.loads(metadata["npnet.reward"])
            steps = reward["denoising_steps"]
            words = (
                f"the scores of {', '.join(reward['scorers'])} for images of {base} in {steps} step{'s' * (steps != 1)}"
            )
        elif "npnet.dataset" in metadata:
            selection = json.loads(metadata["npnet.selection"])
            words = f"{selection['trained_on']:,} pairs of {base}"
            if selection["scorers"] != ["none"]:
                words += f" that {', '.join(selection['scorers'])} kept"
        else:
            return ""
    except (ValueError, KeyError, TypeError, RecursionError):  # strangers may write anything there
        return ""
    return escaped(f"Trained on {words}.")
