"""Labels, spans and points in time, as people write and read them."""

from __future__ import annotations

import pytest
from edgeml_devices.operator.shown import ago, show_labels
from edgeml_devices.typed_options import read_labels, span_s

from edgeml.errors import UsageError


@pytest.mark.parametrize(
    ("passed_s", "text"),
    [
        (0.5, "now"),
        (-60.0, "now"),
        (5.0, "5 s ago"),
        (59.9, "59 s ago"),
        (60.0, "1 min ago"),
        (7200.0, "2 h ago"),
        (90000.0, "1 d ago"),
    ],
)
def test_how_long_ago(passed_s, text):
    assert ago(1000.0 - passed_s, 1000.0) == text


def test_what_never_was():
    assert ago(None, 1000.0) == "never"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("30m", 1800.0), ("1h", 3600.0), ("7d", 604800.0)]
)
def test_a_span_of_time(text, seconds):
    assert span_s(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1.5h", "0h", "1w", "1 h", "²h"])
def test_what_is_no_span(text):
    with pytest.raises(UsageError, match="is no span of time"):
        span_s(text)


def test_labels_are_read_and_shown():
    assert read_labels(["site=berlin", "note=a=b", "empty="]) == {
        "site": "berlin",
        "note": "a=b",
        "empty": "",
    }
    assert show_labels({"site": "berlin", "ring": "a"}) == "ring=a,site=berlin"


@pytest.mark.parametrize("text", ["site", "=berlin", ""])
def test_what_is_no_label(text):
    with pytest.raises(UsageError, match="is no label"):
        read_labels([text])
