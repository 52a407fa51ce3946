"""Other settings of static int8, and a cheap look at what each would give.

The list is short and tried whole: biases corrected or not, times the rules for ranges that a runtime's
quantizer does not choose among by itself. A look costs one making and a pass over a few calibration samples;
only what comes closer to float there is judged on the evaluation data.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

from edgeml.converter import CalibrationMethod, ConversionStep, QuantizerSettings, Sample
from edgeml.errors import ConversionError
from edgeml.words import RuntimeName
from edgeml_converters.compare.outputs import compared, worst_sqnr_db
from edgeml_converters.evaluate.spool import Spool
from edgeml_converters.variants.artifact import Artifact, runs_here
from edgeml_converters.variants.make import Maker

LOOK_SAMPLES: Final = 64
METHODS: Final[Mapping[RuntimeName, tuple[CalibrationMethod, ...]]] = {
    "litert": ("default", "minmax"),
    "onnxruntime": ("default",),
    "openvino": ("default", "percentile"),
}
"""Rules for ranges. LiteRT's ``minmax`` is another tool, with integer forms of more operators; NNCF has one
set of ranges by default; what is not listed is among those that ``default`` chooses from."""


@dataclass(frozen=True, slots=True)
class Look:
    """What settings give on a few calibration samples."""

    settings: QuantizerSettings
    sqnr_db: float
    """Of the worst output, to a tenth."""
    lost: str = ""
    """Why the result is not to be used, whatever else is said of it."""


@dataclass(slots=True)
class Onlooker:
    """Makes artifacts and compares each with the float model on the same few calibration samples."""

    steps: Sequence[ConversionStep]
    maker: Maker
    _reference: Spool | None = field(default=None, init=False)

    @property
    def samples(self) -> int:
        """How many are looked at."""
        return len(range(0, self._count, self._stride))

    @property
    def _count(self) -> int:
        return len(self.maker.calibration_spool or ())

    @property
    def _stride(self) -> int:
        """How far apart they stand in the calibration data, which are often sorted by class."""
        return max(1, -(-self._count // LOOK_SAMPLES))

    def look(self, settings: QuantizerSettings) -> Look:
        """Make and compare.

        Raises:
            EdgemlError: it could not be made, or nothing here runs it.
        """
        made = self.maker.executor.make(self.steps, settings, self.maker.calibration_spool, lost=True)
        try:
            reference = self._outputs(made)
            self.maker.executor.tell(f"look at {self.samples} samples")
            found = worst_sqnr_db(compared(reference, map(made.run, self._samples())))
        finally:
            made.release()
        if found is None:
            raise ConversionError(f"{made.path.name}: there is nothing to compare it on")
        return Look(settings, round(found, 1), str(made.lost or ""))

    def told(self, look: Look, without: Look) -> str:
        """Say how a look compares with one at other settings."""
        return f"{look.sqnr_db:.1f} dB on {self.samples} samples, {without.sqnr_db:.1f} without"

    def _samples(self) -> Iterator[Sample]:
        return islice(self.maker.calibration_spool or (), 0, None, self._stride)

    def _outputs(self, made: Artifact) -> Spool:
        """Give what the source, or the first float model that runs here, makes of the samples; run once."""
        if self._reference is None:
            model = next(one for one in made.lineage() if runs_here(one.state.format))
            folder = Path(tempfile.mkdtemp(prefix="looks-", dir=self.maker.executor.scratch))
            self._reference = Spool.of(folder / "outputs", map(model.run, self._samples()))
            if model is not self.maker.executor.source:
                model.release()
        return self._reference


def candidates(runtime: RuntimeName, settings: QuantizerSettings) -> tuple[QuantizerSettings, ...]:
    """Give the other settings to try; a rule for ranges that was asked for by name stays."""
    methods = METHODS[runtime] if settings.method == "default" else (settings.method,)
    corrections = (False,) if settings.reduce_range else (True, False)
    every = (
        replace(settings, bias_correction=corrected, method=method)
        for corrected in corrections
        for method in methods
    )
    return tuple(one for one in every if one != settings)


def in_words(settings: QuantizerSettings, instead_of: QuantizerSettings) -> str:
    """Say what differs."""
    said = []
    if settings.bias_correction != instead_of.bias_correction:
        said.append("biases take back what rounded weights add")
    if settings.method != instead_of.method:
        said.append(f"ranges are set by {settings.method}")
    return " and ".join(said)
