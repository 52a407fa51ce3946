"""What a model was made to see: bin edges and counts that travel in the bundle, under ``drift``.

A device counts its inputs between these edges. Counts of windows and of devices add up, and any of the sums
can be held against the reference (docs/reference/drift.md).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Final

from edgeml import typed_json
from edgeml.errors import BundleError, MessageError
from edgeml.telemetry.report import MOST_FEATURES, OTHER

BINS: Final = 32
"""Of a feature that takes more values than that."""
MOST_BINS: Final = 256
MOST_FREQUENCIES: Final = 256
CONFIDENCE: Final = "output:confidence"
"""Under which a window counts confidences against ``Reference.confidence``, beside its input features."""
LEVELS: Final = (0.1, 0.01, 0.001, 1e-5, 1e-8)
"""False-positive rates that a :class:`Null` gives the critical values of."""
_DIGEST: Final = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Null:
    """What comes of ``size`` values that did not drift: critical values at ``LEVELS``, by statistic.

    All are in units that hardly change with the sample size, so that values between two sizes may be
    interpolated: see :mod:`edgeml.telemetry.drift`.
    """

    size: int
    w1: tuple[float, ...] = ()
    ks: tuple[float, ...] = ()
    chi2: tuple[float, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FeatureReference:
    """The distribution of one number."""

    name: str
    edges: tuple[float, ...]
    """Rising. Bin 0 holds what is below the first, bin ``i`` values from ``edges[i-1]`` on and below
    ``edges[i]``, the last what is at or above the last edge, and what is no number."""
    counts: tuple[int, ...]
    """In the reference data: one more than there are edges."""
    mean: float = 0.0
    std: float = 0.0
    """0: all values were the same."""
    discrete: bool = False
    """Each value that occurs has a bin to itself: the counts say all there is to say."""
    nulls: tuple[Null, ...] = ()
    """By rising size."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many values the reference was made of."""
        return sum(self.counts)

    def bin(self, value: float) -> int:
        """Give the place in the counts where a value is counted."""
        return bisect_right(self.edges, value)

    def count(self, values: Iterable[float]) -> tuple[int, ...]:
        """Count values, as a window carries them in ``features``."""
        counts = [0] * (len(self.edges) + 1)
        for value in values:
            counts[bisect_right(self.edges, value)] += 1
        return tuple(counts)


@dataclass(frozen=True, slots=True)
class JointReference:
    """All features together, as the mean of random Fourier features (docs/reference/drift.md).

    A row of features is standardised, ``z = (x - mean) / std`` held within ±``CLIP``, and becomes
    ``cos(w·z), sin(w·z)`` of each frequency ``w``, which ``seed`` and ``scale`` give.
    """

    seed: int
    frequencies: int
    scale: float
    """Length over which two rows lose their likeness, in standard deviations: the median distance."""
    features: tuple[str, ...]
    """In this order; all of them must be there for a row to count."""
    mean: tuple[float, ...]
    """Of the reference: all cosines, then all sines."""
    std: tuple[float, ...]
    """Of single rows, the same way; all above 0."""
    spectrum: tuple[float, ...]
    """Eigenvalues of the correlation of the ``2 * frequencies`` numbers, largest first."""
    count: int
    """Rows that the mean was made of."""
    nulls: tuple[float, ...] = ()
    """Critical values at ``LEVELS`` of :func:`edgeml.telemetry.drift.joint_distance`."""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a model's inputs and answers look like when all is well. The default says nothing."""

    count: int = 0
    """Inferences that it was made of."""
    features: tuple[FeatureReference, ...] = ()
    """Of the inputs, as ``edgeml.telemetry.features`` names them."""
    classes: Mapping[str, int] = field(default_factory=dict)
    """Predicted label or index, as text; rare ones together as ``other``."""
    class_nulls: tuple[Null, ...] = ()
    """``chi2`` of ``classes``, in the order that they stand in, ``other`` last."""
    confidence: FeatureReference | None = None
    """Of the predicted class."""
    joint: JointReference | None = None
    digest: str = ""
    """16 hex digits: names this reference in reports."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Render as ``8 features and 12 classes of 2,000 inferences (0123456789abcdef)``."""
        kinds = ((len(self.features), "feature", "features"), (len(self.classes), "class", "classes"))
        parts = [f"{count} {one if count == 1 else many}" for count, one, many in kinds if count]
        return f"{' and '.join(parts) or 'nothing'} of {self.count:,} inferences ({self.digest})"

    def counted(self) -> tuple[FeatureReference, ...]:
        """Give all that a device counts between edges: features, and the confidence if there is one."""
        return self.features if self.confidence is None else (*self.features, self.confidence)

    def class_names(self) -> tuple[str, ...]:
        """Give the classes in the order of their counts, ``other`` last."""
        return (*(name for name in self.classes if name != OTHER), OTHER)


def with_digest(reference: Reference) -> Reference:
    """Name a reference by its content."""
    plain = typed_json.write(replace(reference, digest=""))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return replace(reference, digest=hashlib.sha256(text.encode()).hexdigest()[:16])


def reference_to_json(reference: Reference) -> dict[str, Any]:
    """Give what stands in a manifest under ``drift``."""
    return typed_json.write(reference)


def reference_from_json(drift: Mapping[str, Any], where: str = "drift") -> Reference | None:
    """Read ``drift`` of a manifest; ``None`` if it has no reference. Unknown fields are kept.

    Raises:
        BundleError: a field of a wrong type, or numbers that fit no reference; names the field.
    """
    if not drift:
        return None
    try:
        reference = typed_json.read(Reference, dict(drift), where)
        _check(reference, where)
    except MessageError as error:
        raise BundleError(f"{error}; make the bundle again, or leave its reference out") from error
    return reference


# --- what a stranger may send


def _check(reference: Reference, where: str) -> None:
    if not _DIGEST.fullmatch(reference.digest):
        raise MessageError(f"{where}: digest: must be 16 hex digits, got {reference.digest!r:.40}")
    if len(reference.features) > MOST_FEATURES:
        raise MessageError(f"{where}: {len(reference.features)} features, at most {MOST_FEATURES}")
    names = [one.name for one in reference.features]
    if len(set(names)) != len(names):
        raise MessageError(f"{where}: two features of one name")
    for one in reference.counted():
        _check_feature(one, f"{where}: {one.name!r:.60}")
    if any(count < 0 for count in (reference.count, *reference.classes.values())):
        raise MessageError(f"{where}: a count below 0")
    _check_nulls(reference.class_nulls, f"{where}: class_nulls")
    if reference.joint is not None:
        _check_joint(reference.joint, reference, f"{where}: joint")


def _check_feature(one: FeatureReference, where: str) -> None:
    if len(one.counts) > MOST_BINS or len(one.counts) != len(one.edges) + 1:
        raise MessageError(
            f"{where}: {len(one.counts)} counts for {len(one.edges)} edges, at most {MOST_BINS} and one more "
            "than edges"
        )
    rising = all(low < high for low, high in pairwise(one.edges))
    if not rising or not all(map(math.isfinite, (*one.edges, one.mean, one.std))):
        raise MessageError(f"{where}: edges that do not rise, or numbers without bound")
    if min(one.counts) < 0 or one.total == 0 or one.std < 0:
        raise MessageError(f"{where}: counts below 0, or none")
    _check_nulls(one.nulls, where)


def _check_nulls(nulls: tuple[Null, ...], where: str) -> None:
    sizes = [0, *(null.size for null in nulls)]
    if any(low >= high for low, high in pairwise(sizes)):
        raise MessageError(f"{where}: sizes of nulls that do not rise from 1")
    for null in nulls:
        for values in (null.w1, null.ks, null.chi2):
            _check_levels(values, where)


def _check_levels(values: tuple[float, ...], where: str) -> None:
    rising = all(low <= high for low, high in pairwise(values))
    if len(values) not in {0, len(LEVELS)} or not rising or not all(map(math.isfinite, values)):
        raise MessageError(f"{where}: must have {len(LEVELS)} critical values that rise")


def _check_joint(joint: JointReference, reference: Reference, where: str) -> None:
    known = {one.name for one in reference.features}
    if not 0 < joint.frequencies <= MOST_FREQUENCIES or joint.scale <= 0 or joint.count < 1:
        raise MessageError(f"{where}: from 1 to {MOST_FREQUENCIES} frequencies, scale and count above 0")
    if not set(joint.features) <= known or not joint.features:
        raise MessageError(f"{where}: features that the reference does not have")
    numbers = [getattr(joint, one.name) for one in fields(joint) if one.name in {"mean", "std", "spectrum"}]
    for values in numbers:
        if len(values) != 2 * joint.frequencies or not all(map(math.isfinite, values)):
            raise MessageError(f"{where}: must have two numbers for each frequency")
    if min(joint.std) <= 0:
        raise MessageError(f"{where}: std: must be above 0")
    _check_levels(joint.nulls, where)
