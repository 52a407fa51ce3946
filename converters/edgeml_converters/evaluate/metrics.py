"""Metrics of a model on labelled data: streamed, one sample at a time."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from edgeml.arrays import Array
from edgeml.errors import DataError, UsageError


class Tally(Protocol):
    """A metric under way."""

    def add(self, outputs: Mapping[str, Array], label: Any) -> None:
        """Take one sample's outputs, batch dimension included, and its label."""
        ...

    def value(self) -> float:
        """Give the metric over the samples so far.

        Raises:
            DataError: the samples do not allow it (none at all; one class only for AUC), or it is NaN or
                infinite.
        """
        ...


@dataclass(frozen=True, slots=True)
class Metric:
    """A way to judge outputs against labels."""

    name: str
    start: Callable[[], Tally]
    higher_is_better: bool = True
    is_share: bool = True
    """Between 0 and 1, so that a difference is told in percentage points."""
    needs_labels: bool = True
    predicted: Callable[[Mapping[str, Array]], int | None] | None = None
    """Reads from a sample's outputs the class that they say, as labels count it; ``None``: it judges none."""

    def drop_points(self, reference: float, value: float) -> float:
        """How much worse ``value`` is than ``reference``; negative where it is better.

        Percentage points for shares; per cent of the reference for everything else.
        """
        worse = reference - value if self.higher_is_better else value - reference
        if self.is_share:
            return 100.0 * worse
        if reference == 0:
            return 0.0 if worse == 0 else float(np.copysign(np.inf, worse))
        return 100.0 * worse / abs(reference)

    def show(self, value: float | None) -> str:
        """Render a value for a person."""
        if value is None:
            return "–"
        return f"{100 * value:.1f} %" if self.is_share else f"{value:.4g}"


class _TopK:
    """Share of samples whose label is among the k largest scores.

    Of equal scores the first is the larger, as argmax takes them; a sample with NaN among its scores is a
    miss.
    """

    def __init__(self, k: int, output: str | None, label_offset: int) -> None:
        self._k, self._output, self._offset = k, output, label_offset
        self._hits = self._count = 0

    def add(self, outputs: Mapping[str, Array], label: Any) -> None:
        scores = pick_output(outputs, self._output).reshape(-1)
        wanted = class_of(label) + self._offset
        self._count += 1
        if scores.size == 1 and scores.dtype.kind in "iu":  # the class itself, as scikit-learn's models give
            self._hits += int(scores[0]) == wanted
            return
        if not 0 <= wanted < scores.size:
            raise DataError(
                f"label {class_of(label)}"
                + (f" with label_offset {self._offset}" if self._offset else "")
                + f" is none of the output's {scores.size} classes"
            )
        if scores.dtype.kind == "f" and np.isnan(scores).any():
            return
        own = scores[wanted]
        before = int((scores > own).sum()) + int((scores[:wanted] == own).sum())
        self._hits += before < self._k

    def value(self) -> float:
        return self._hits / _positive(self._count)


class _Auc:
    """Area under the ROC curve; of more than two classes the mean of one against the rest."""

    def __init__(self, output: str | None, label_offset: int) -> None:
        self._output, self._offset = output, label_offset
        self._scores: list[Array] = []
        self._labels: list[int] = []

    def add(self, outputs: Mapping[str, Array], label: Any) -> None:
        scores = pick_output(outputs, self._output).reshape(-1)
        self._scores.append(scores.astype(np.float32, copy=True))
        self._labels.append(class_of(label) + (self._offset if scores.size > 1 else 0))

    def value(self) -> float:
        _positive(len(self._labels))
        scores, labels = np.stack(self._scores), np.asarray(self._labels)
        lost = int(np.isnan(scores).any(axis=1).sum())
        if lost:
            raise DataError(
                f"the scores of {lost} of {len(labels)} samples came out as NaN; auc ranks scores"
            )
        if scores.shape[1] == 1:
            return _binary_auc(scores[:, 0], labels > 0)
        classes = [1] if scores.shape[1] == 2 else sorted(set(self._labels))  # noqa: PLR2004 - two classes
        return float(np.mean([_binary_auc(scores[:, one], labels == one) for one in classes]))


class _Error:
    """Mean of a distance between the output and a label of the same size."""

    def __init__(self, power: int, output: str | None) -> None:
        self._power, self._output = power, output
        self._sum, self._count = 0.0, 0

    def add(self, outputs: Mapping[str, Array], label: Any) -> None:
        given = pick_output(outputs, self._output).astype(np.float64).reshape(-1)
        wanted = np.asarray(label, np.float64).reshape(-1)
        if given.size != wanted.size:
            raise DataError(
                f"a label holds {wanted.size} values and the output {given.size}; "
                "mse and mae need labels of the output's size"
            )
        self._sum += float((np.abs(given - wanted) ** self._power).mean())
        self._count += 1

    def value(self) -> float:
        mean = self._sum / _positive(self._count)
        if not math.isfinite(mean):
            raise DataError(
                f"the error over {self._count} samples is {mean}: outputs came out as NaN or infinite"
            )
        return mean


class _Mean:
    """Mean of what the user's function gives for each sample."""

    def __init__(self, function: Callable[[Mapping[str, Array], Any], float], name: str) -> None:
        self._function, self._name = function, name
        self._sum, self._count = 0.0, 0

    def add(self, outputs: Mapping[str, Array], label: Any) -> None:
        try:
            given = float(self._function(outputs, label))
        except Exception as error:
            raise DataError(
                f"metric {self._name} failed on sample {self._count}: {type(error).__name__}: {error}; "
                "it is called as function(outputs, label) and gives a number"
            ) from error
        if not math.isfinite(given):
            raise DataError(
                f"metric {self._name} gave {given} for sample {self._count}; it has to give a number "
                "for every sample, for outputs with NaN, too"
            )
        self._sum += given
        self._count += 1

    def value(self) -> float:
        return self._sum / _positive(self._count)


NAMES: Final = ("top1", "top5", "auc", "mse", "mae")


def open_metric(name: str, output: str | None = None, label_offset: int = 0) -> Metric:
    """Give a metric by name.

    Args:
        name: one of ``NAMES``, or ``module:function``. A function is called as
            ``function(outputs, label)`` for each sample and gives a number; the metric is their mean. It is
            taken as an error to be kept low if it carries an attribute ``lower_is_better = True``.
        output: the output that is judged; ``None``: the only one or the first.
        label_offset: class = index of the output − offset.

    Raises:
        UsageError: no such metric, or a function that cannot be imported.
    """
    match name:
        case "top1" | "top5":
            k = int(name.removeprefix("top"))
            return Metric(
                name,
                lambda: _TopK(k, output, label_offset),
                predicted=lambda outputs: _predicted(outputs, output, label_offset),
            )
        case "auc":
            return Metric(name, lambda: _Auc(output, label_offset))
        case "mse" | "mae":
            power = 2 if name == "mse" else 1
            return Metric(name, lambda: _Error(power, output), higher_is_better=False, is_share=False)
    if ":" not in name:
        raise UsageError(f"no metric {name!r}; known: {', '.join(NAMES)}, or module:function")
    function = _imported(name)
    lower = bool(getattr(function, "lower_is_better", False))
    return Metric(
        name, lambda: _Mean(function, name), higher_is_better=not lower, is_share=False, needs_labels=False
    )


def pick_output(outputs: Mapping[str, Array], name: str | None) -> Array:
    """Give the output that a metric judges.

    Raises:
        UsageError: the model has no output of that name.
    """
    if name is None:
        return next(iter(outputs.values()))
    if name in outputs:
        return outputs[name]
    raise UsageError(f"no output {name!r}; outputs are: {', '.join(outputs)}")


def _predicted(outputs: Mapping[str, Array], output: str | None, label_offset: int) -> int | None:
    """Give the class of the largest score, of equal ones the first; ``None`` where a score is NaN."""
    scores = pick_output(outputs, output).reshape(-1)
    if scores.size == 1 and scores.dtype.kind in "iu":
        return int(scores[0]) - label_offset
    if scores.size == 0 or (scores.dtype.kind == "f" and np.isnan(scores).any()):
        return None
    return int(scores.argmax()) - label_offset


def class_of(label: Any) -> int:
    """Give a label as a class index.

    Raises:
        DataError: it is not one whole number.
    """
    array = np.asarray(label)
    if array.size != 1:
        raise DataError(
            f"a label has the shape {array.shape}, a class is one whole number; give class indices "
            "(argmax of one-hot labels), or take the metric mse or mae"
        )
    number = float(array.reshape(()))
    if not number.is_integer():
        raise DataError(f"label {number:g} is not a class; give whole numbers, or take the metric mse or mae")
    return int(number)


def _imported(name: str) -> Callable[[Mapping[str, Array], Any], float]:
    module_name, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"metric {name!r} cannot be imported: {error}; it is given as module:function"
        ) from (error)
    if not callable(function):
        raise UsageError(f"metric {name!r} is a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]  # a user's function has no declared type


def _positive(count: int) -> int:
    if count == 0:
        raise DataError("the evaluation data hold no samples")
    return count


def _binary_auc(scores: Array, positive: Array) -> float:
    """Mann-Whitney: the share of (positive, negative) pairs in the right order, ties counting half."""
    count = int(positive.sum())
    others = positive.size - count
    if count == 0 or others == 0:
        raise DataError("auc needs samples of at least two classes; the evaluation data hold one")
    _, inverse, repeats = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(repeats) - (repeats - 1) / 2)[inverse]
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))
