"""Pictures of telemetry: everything lies within the frame, nothing that was counted is left out."""

from __future__ import annotations

import itertools
import re

import pytest
from edgeml_devices.server.pages.charts import (
    MOST_ROWS,
    Chart,
    Point,
    Series,
    Span,
    distribution,
    heat_map,
    over_time,
)
from hypothesis import given
from hypothesis import strategies as st

from edgeml.telemetry.exponential import histogram_of

DAY = Span(86400.0, 2 * 86400.0, 3600.0)
SECONDS = st.floats(1e-6, 1e3, allow_nan=False)


def numbers(path: str) -> list[float]:
    return [float(one) for one in re.findall(r"-?\d+(?:\.\d+)?", path)]


def assert_framed(chart: Chart) -> None:
    for cell in chart.cells:
        assert chart.left - 0.2 <= cell.x
        assert cell.x + cell.width <= chart.right + 1.1
        assert cell.y >= 0
        assert cell.y + cell.height <= chart.bottom + 1.1
        assert 0 < cell.strength <= 1
    for tick in chart.x_ticks:
        assert chart.left <= tick.place <= chart.right
    for tick in chart.y_ticks:
        assert 0 <= tick.place <= chart.bottom


@given(st.dictionaries(st.integers(0, 23), st.lists(SECONDS, min_size=1, max_size=30), min_size=1))
def test_a_heat_map_shows_each_hour_with_its_fullest_bucket_at_full_strength(
    hours: dict[int, list[float]],
) -> None:
    columns = [(DAY.begin + 3600 * hour, histogram_of(values)) for hour, values in sorted(hours.items())]
    charts = heat_map(columns, DAY)
    assert [one.form for one in charts] == ["wide", "narrow"]
    for chart in charts:
        assert_framed(chart)
        by_column: dict[float, list[float]] = {}
        for cell in chart.cells:
            by_column.setdefault(cell.x, []).append(cell.strength)
        assert len(by_column) == len(hours)
        assert {max(one) for one in by_column.values()} == {1.0}
        assert len({round(cell.y, 1) for cell in chart.cells}) <= MOST_ROWS


@given(st.dictionaries(st.integers(0, 23), st.tuples(SECONDS, st.floats(0, 1), st.floats(0, 9)), min_size=1))
def test_lines_have_a_point_for_each_hour_and_a_gap_where_one_is_missing(
    hours: dict[int, tuple[float, float, float]],
) -> None:
    points = [
        Point(DAY.begin + 3600 * hour, value, value * (1 - low * 0.9), value * (1 + high))
        for hour, (value, low, high) in sorted(hours.items())
    ]
    places = sorted(hours)
    runs = 1 + sum(later - former > 1 for former, later in itertools.pairwise(places))
    for chart in over_time([Series("p50", points)], DAY, may_be_log=True):
        assert_framed(chart)
        (line,) = chart.lines
        assert line.path.count("M") == runs
        assert line.path.count("M") + line.path.count("L") == len(points)
        across = numbers(line.path.replace("h6", ""))[::2]
        assert all(chart.left - 3 <= one <= chart.right for one in across)
        assert all(0 <= one <= chart.bottom for one in numbers(line.path.replace("h6", ""))[1::2])


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=40), st.integers(1, 1000))
def test_a_distribution_has_a_bar_for_each_bin_that_was_seen(counts: list[int], reference: int) -> None:
    charts = distribution(counts, [reference] * len(counts), [str(one) for one in range(len(counts) - 1)])
    assert bool(charts) == any(counts)
    for chart in charts:
        assert_framed(chart)
        assert len(chart.cells) == sum(count > 0 for count in counts)
        (outline,) = chart.lines
        assert outline.path.count("H") == len(counts)


def test_nothing_is_drawn_of_nothing() -> None:
    assert over_time([Series("p50", [])], DAY) == ()
    assert heat_map([(DAY.begin, histogram_of([]))], DAY) == ()
    assert distribution([0, 0], [1, 1], []) == ()
    assert distribution([1, 1], [1, 1, 1], []) == ()


@pytest.mark.parametrize(
    ("days", "first", "last"), [(1, "00:00", "00:00"), (7, "02 Jan", "09 Jan"), (30, "06 Jan", "31 Jan")]
)
def test_times_are_marked_at_whole_hours_or_days(days: int, first: str, last: str) -> None:
    span = Span(86400.0, 86400.0 * (1 + days), 3600.0)
    wide, narrow = over_time([Series("x", [Point(86400.0, 1.0, 1.0, 1.0)])], span)
    texts = [tick.text for tick in wide.x_ticks]
    assert texts[0] == first
    assert len(narrow.x_ticks) <= 5
    assert texts[-1] == last
