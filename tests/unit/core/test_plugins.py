"""Drivers found by entry point."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from edgeml import plugins
from edgeml.errors import EngineMissingError


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Register the runtime ``probe``; gives the file that is imported for it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "probe_driver", raising=False)
    entry = EntryPoint("probe", "probe_driver:Probe", plugins.RUNTIME_GROUP)
    monkeypatch.setattr(plugins, "_entries", lambda *_: (entry,))
    return tmp_path / "probe_driver.py"


def test_an_engine_that_is_not_there_is_named_with_its_install(driver: Path) -> None:
    driver.write_text("import engine_of_nobody")
    with pytest.raises(EngineMissingError, match="needs 'engine_of_nobody', which is not installed"):
        plugins.runtime("probe")


def test_an_engine_that_lacks_a_library_says_which(driver: Path) -> None:
    driver.write_text("raise ImportError('libtbb.so.12: cannot open shared object file')")
    with pytest.raises(
        EngineMissingError, match=r"probe cannot be imported: libtbb.so.12: .*install it anew"
    ):
        plugins.runtime("probe")


def test_a_mistake_of_edgemls_own_is_no_missing_engine(driver: Path) -> None:
    driver.write_text("from edgeml.errors import NoSuchError")
    with pytest.raises(ImportError, match="NoSuchError"):
        plugins.runtime("probe")
