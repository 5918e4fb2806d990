"""The section on how a run was made: commands, versions, models."""

from __future__ import annotations

import json

from trainer.report.page import Section, block, section


def provenance(results: dict) -> Section:
    """What it takes to do it again."""
    about = results["about"]
    groups = {
        "Versions": about.get("versions", {}),
        "Methods": about.get("methods", {}),
        "Base model": {"from": about["base_model"]} if about.get("base_model") else {},
        **{f"Net {net}": facts or {} for net, facts in about.get("nets", {}).items()},
    }
    parts = []
    if command := about.get("command"):
        parts.append(("Command", [block("code", command)]))
    for heading, facts in groups.items():
        rows = [
            (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
            for name, value in facts.items()
        ]
        if rows:
            parts.append((heading, [block("facts", rows)]))
    note = "Every figure of this page stands in results.json, with the names it has here; every score in scores.jsonl."
    return section("How it was made", parts, note)
