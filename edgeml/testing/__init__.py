"""The contracts of runtimes and transports as test classes, for drivers of this project and of others.

Needs pytest. ``EDGEML_REQUIRE_ALL=1`` turns the skip for a missing engine into a failure.
"""

from __future__ import annotations

import os
from typing import NoReturn


def missing(reason: str) -> NoReturn:
    """Skip the running test for something that is not installed; fail it under EDGEML_REQUIRE_ALL=1."""
    import pytest

    if os.environ.get("EDGEML_REQUIRE_ALL") == "1":
        pytest.fail(f"EDGEML_REQUIRE_ALL=1, but: {reason}", pytrace=False)
    pytest.skip(reason)
