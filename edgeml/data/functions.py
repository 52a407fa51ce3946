"""Samples from a user's function: ``module:function`` or ``file.py:function``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeml.arrays import Array
from edgeml.data.labels import plain_labels, read_label_file
from edgeml.data.reader import RawSample, combined_sha256
from edgeml.errors import DataError, UsageError
from edgeml.tensors import TensorSpec

PAIR: Final = 2


class FunctionReader:
    """What a function yields; it is called again for each pass, so it must start afresh each time.

    Opening reads it once, to count, to hash and to collect the labels of (x, y) pairs.
    """

    def __init__(
        self,
        source: str,
        inputs: tuple[TensorSpec, ...],
        keys: Mapping[str, str],
        labels: str | None,
        names: tuple[str, ...],
    ) -> None:
        self._source = source
        self._inputs = inputs
        self._keys = keys
        self._function = load_function(source)
        self._digest = hashlib.sha256()
        self._count = 0
        self._known: list[bytes] = []
        """Hash of each sample with its label, as it was at first."""
        collected: list[Array] = []
        for sample, label in self._pass():
            self._count += 1
            self._known.append(_hash_of(sample, label))
            self._digest.update(self._known[-1])
            if label is not None:
                collected.append(label)
        if collected and len(collected) != self._count:
            raise DataError(
                f"{source}: {len(collected)} of {self._count} samples have a label; give all or none"
            )
        self.label_names: tuple[str, ...] = names
        self.labels: Array | None = self._stack(collected) if collected else None
        if labels is not None:
            self.labels, self.label_names = read_label_file(Path(labels), self._count, names)

    def __len__(self) -> int:
        return self._count

    def read(self, indices: Sequence[int]) -> Iterator[RawSample]:
        wanted = iter(indices)
        index = next(wanted, None)
        seen = 0
        for sample, label in self._pass():
            if seen == index:
                if _hash_of(sample, label) != self._known[seen]:
                    raise DataError(
                        f"{self._source}: gives other samples each time, sample {seen} is not what it was at "
                        "first; it must give the same in the same order (set the seed of what is random)"
                    )
                yield sample
                index = next(wanted, None)
                if index is None:
                    return
            seen += 1
        if index is not None:
            raise DataError(
                f"{self._source}: gave {self._count} samples at first and {seen} now; "
                "it must give the same samples each time it is called, not one generator that runs out"
            )

    def name_of(self, index: int) -> str:
        return f"sample {index}"

    def digest(self) -> str:
        labels = None if self.labels is None else self.labels.tolist()
        return combined_sha256([self._digest.hexdigest(), labels])

    def _pass(self) -> Iterator[tuple[RawSample, Array | None]]:
        try:
            for item in self._iterate():
                yield from _samples(item, self._inputs, self._keys, self._source)
        except (DataError, UsageError):
            raise
        except Exception as error:
            raise DataError(f"{self._source} failed: {type(error).__name__}: {error}") from error

    def _iterate(self) -> Iterable[Any]:
        made = self._function()
        if callable(made) and not isinstance(made, Iterable):
            made = made()
        if not isinstance(made, Iterable):
            raise DataError(
                f"{self._source}: gave {type(made).__name__}, it must give an iterable of samples"
            )
        return made

    def _stack(self, labels: list[Array]) -> Array:
        if len({label.shape for label in labels}) > 1:
            raise DataError(f"{self._source}: labels have different shapes")
        return plain_labels(np.stack(labels), self._source)


def load_function(source: str) -> Callable[[], Any]:
    """Import a user's function; the current folder counts as importable.

    Raises:
        DataError: the module or the function is not there, or importing it fails.
    """
    head, _, name = source.rpartition(":")
    try:
        module = _load_file(Path(head)) if head.endswith(".py") else _load_module(head)
    except Exception as error:
        raise DataError(f"{source}: cannot import {head}: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise DataError(f"{source}: {head} has no function {name!r}")
    return function  # type: ignore[no-any-return] # whatever the user's module holds


def _load_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _load_module(name: str) -> Any:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(here)


def _samples(
    item: Any, inputs: tuple[TensorSpec, ...], keys: Mapping[str, str], source: str
) -> Iterator[tuple[RawSample, Array | None]]:
    values, label = _split_pair(item, source)
    if isinstance(values, Mapping):
        there = {str(key): value for key, value in values.items()}
        wanted = {spec.name: keys.get(spec.name, spec.name) for spec in inputs}
        missing = [key for key in wanted.values() if key not in there]
        if missing:
            raise DataError(f"{source}: a sample has no {missing[0]!r}; there are: {', '.join(there)}")
        arrays = {name: _array(there[key], source) for name, key in wanted.items()}
    elif len(inputs) == 1:
        arrays = {inputs[0].name: _array(values, source)}
    else:
        told = ", ".join(spec.name for spec in inputs)
        raise DataError(f"{source}: the model has several inputs, yield dicts with the keys {told}")
    size = _batch_size(arrays, inputs)
    if size is None:
        yield arrays, label
        return
    if label is not None and (label.ndim == 0 or len(label) != size):
        raise DataError(f"{source}: a batch of {size} samples has labels of shape {label.shape}")
    for index in range(size):
        sample = {name: array[index] for name, array in arrays.items()}
        yield sample, None if label is None else label[index]


def _split_pair(item: Any, source: str) -> tuple[Any, Array | None]:
    if not isinstance(item, tuple):
        return item, None
    if len(item) != PAIR:
        raise DataError(f"{source}: gave a tuple of {len(item)}; yield an array, a dict, or a pair (x, y)")
    return item[0], _array(item[1], source)


def _array(value: Any, source: str) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{source}: gave {type(value).__name__}, which is not an array of numbers")
    return array


def _batch_size(arrays: Mapping[str, Array], inputs: tuple[TensorSpec, ...]) -> int | None:
    """Give the size of a batch of samples, ``None`` for a single sample."""
    specs = {spec.name: spec for spec in inputs}
    if any(arrays[name].ndim != len(specs[name].shape) or arrays[name].ndim < PAIR for name in arrays):
        return None
    sizes = {array.shape[0] for array in arrays.values()}
    return sizes.pop() if len(sizes) == 1 and sizes != {1} else None


def _hash_of(sample: RawSample, label: Array | None) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    arrays = sample if label is None else {**sample, " label": label}
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()
