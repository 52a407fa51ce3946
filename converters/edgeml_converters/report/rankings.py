"""What 8 bits take from each activation, as a part of the report and as a page of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import edgeml
from edgeml_converters.report import charts
from edgeml_converters.report.charts import Bar
from edgeml_converters.report.templates import template
from edgeml_converters.search.outcome import Outcome
from edgeml_converters.sensitivity.models import Ranking
from edgeml_converters.sensitivity.noise import Sensitivity
from edgeml_converters.variants.rows import Row

TEMPLATE: Final = "sensitivity.html.jinja"
SHOWN: Final = 20
"""Activations that stand open on the page; the others unfold."""


@dataclass(frozen=True, slots=True)
class PageRanking:
    """One ranking, the worst first."""

    title: str
    bars: tuple[Bar, ...]
    reason: str = ""
    """Why there are none."""
    mixed: str = ""
    """The variant that keeps some of them in float."""

    @property
    def open(self) -> tuple[Bar, ...]:
        """Those that are shown at once."""
        return self.bars[:SHOWN]

    @property
    def folded(self) -> tuple[Bar, ...]:
        """Those that unfold."""
        return self.bars[SHOWN:]


def page_rankings(outcome: Outcome) -> Iterator[PageRanking]:
    """Give the rankings that accuracy control made."""
    for name, activations in outcome.data.rankings.items():
        mixed = _mixed(name, outcome.rows)
        kept = frozenset(mixed.settings.float_tensors) if mixed is not None else frozenset()
        yield PageRanking(
            name, charts.ranking(activations, kept), mixed=mixed.name if mixed is not None else ""
        )


def sensitivity_page(model: Path, rankings: Sequence[Ranking]) -> str:
    """Give what ``edgeml sensitivity`` found as one HTML document."""
    shown = [PageRanking(one.runtime, charts.ranking(one.activations), one.reason) for one in rankings]
    return str(template(TEMPLATE).render(model=model.name, rankings=shown, version=edgeml.__version__))


def ranking_document(activations: Sequence[Sensitivity]) -> list[dict[str, Any]]:
    """Give a ranking as what ``json.dumps`` takes."""
    return [
        {"tensor": one.tensor, "sqnr_db": round(one.sqnr_db, 2), "range": [one.low, one.high]}
        for one in activations
    ]


def _mixed(name: str, rows: Sequence[Row]) -> Row | None:
    """Give the variant that keeps in float what is ranked under ``name``."""
    ranked = next((row for row in rows if row.name == name), None)
    for row in rows:
        if ranked is not None and row.settings.float_tensors and _is_like(row, ranked):
            return row
    return None


def _is_like(row: Row, other: Row) -> bool:
    pairs = ((one.runtime, one.scheme, one.settings.reduce_range) for one in (row, other))
    return next(pairs) == next(pairs)
