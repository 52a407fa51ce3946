"""Values as JSON can hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any


def plain(value: Any) -> Any:
    """Make frozen dataclasses and tuples what JSON can hold; infinity and NaN as ``typed_json`` says them."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(one) for name, one in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def finite(value: float | None) -> float | None:
    """Give a number that JSON can write; ``None`` for infinity and NaN."""
    return value if value is None or math.isfinite(value) else None
