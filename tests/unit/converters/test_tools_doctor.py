"""The doctor knows the tools of conversion."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path

import pytest
from edgeml_converters.doctor import TOOLS, tool_checks

from edgeml.doctor import GROUP
from edgeml.engines import wanted_range
from tests.fake_edgetpu_compiler import V16, fake_compiler


def test_every_tool_is_looked_at_and_a_missing_one_comes_with_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)

    found = tool_checks()[: len(TOOLS)]

    assert [check.name for check in found] == [package.name for package in TOOLS]
    for check, package in zip(found, TOOLS, strict=True):
        assert (check.status, check.remedy) == ("missing", f"pip install '{package.install}'")


@pytest.mark.parametrize("package", TOOLS, ids=lambda package: package.name)
def test_each_tool_has_a_version_range_in_what_the_room_asks_for(package) -> None:
    assert wanted_range("edgeml-converters", package.distribution)


def test_the_edge_tpu_compiler_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_EDGETPU_COMPILER", "no_such_compiler")
    missing = tool_checks()[-1]
    assert (missing.name, missing.status) == ("edgetpu_compiler", "missing")
    assert "--compiler-via ssh://USER@HOST" in missing.remedy
    monkeypatch.setenv("EDGEML_EDGETPU_COMPILER", str(shutil.which("true")))
    assert tool_checks()[-1].status == "broken"
    fake = fake_compiler(tmp_path / "tools")
    monkeypatch.setenv("EDGEML_EDGETPU_COMPILER", str(fake.path))
    found = tool_checks()[-1]
    assert (found.status, found.detail) == ("ok", f"{V16}, {fake.path}")


def test_the_doctor_finds_them_by_entry_point() -> None:
    (entry,) = metadata.entry_points(group=GROUP, name="tools")

    assert entry.load() is tool_checks
