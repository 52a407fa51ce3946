"""What names, labels and values may look like: what selectors, URLs and terminals can hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from edgeml.errors import UsageError
from edgeml_devices.server.fleet.selectors import KEY, VALUE

MOST: Final = 64
"""Labels of one device."""
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Of devices, groups and tokens."""
_RESERVED: Final = frozenset({"name", "id", "target"})
_ID: Final = re.compile(r"[0-9a-f]{16}")


def check_labels(labels: Mapping[str, str | None]) -> None:
    """Refuse labels that no selector could name.

    Raises:
        UsageError: says which.
    """
    if len(labels) > MOST:
        raise UsageError(f"a device may have {MOST} labels, these are {len(labels)}")
    for key, value in labels.items():
        if not KEY.fullmatch(key) or key in _RESERVED:
            raise UsageError(
                f"{key!r} cannot be a label: letters, digits, '.', '_', '/', '-'; not name, id, target"
            )
        if value is not None and not VALUE.fullmatch(value):
            raise UsageError(f"label {key}: {value!r} has other characters than letters, digits and ._+:/@-")


def check_name(kind: str, name: str) -> None:
    """Refuse a name that could be taken for an id, or does not fit a URL.

    Raises:
        UsageError: says what it may hold.
    """
    if not NAME.fullmatch(name) or _ID.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a {kind}'s name: up to 64 letters, digits, '.', '_', '-', and no id"
        )
