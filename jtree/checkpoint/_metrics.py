"""The metrics of a training step: JSON that is stored beside its arrays."""

from __future__ import annotations

import json
from typing import Any

import jax

from .._errors import ArgumentTypeError
from .._tree.leaves import describe
from ._formats.file import File, as_checkpoint_error
from ._formats.limits import JSON_BYTES, parse_json
from ._orbax.api import METRICS
from ._storage.paths import Path


def check_metrics(metrics: Any) -> Any:
    """Return metrics as JSON, with Python numbers for 0-d arrays."""
    expected = "metrics: expected a dict of numbers by name, such as {'loss': 0.5}"
    if metrics is None:
        return None
    try:
        numbers = jax.tree.map(lambda x: x.item() if hasattr(x, "item") else x, metrics)
        content = json.loads(json.dumps(numbers))
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentTypeError(f"{expected}; {error}") from error
    if not isinstance(content, dict):
        raise ArgumentTypeError(f"{expected}, found {describe(metrics)}")
    return content


def read_metrics(step: Path) -> dict[str, Any] | None:
    """Return the metrics of a step, or None if it was saved without."""
    path = step / METRICS / METRICS
    if not path.exists():
        return None
    with as_checkpoint_error(path, "cannot read these metrics"):
        file = File(path)
        content = parse_json(file.read(0, min(file.size, JSON_BYTES)), file.size)
        if not isinstance(content, dict):
            raise ValueError(f"expected a dict, found {describe(content)}")
    return content
