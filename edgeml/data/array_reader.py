"""Which arrays of an ``.npz`` or ``.npy`` are the samples of which input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgeml.arrays import Array
from edgeml.data.arrays import (
    PLAIN_KINDS,
    Member,
    members,
    npy_member,
    read_samples,
    samples_in,
)
from edgeml.data.labels import DEFAULT_KEYS, read_label_array, read_label_file
from edgeml.data.reader import RawSample, combined_sha256, file_sha256
from edgeml.errors import DataError, UsageError
from edgeml.tensors import TensorSpec


class ArrayReader:
    """Samples along the first axis of arrays in one file."""

    def __init__(
        self,
        path: Path,
        selection: str,
        inputs: tuple[TensorSpec, ...],
        keys: Mapping[str, str],
        labels: str | None,
        names: tuple[str, ...],
    ) -> None:
        self._path = path
        found = members(path) if path.suffix == ".npz" else {"": npy_member(path)}
        input_key, _, label_key = selection.partition(",")
        if input_key:
            if len(inputs) != 1:
                told = ", ".join(spec.name for spec in inputs)
                raise UsageError(
                    f"{path}:{selection}: one key for several inputs ({told}); map them by inputs"
                )
            keys = {inputs[0].name: input_key, **keys}
        self._label_key = _label_key(found, label_key or labels)
        self._chosen = {
            spec.name: (_choose(found, spec, inputs, keys, self._label_key, path), spec) for spec in inputs
        }
        self._count = self._agreed_count()
        if self._label_key is not None and input_key and not (label_key or labels):
            self._label_key = _if_theirs(found[self._label_key], self._label_key, self._count)
        self._label_file = Path(labels) if labels and self._label_key is None else None
        self.labels, self.label_names = self._read_labels(found, names)

    def __len__(self) -> int:
        return self._count

    def read(self, indices: Sequence[int]) -> Iterator[RawSample]:
        return read_samples(self._chosen, indices)

    def name_of(self, index: int) -> str:
        return f"sample {index}"

    def digest(self) -> str:
        arrays = {name: member.key for name, (member, _) in self._chosen.items()}
        files = [file_sha256(self._path)]
        if self._label_file is not None:
            files.append(file_sha256(self._label_file))
        return combined_sha256([files, arrays, self._label_key])

    def _agreed_count(self) -> int:
        counts = {name: samples_in(member, spec) for name, (member, spec) in self._chosen.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise DataError(f"{self._path}: inputs have different numbers of samples: {told}")
        return next(iter(counts.values()))

    def _read_labels(
        self, found: Mapping[str, Member], names: tuple[str, ...]
    ) -> tuple[Array | None, tuple[str, ...]]:
        if self._label_file is not None:
            return read_label_file(self._label_file, self._count, names)
        if self._label_key is None:
            return None, names
        return read_label_array(found[self._label_key], self._count, names)


def _label_key(found: Mapping[str, Member], wanted: str | None) -> str | None:
    if wanted is None:
        return next((key for key in DEFAULT_KEYS if key in found), None)
    if wanted in found:
        return wanted
    if Path(wanted).suffix in {".npy", ".txt"}:
        return None
    path = next(iter(found.values())).path if found else Path()
    raise DataError(f"{path}: no array {wanted!r}; there are: {', '.join(found) or 'none'}")


def _if_theirs(labels: Member, key: str, count: int) -> str | None:
    """Give the key of labels that nobody named, if they are as many as the samples; others have theirs."""
    return key if labels.shape[:1] == (count,) else None


def _choose(
    found: Mapping[str, Member],
    spec: TensorSpec,
    inputs: tuple[TensorSpec, ...],
    keys: Mapping[str, str],
    label_key: str | None,
    path: Path,
) -> Member:
    there = ", ".join(found) or "none"
    wanted = keys.get(spec.name, spec.name)
    if wanted in found:
        member = found[wanted]
    elif spec.name in keys:
        raise DataError(f"{path}: no array {wanted!r} for input {spec.name!r}; there are: {there}")
    else:
        candidates = [key for key in found if key != label_key and found[key].shape]
        if len(inputs) > 1 or len(candidates) != 1:
            raise DataError(
                f"{path}: no array is called like input {spec.name!r}; there are: {there}. "
                f"Name it: {path.name}:KEY or {path.name}:KEY,LABELS"
                + (f", or map it in [inputs]: {spec.name} = KEY" if len(inputs) > 1 else "")
            )
        member = found[candidates[0]]
    if member.dtype.kind not in PLAIN_KINDS:
        raise DataError(f"{member}: holds texts, input {spec.name!r} takes {spec.dtype}")
    return member
