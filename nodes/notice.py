"""What a user should know of a run that goes on."""

from __future__ import annotations

import logging

from comfy_execution.utils import get_executing_context
from server import PromptServer

log = logging.getLogger(__name__)


def notify(message: str, level: int = logging.WARNING) -> None:
    """A line in the log, a warning by default, and on the node that runs."""
    log.log(level, message)
    context = get_executing_context()
    if context is not None:  # a node that a program calls has no place on a canvas
        PromptServer.instance.send_progress_text(message, context.node_id)
