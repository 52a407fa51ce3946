"""Classes are drawn against the reference in the grouping that they were counted in."""

from __future__ import annotations

import pytest
from edgeml_devices.server.pages.queries.drift import _draw
from edgeml_devices.server.telemetry.drift import DriftTally
from edgeml_devices.server.telemetry.store import WindowRow

from edgeml.telemetry.reference import Reference, with_digest
from edgeml.telemetry.report import ModelWindow

REFERENCE = with_digest(Reference(100, classes={"cat": 60, "dog": 30, "eel": 10}))


@pytest.mark.parametrize(
    ("told", "names"),
    [
        ({"cat": 30, "dog": 15, "eel": 5}, ["cat", "dog", "eel", "other"]),
        ({"cat": 30, "other": 20}, ["cat", "other"]),
    ],
)
def test_classes_are_drawn_whether_rare_ones_were_counted_together(told, names) -> None:
    window = ModelWindow("kws", 1, calls=50, classes=told, reference=REFERENCE.digest)
    references = {REFERENCE.digest: REFERENCE}
    tally = DriftTally(references)
    tally.add([WindowRow(60.0, 60.0, "pi", "host", window)])
    (shown,) = _draw(tally.findings(), references)
    wide, _ = shown.charts
    assert [tick.text for tick in wide.x_ticks] == names
