"""What is said of a build, and of a start, that takes long."""

from __future__ import annotations

import pytest
from edgeml_devices.emulator.images.build import Progress
from edgeml_devices.emulator.progress_bars import shown_progress, told

STEPS = (
    Progress("note", None, "no image with litert holds edgeml as it is now"),
    Progress("packages", None, "asking the Debian mirror"),
    Progress("packages", 0.5, "bash"),
    Progress("disk", 1.0),
    Progress("snapshot", None, "booting raspberry-pi-4"),
    Progress("snapshot", None, "warming it"),
)


def test_each_step_is_a_line_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_progress() as report:
        for step in STEPS:
            report(step)
    said = capsys.readouterr()
    assert said.err.splitlines() == [STEPS[0].text, "Debian packages", "disk", "snapshot"]
    assert said.out == ""


def test_a_transport_says_once_why_it_takes_long(capsys: pytest.CaptureFixture[str]) -> None:
    report = told("emulator:raspberry-pi-4")
    for step in STEPS:
        report(step)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"emulator:raspberry-pi-4: {STEPS[0].text}"
    assert [line.split(":")[2].split()[-1] for line in lines[1:]] == ["from"]
