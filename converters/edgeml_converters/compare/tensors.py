"""Pairs the intermediate tensors of two models and finds the first that diverges.

Tensors pair by name; the rest by shape up to a transposition and by the correlation of their values, each
searched only between its neighbours, since both models hold them in graph order. Tensors that diverge
resemble nothing: what then remains between two pairs is paired by its place. That counts unless what follows
is sound again, since then the two models merely compute it in other steps.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from edgeml import plugins
from edgeml.arrays import Array
from edgeml.errors import EdgemlError
from edgeml.runtime import TensorTap
from edgeml.words import RuntimeName
from edgeml_converters.compare.alignment import align, gaps
from edgeml_converters.compare.outputs import OutputTally
from edgeml_converters.evaluate.accuracy import Naming

SAME_CORRELATION: Final = 0.9
"""Two tensors of one shape whose values correlate less are taken for different ones."""
MAX_RANK: Final = 5
"""Transpositions are tried up to this rank (120 of them)."""
MIN_VALUES: Final = 2
"""A single value resembles every other."""
WINDOW: Final = 40
"""How many of the other model's tensors are looked at for one without a namesake."""

_ADDED = re.compile(
    r"(_DequantizeLinear_Output|_QuantizeLinear_Output|/fq_output_0|/fq_weights_\d+|_dequantized|_quantized)$"
)
"""What quantizers append to the names of the tensors that they wrap."""


@dataclass(frozen=True, slots=True)
class TensorMatch:
    """One tensor of the reference and its like in the other model."""

    name: str
    other: str
    permutation: tuple[int, ...] | None
    """Axes of the reference's tensor in the other's order; ``None`` where the layout is the same."""
    sqnr_db: float
    cosine: float
    max_abs: float
    relative: float
    paired_by: Literal["name", "value", "place"] = "name"
    """``place``: it resembles nothing, and stands where its like must be."""


@dataclass(frozen=True, slots=True)
class _Pair:
    other: str
    permutation: tuple[int, ...]
    by: Literal["name", "value", "place"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a tensor must hold not to count as diverging."""

    sqnr_db: float
    cosine: float

    def held_by(self, match: TensorMatch) -> bool:
        """Say whether a tensor is no further off than this."""
        return match.sqnr_db >= self.sqnr_db and match.cosine >= self.cosine


FLOAT_THRESHOLDS: Final = Thresholds(sqnr_db=40.0, cosine=0.999)
"""Two float engines agree to 100 dB and more on real models; bf16 or TF32 alone keep above 30."""
QUANTIZED_THRESHOLDS: Final = Thresholds(sqnr_db=6.0, cosine=0.9)
"""int8 layers of sound models keep 15–30 dB."""


def tapped_values(
    runtime: RuntimeName | None, artifact: Path, naming: Naming, samples: Sequence[Mapping[str, Array]]
) -> list[dict[str, Array]] | None:
    """Run an artifact with all readable tensors as outputs.

    Returns:
        One mapping of tensor name to values per sample, in graph order; ``None`` if no runtime reads it, or
        the runtime cannot show intermediate tensors or refuses to for this artifact.
    """
    driver = plugins.runtime(runtime) if runtime is not None else None
    if not isinstance(driver, TensorTap):
        return None
    try:
        with driver.load_tapped(artifact) as session:
            return [session.run(naming.fed(sample)) for sample in samples]
    except EdgemlError:
        return None


def match_tensors(
    reference: Sequence[Mapping[str, Array]],
    other: Sequence[Mapping[str, Array]],
    limits: Thresholds = QUANTIZED_THRESHOLDS,
) -> tuple[TensorMatch, ...]:
    """Pair tensors of two models run on the same samples, in the reference's graph order.

    Args:
        reference: tensor name to values, one mapping a sample, in graph order.
        other: the same of the other model.
        limits: what a sound tensor holds.
    """
    if not reference or not other:
        return ()
    left, right = reference[0], other[0]
    bare = {_bare(name): name for name in reversed(list(right))}
    pairs: dict[str, _Pair] = {}
    for name, values in left.items():
        candidate = name if name in right else bare.get(_bare(name))
        if candidate is None or values.size < MIN_VALUES:
            continue
        permutation = _permutation(values, right[candidate])
        if permutation is not None:
            pairs[name] = _Pair(candidate, permutation, "name")
    _pair_by_value(left, right, pairs)
    _pair_by_place(left, right, pairs)
    found = [_measured(name, pairs[name], reference, other) for name in left if name in pairs]
    return tuple(_credible(found, limits))


def first_divergence(matches: Sequence[TensorMatch], limits: Thresholds) -> TensorMatch | None:
    """Give the first tensor, in graph order, that does not hold the thresholds."""
    return next((match for match in matches if not limits.held_by(match)), None)


def _credible(matches: Sequence[TensorMatch], limits: Thresholds) -> Iterator[TensorMatch]:
    """Leave out what was paired by place, is off, and is followed by a tensor that is sound."""
    following = None
    kept = []
    for match in reversed(matches):
        if match.paired_by != "place":
            following = match
        elif not limits.held_by(match) and following is not None and limits.held_by(following):
            continue
        kept.append(match)
    return reversed(kept)


def _bare(name: str) -> str:
    """Strip the port number and what quantizers append."""
    previous = None
    while previous != name:
        previous, name = name, _ADDED.sub("", name)
    return re.sub(r"(:0|\.0)$", "", name)


def _pair_by_value(
    left: Mapping[str, Array],
    right: Mapping[str, Array],
    pairs: dict[str, _Pair],
) -> None:
    """Add pairs for the tensors that have no namesake.

    A tensor before and one after its activation may both resemble the other model's fused one: the closer
    takes it.
    """
    names = list(right)
    places = {name: place for place, name in enumerate(names)}
    named = {pair.other for pair in pairs.values()}
    owners: dict[str, tuple[str, float]] = {}
    below = 0
    for name, values in left.items():
        if name in pairs:
            below = max(below, places[pairs[name].other] + 1)
            continue
        candidates = [one for one in names[below : below + WINDOW] if one not in named]
        best = _most_alike(values, right, candidates, {one: score for one, (_, score) in owners.items()})
        if best is None:
            continue
        candidate, permutation, score = best
        if candidate in owners:
            del pairs[owners[candidate][0]]
        owners[candidate] = (name, score)
        pairs[name] = _Pair(candidate, permutation, "value")
        below = places[candidate]


def _pair_by_place(left: Mapping[str, Array], right: Mapping[str, Array], pairs: dict[str, _Pair]) -> None:
    """Add pairs for what resembles nothing, in graph order between the pairs that are known."""
    names, others = list(left), list(right)
    places = {name: place for place, name in enumerate(others)}
    taken = {pair.other for pair in pairs.values()}
    known = [(place, places[pairs[name].other]) for place, name in enumerate(names) if name in pairs]

    def likeness(name: str, other: str) -> float | None:
        permutation = _permutation(left[name], right[other])
        if permutation is None:
            return None
        values = left[name].transpose(permutation)
        same_sign = bool((values < 0).any()) == bool((right[other] < 0).any())  # both before an activation
        return 1.0 + abs(_correlation(values, right[other])) + float(same_sign)

    for on_left, on_right in gaps(known, len(names), len(others)):
        free = [names[place] for place in on_left if _has_values(left[names[place]])]
        free_others = [
            others[place]
            for place in on_right
            if others[place] not in taken and _has_values(right[others[place]])
        ]
        for name, other in align(free, free_others, likeness):
            permutation = _permutation(left[name], right[other])
            if permutation is not None:
                pairs[name] = _Pair(other, permutation, "place")


def _has_values(values: Array) -> bool:
    return values.size >= MIN_VALUES and np.issubdtype(values.dtype, np.number)


def _most_alike(
    values: Array, right: Mapping[str, Array], candidates: Sequence[str], to_beat: Mapping[str, float]
) -> tuple[str, tuple[int, ...], float] | None:
    if not _has_values(values):
        return None
    best: tuple[str, tuple[int, ...], float] | None = None
    for name in candidates:
        permutation = _permutation(values, right[name])
        if permutation is None:
            continue
        score = _correlation(values.transpose(permutation), right[name])
        enough = score >= SAME_CORRELATION and score > to_beat.get(name, 0.0) + 1e-9
        if enough and (best is None or score > best[2] + 1e-6):
            best = (name, permutation, score)
    return best


def _permutation(left: Array, right: Array) -> tuple[int, ...] | None:
    """Give the axes that bring ``left`` to the shape of ``right`` with the best correlation of values."""
    if left.size != right.size:
        return None
    identity = tuple(range(left.ndim))
    if left.ndim != right.ndim or left.ndim > MAX_RANK:
        return identity if left.shape == right.shape else None
    fitting = [
        axes
        for axes in itertools.permutations(range(left.ndim))
        if tuple(left.shape[axis] for axis in axes) == right.shape
    ]
    if not fitting:
        return None
    if len(fitting) == 1:
        return fitting[0]
    scores = [_correlation(left.transpose(axes), right) for axes in fitting]
    best = int(np.argmax(scores))
    return (
        identity if identity in fitting and scores[fitting.index(identity)] >= scores[best] else fitting[best]
    )


def _correlation(left: Array, right: Array) -> float:
    a = np.nan_to_num(left.reshape(-1).astype(np.float64))
    b = np.nan_to_num(right.reshape(-1).astype(np.float64))
    a, b = a - a.mean(), b - b.mean()
    power = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / power if power else float(np.array_equal(left.reshape(-1), right.reshape(-1)))


def _measured(
    name: str,
    pair: _Pair,
    reference: Sequence[Mapping[str, Array]],
    other: Sequence[Mapping[str, Array]],
) -> TensorMatch:
    tally = OutputTally(name)
    for left, right in zip(reference, other, strict=True):
        tally.add(left[name].transpose(pair.permutation), right[pair.other])
    result = tally.result()
    identity = pair.permutation == tuple(range(len(pair.permutation)))
    return TensorMatch(
        name=name,
        other=pair.other,
        permutation=None if identity else pair.permutation,
        sqnr_db=result.sqnr_db,
        cosine=result.cosine,
        max_abs=result.max_abs,
        relative=result.relative,
        paired_by=pair.by,
    )
