"""What a conversion came to, and which of its variants are looked into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeml.findings import Finding
from edgeml.words import FLOATS
from edgeml_converters.search.choose import Choice, best_of, loss
from edgeml_converters.search.turned_down import holds
from edgeml_converters.variants.make import Maker
from edgeml_converters.variants.prepare import SourceModel
from edgeml_converters.variants.request import Request
from edgeml_converters.variants.rows import Row


@dataclass(frozen=True, slots=True)
class Pair:
    """A runtime's float32 variant and what quantization made of it."""

    before: Row
    after: Row


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a conversion came to, before it is written down."""

    request: Request
    source: SourceModel
    rows: tuple[Row, ...]
    choices: tuple[Choice, ...]
    data: Maker
    """What made the rows, for the data that it judged them by and what it tried."""
    findings: tuple[Finding, ...]
    """About the data and the conversion as a whole; each row has its own besides."""
    machine: str
    """Class of the machine that measured."""
    interrupted: bool = False
    """A search that was told to stop: of what was known by then."""

    def chosen_for(self, row: Row) -> tuple[str, ...]:
        """Give the targets that a row was chosen for."""
        return tuple(choice.target for choice in self.choices if choice.variant == row.name)

    def detailed_rows(self) -> tuple[Row, ...]:
        """Give what was chosen and the best quantized variant of each runtime, in the table's order.

        What was compiled for an accelerator is left out: its outputs are those of its source.
        """
        quantized = [self._best_quantized(runtime) for runtime in self._runtimes()]
        wanted = {row.name for row in quantized if row is not None} | {one.variant for one in self.choices}
        return tuple(row for row in self.rows if row.name in wanted and row.accelerator is None)

    def pairs(self) -> Iterator[Pair]:
        """Give float32 and the best quantized variant of each runtime that has both."""
        for runtime in self._runtimes():
            made = (row for row in self.rows if row.runtime == runtime and row.is_made)
            before = next((row for row in made if row.scheme == "float32"), None)
            after = self._best_quantized(runtime)
            if before is not None and after is not None:
                yield Pair(before, after)

    def _runtimes(self) -> Sequence[str]:
        return list(dict.fromkeys(row.runtime for row in self.rows))

    def _best_quantized(self, runtime: str) -> Row | None:
        """Give a runtime's quantized variant that was chosen, or would be, or that loses least."""
        own = [row for row in self.rows if row.runtime == runtime and row.accelerator is None]
        made = [row for row in own if row.is_made and row.scheme not in FLOATS]
        chosen = [row for row in made if self.chosen_for(row)]
        good = chosen or [row for row in made if holds(row, self.request.gates)]
        return best_of(good, self.request.objective) if good else min(made, key=loss, default=None)
