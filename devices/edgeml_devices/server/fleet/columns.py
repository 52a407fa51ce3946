"""What stands in columns of JSON."""

from __future__ import annotations

import json
from typing import Any

from edgeml import typed_json


def to_json(document: Any) -> Any:
    """Give a document, or a part of one, as what a JSON column takes."""
    return json.loads(json.dumps(typed_json.write(document)))
