"""Every runtime that an entry point names keeps the contract."""

from __future__ import annotations

import pytest

from edgeml import plugins
from edgeml.testing.runtimes import RuntimeContract


@pytest.mark.parametrize("name", plugins.names(plugins.RUNTIME_GROUP))
class TestEveryRuntime(RuntimeContract):
    @pytest.fixture
    def runtime_name(self, name: str) -> str:
        return name
