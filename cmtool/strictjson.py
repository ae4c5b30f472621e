"""JSON by its standard (RFC 8259), which knows neither NaN nor Infinity."""

import json
import math
from typing import Any

__all__ = ["dumps"]


def dumps(value: Any, **about: Any) -> str:
    """The JSON text of a value, with null for every number that is not finite; ``about`` as of ``json.dumps``."""
    return json.dumps(_finite(value), allow_nan=False, **about)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
