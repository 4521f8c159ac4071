"""Tasks in a few lines, for tests."""

from typing import Any

from stages.tasks import Task

CHANGED = {"original_object": "in_input", "edited_object": "in_output", "caption": "changed"}


def tiny_task(name: str = "local", **keys: Any) -> Task:
    """A valid task; ``keys`` replace those of a local edit without metrics."""
    content: dict[str, Any] = {
        "index": 0,
        "family": "region",
        "definition": "Change it.",
        "verbs": ["change"],
        "fields": CHANGED,
        "ground": "original_object",
        "method": "prompt2prompt",
        "region": "object",
        "candidates": [{"cross_until": 0.5, "self_until": 0.2}],
    }
    return Task(name=name, **{**content, **keys})
