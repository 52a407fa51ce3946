"""The report's pictures as inline SVG, drawn by matplotlib without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgeml_converters.variants.conversion import Outcome
from edgeml_converters.variants.rows import Row, StepTrace

COLOURS: Final[Mapping[str, str]] = {"litert": "#1b6ca8", "onnxruntime": "#d1495b", "openvino": "#2e8b57"}
MARKERS: Final[Mapping[str, str]] = {
    "float32": "o", "float16": "s", "int8_dynamic": "v", "int8_static": "D", "int16x8": "P",
    "int8_weights": "^", "int4_weights": "X",
}  # fmt: skip
WIDTH_INCH: Final = 6.4
LOG_SPAN: Final = 10.0
"""Slowest by fastest latency from which the axis is logarithmic."""
SHOWN_RANGES: Final = 40
"""Calibrated tensors that the picture shows, in graph order."""
SHOWN_CHARACTERS: Final = 34
"""What fits beside the picture."""


def accuracy_against_latency(outcome: Outcome) -> str | None:
    """Draw each measured variant: latency to the right, accuracy (or SQNR) upwards, size as area."""
    metric = outcome.data.metric
    rows = [row for row in outcome.rows if row.measured.latency_ms is not None]
    points = [(row, _height(row, judged=metric is not None)) for row in rows]
    points = [(row, height) for row, height in points if height is not None]
    if not points:
        return None
    figure, axes = _figure(3.6)
    largest = max(row.size_bytes or 1 for row, _ in points)
    for row, height in points:
        latency = row.measured.latency_ms
        axes.scatter(
            latency.p50 if latency else 0.0,
            height,
            s=60 + 540 * (row.size_bytes or 0) / largest,
            color=COLOURS.get(row.runtime, "#666666"),
            marker=MARKERS.get(row.scheme, "o"),
            alpha=0.55 if row.status == "ok" else 0.2,
            edgecolors="black",
            linewidths=0.6,
            label=row.name,
        )
    share = metric is not None and metric.is_share
    latencies = [row.measured.latency_ms.p50 for row, _ in points if row.measured.latency_ms]
    if max(latencies) > LOG_SPAN * min(latencies):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("latency p50, ms")
    axes.set_ylabel(f"{metric.name}{', %' if share else ''}" if metric else "SQNR, dB")
    axes.margins(0.18)
    axes.legend(fontsize=7, markerscale=0.4, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return _svg(figure, "Accuracy against latency; the area is the size")


def parity(steps: Sequence[StepTrace]) -> str | None:
    """Draw how close each step stayed to its source: SQNR of its worst output."""
    known = [(step, min(one.sqnr_db for one in step.outputs)) for step in steps if step.outputs]
    if not known:
        return None
    figure, axes = _figure(0.9 + 0.34 * len(known))
    names = [step.name for step, _ in known]
    values = [min(value, 150.0) for _, value in known]
    colours = ["#1b6ca8" if "float" in step.target else "#d1495b" for step, _ in known]
    axes.barh(range(len(known)), values, color=colours, alpha=0.75)
    axes.set_yticks(range(len(known)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("SQNR against the step's own source, dB (shown up to 150)")
    return _svg(figure, "Parity of each step")


def calibration_ranges(steps: Sequence[StepTrace]) -> str | None:
    """Draw the calibrated range of each tensor of the first step that tells them."""
    told = next((step for step in steps if step.ranges), None)
    if told is None:
        return None
    ranges = list(told.ranges.items())[:SHOWN_RANGES]
    figure, axes = _figure(0.9 + 0.2 * len(ranges))
    for place, (_, (low, high)) in enumerate(ranges):
        axes.plot([low, high], [place, place], color="#1b6ca8", linewidth=4, solid_capstyle="butt")
    axes.set_yticks(range(len(ranges)), [_short(name) for name, _ in ranges], fontsize=6)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xscale("symlog", linthresh=1.0)
    axes.set_xlabel(f"calibrated range, {told.name}")
    return _svg(figure, "Calibrated range of each tensor")


def _height(row: Row, *, judged: bool) -> float | None:
    if not judged:
        return row.measured.sqnr_db
    accuracy = row.measured.accuracy
    if accuracy is None:
        return None
    return 100 * accuracy if row.measured.metric in {"top1", "top5", "auc"} else accuracy


def _figure(height_inch: float) -> tuple[Any, Any]:
    # pyplot would look for a display and keep figures alive; a bare Figure does neither
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCH, height_inch), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(visible=True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any, title: str) -> str:
    """Give an ``<svg>`` element that scales with the page; text stays text."""
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    head, _, rest = text.partition(">")
    attributes = [part for part in head.split("\n") if part]
    kept = " ".join(attributes)
    for name in ("width", "height"):
        before, found, after = kept.partition(f' {name}="')
        if found:
            kept = before + after.partition('"')[2]
    return f'{kept} role="img" aria-label="{title}">{rest}'


def _short(name: str) -> str:
    """Keep the end of a long name; a dollar sign would begin a formula."""
    shown = name if len(name) <= SHOWN_CHARACTERS else f"…{name[1 - SHOWN_CHARACTERS :]}"
    return shown.replace("$", r"\$")
