"""What edgeml adds to TUF metadata: the repository writes it, the server checks it, devices obey it."""

from __future__ import annotations

import re
from typing import Final

FLOOR_FIELD: Final = "edgeml_floor"
"""In a delegation: model to the lowest release that devices take."""
ROLE_FIELD: Final = "edgeml_role"
"""In a family's metadata: which family. TUF's own fields would let one family's pass for another's."""
ISSUED_FIELD: Final = "edgeml_issued"
"""In the timestamp: when it was made, Unix seconds by the server's clock."""
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""Of families and models."""
_MANIFEST: Final = re.compile(rf"models/({NAME.pattern})/(0|[1-9]\d{{0,17}})\.json", re.ASCII)


def manifest_path(model: str, release: int) -> str:
    """Give the path of a release's manifest among the targets."""
    return f"models/{model}/{release}.json"


def release_of(path: str) -> tuple[str, int] | None:
    """Give model and release of a target; ``None``: it is no release."""
    found = _MANIFEST.fullmatch(path)
    return None if found is None else (found[1], int(found[2]))
