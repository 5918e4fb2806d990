"""The two ways in which ComfyUI turns a graph down."""

from __future__ import annotations


class PromptRefused(Exception):
    """Validation refused the graph; `node_errors` is what `/prompt` answers, by node id."""

    def __init__(self, error: dict | None, node_errors: dict):
        reasons = [
            f"{failed['class_type']} {node_id}: {reason['message']}: {reason['details']}"
            for node_id, failed in node_errors.items()
            for reason in failed["errors"]
        ]
        super().__init__("; ".join(reasons) or f"{error['message']} {error['details']}")
        self.node_errors = node_errors


class NodeFailed(Exception):
    """A node raised: the message is the node's own, as the user reads it."""

    def __init__(self, execution_error: dict):
        super().__init__(execution_error["exception_message"].strip())
        self.node_id = execution_error["node_id"]
        self.class_type = execution_error["node_type"]
        self.exception_type = execution_error["exception_type"]
