"""The doctor knows the tools of conversion."""

from __future__ import annotations

from importlib import metadata

import pytest
from edgeml_converters.doctor import TOOLS, tool_checks

from edgeml.doctor import GROUP
from edgeml.engines import wanted_range


def test_every_tool_is_looked_at_and_a_missing_one_comes_with_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)

    found = tool_checks()

    assert [check.name for check in found] == [package.name for package in TOOLS]
    for check, package in zip(found, TOOLS, strict=True):
        assert (check.status, check.remedy) == ("missing", f"pip install '{package.install}'")


@pytest.mark.parametrize("package", TOOLS, ids=lambda package: package.name)
def test_each_tool_has_a_version_range_in_what_the_room_asks_for(package) -> None:
    assert wanted_range("edgeml-converters", package.distribution)


def test_the_doctor_finds_them_by_entry_point() -> None:
    (entry,) = metadata.entry_points(group=GROUP, name="tools")

    assert entry.load() is tool_checks
