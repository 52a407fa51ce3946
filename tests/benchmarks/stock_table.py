"""The tables of docs/benchmarks.md: edgeml's choices beside the results of the engines' own quantizers.

``python -m tests.benchmarks.stock_table FOLDER [MODEL…]`` makes what is not in FOLDER yet, and writes the
tables into the page, between the comments that mark their place. Needs the tests' data folder and workers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Final

from edgeml.targets import host
from tests.benchmarks.search_cost import Cost, search_cost
from tests.benchmarks.stock_comparison import AGAIN, RUNTIMES, Comparison, Entry, compare
from tests.benchmarks.stock_making import FLOAT, MAX_DROP, OURS, Making
from tests.benchmarks.stock_models import MODELS
from tests.conftest import DATA, REPOSITORY

PAGE: Final = REPOSITORY / "docs" / "benchmarks.md"
BEGIN, END = "<!-- made by make bench-stock -->", "<!-- end of what is made -->"
HEAD: Final = (
    "model", "runtime", "float", "best stock tool", "its drop", "× float",
    "edgeml chose", "its drop", "× float", "latency, edgeml ÷ stock", "two equal files",
)  # fmt: skip
DETAILS: Final = ("accuracy", "drop", "SQNR", "one call", "edgeml ÷ it", "size", "made in")
ENGINES: Final = {
    "LiteRT": "ai-edge-litert",
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "NNCF": "nncf",
    "AI Edge Quantizer": "ai-edge-quantizer",
}


def tables(found: Sequence[Comparison], cost: Cost) -> str:
    """Give all that is made, as Markdown."""
    machine = host()
    tools = ", ".join(f"{name} {version(package)}" for name, package in ENGINES.items())
    lines = [
        f"Machine: `{machine.name}` ({machine.cpu or machine.title}), {machine.cores} cores. {tools}.",
        "",
        *_head(HEAD),
        *map(_summary, found),
        "",
        _search(cost),
    ]
    for name, model in MODELS.items():
        of_model = [one for one in found if one.model == name]
        if of_model:
            lines += ["", f"### {model.title}", "", f"{model.samples[0].upper()}{model.samples[1:]}."]
            lines += [line for one in of_model for line in _details(one)]
    return "\n".join(lines)


def _head(names: Sequence[str]) -> Iterator[str]:
    yield f"| {' | '.join(names)} |"
    yield f"| {' | '.join('---' for _ in names)} |"


def _summary(one: Comparison) -> str:
    base, ours, stock = one.entry(FLOAT), one.entry(OURS), one.best_stock
    cells = [one.model, one.runtime, f"{base.accuracy:.1f} %"]
    if stock is None:
        cells += ["none holds the gate", "–", "–"]
    else:
        cells += [stock.label, _points(one.drop(stock)), _over_float(one, stock)]
    name = one.chosen.removeprefix(f"{one.runtime}-")
    cells += [f"`{name}`", _points(one.drop(ours)), _over_float(one, ours)]
    ratio = "–" if stock is None or stock.ratio is None else f"{1 / stock.ratio:.2f}"
    return f"| {' | '.join([*cells, f'**{ratio}**', f'{one.entry(AGAIN).ratio:.2f}'])} |"


def _details(one: Comparison) -> Iterator[str]:
    yield ""
    yield from _head((one.runtime, *DETAILS))
    for entry in one.entries:
        made = "–" if entry.seconds is None else f"{entry.seconds:.1f} s"
        if entry.error:
            yield f"| {entry.label} | failed: {_plain(entry.error)} | | | | | | {made} |"
        elif entry.label != AGAIN:
            yield _row(one, entry, made)


def _row(one: Comparison, entry: Entry, made: str) -> str:
    drop = one.drop(entry)
    broken = entry.label != FLOAT and drop > MAX_DROP
    label = f"**edgeml: `{one.chosen}`**" if entry.label == OURS else entry.label
    cells = [
        label,
        f"{entry.accuracy:.1f} %",
        f"**{_points(drop)}**" if broken else _points(drop),
        "–" if entry.sqnr_db is None else f"{entry.sqnr_db:.1f} dB",
        _time(entry.latency_us),
        f"{1 / entry.ratio:.2f}" if entry.ratio else "–",
        f"{(entry.size_bytes or 0) / 1000:,.0f} kB",
        made,
    ]
    return f"| {' | '.join(cells)} |"


def _search(cost: Cost) -> str:
    words = (
        f"`edgeml convert --scheme auto --max-drop {MAX_DROP}` for MobileNetV2 from ONNX, all three runtimes"
    )
    data = "50 calibration and 450 evaluation images as files, nothing in the cache"
    taken = f"{cost.seconds:.0f} s, {cost.cpu_seconds:.0f} s of CPU"
    return f"{words}, {data}: {taken}, at most {cost.peak_bytes / 1e9:.2f} GB resident in all its processes."


def _points(drop: float) -> str:
    return f"{0.0 if abs(drop) < 0.005 else drop:.2f}".replace("-", "−")


def _over_float(one: Comparison, entry: Entry) -> str:
    base = one.entry(FLOAT).ratio
    assert base is not None
    assert entry.ratio is not None
    return f"{entry.ratio / base:.2f}"


def _time(latency_us: float | None) -> str:
    if latency_us is None:
        return "–"
    return f"{latency_us:.1f} µs" if latency_us < 1000 else f"{latency_us / 1000:.2f} ms"


def _plain(text: str) -> str:
    """Leave out what a table cannot hold, and where on this machine something stands."""
    words = ("…" if "/" in word else word for word in text.replace("|", " ").split())
    return " ".join(words)[:120]


def main() -> None:
    """Make the tables."""
    folder = Path(sys.argv[1]).absolute()
    names = sys.argv[2:] or list(MODELS)
    folder.mkdir(parents=True, exist_ok=True)
    makings = [Making(name, runtime, folder) for name in names for runtime in RUNTIMES]
    for making in makings:
        making.made()
        print(f"made {making.name} for {making.runtime}", flush=True)
    found = []
    for making in makings:
        found.append(compare(making))
        print(_summary(found[-1]), flush=True)
    cost = search_cost(DATA, folder)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables(found, cost)}\n\n{END}{rest.partition(END)[2]}")
    print(json.dumps(asdict(cost)))


if __name__ == "__main__":
    main()
