"""What the workers' scripts have in common, run by their interpreters: standard library, numpy and h5py.

``job.py`` puts this folder, and nothing else of edgeml, where the scripts can import from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any


class RefusedError(Exception):
    """The model asks for what was not allowed, or cannot be converted as it is."""


class UnsafeError(Exception):
    """The file holds code."""


def refuse_code(source: Path, *, trust_code: bool) -> None:
    """Refuse a Keras .h5 file with Python code in it before anything could run it."""
    import h5py

    with h5py.File(source, "r") as file:
        text = file.attrs.get("model_config")
    if text is None:
        raise RefusedError(
            f"{source.name} holds weights only, no model; save the whole model with model.save(…)"
        )
    config = json.loads(text.decode() if isinstance(text, bytes) else text)
    for layer in layers(config):
        if layer.get("class_name") == "Lambda" and not trust_code:
            name = (layer.get("config") or {}).get("name", "?")
            raise UnsafeError(
                f"{source.name} holds Python code (Lambda layer {name!r}) that would run when it is loaded; "
                f"if you trust whoever made the file, add --trust-code"
            )


def layers(node: Any) -> Iterator[dict[str, Any]]:
    """Walk every layer of a Keras model's configuration."""
    if isinstance(node, dict):
        if "class_name" in node:
            yield node
        for value in node.values():
            yield from layers(value)
    elif isinstance(node, list):
        for value in node:
            yield from layers(value)


def given_shape(name: str, wanted: Mapping[str, Sequence[int]], count: int) -> Sequence[int] | None:
    """Give the shape that the user fixed for one of ``count`` inputs; ``""`` names the only one."""
    return wanted.get(name) or (wanted.get("") if count == 1 else None)


def static_shape(name: str, own: Sequence[int | None] | None, given: Sequence[int] | None) -> list[int]:
    """Give the sides of an input, the batch 1 unless asked otherwise; ``own`` is None where it is unknown."""
    if given is not None and own is not None:
        fits = len(given) == len(own) and all(a in (None, b) for a, b in zip(own, given, strict=True))
        if not fits:
            raise RefusedError(
                f"input {name!r} has the shape {_text(own)}, which cannot be made {_text(given)}; "
                f"correct --input-shape"
            )
    sides = given if given is not None else own
    if sides is None:
        raise RefusedError(f"input {name!r} has no known shape; give it: --input-shape {name}=1,224,224,3")
    sides = [1 if position == 0 and side is None else side for position, side in enumerate(sides)]
    if None in sides:
        example = ",".join("224" if side is None else str(side) for side in sides)
        raise RefusedError(
            f"input {name!r} has the free dimensions {_text(own or ())}; give their sizes, for example: "
            f"--input-shape {name}={example}"
        )
    return [side for side in sides if side is not None]


def static_shapes(
    inputs: Mapping[str, Sequence[int | None] | None], wanted: Mapping[str, Sequence[int]]
) -> tuple[dict[str, list[int]], list[str]]:
    """Give the sides of every input, and a note for each that was not static."""
    for name in wanted:
        if name not in inputs and not (name == "" and len(inputs) == 1):
            what = f"a shape for {name!r}" if name else "a shape without a name"
            raise RefusedError(f"{what} was given, but the inputs are: {', '.join(inputs)}")
    shapes = {
        name: static_shape(name, own, given_shape(name, wanted, len(inputs))) for name, own in inputs.items()
    }
    notes = [
        f"input {name}: shape fixed to {shapes[name]}"
        for name, own in inputs.items()
        if own is None or None in own
    ]
    return shapes, notes


def run_samples(
    request: Mapping[str, Any],
    inputs: Sequence[str],
    outputs: Sequence[str],
    model: Callable[[list[Any]], Sequence[Any]],
) -> None:
    """Run the source on the request's samples, if it has any, one at a time as the artifact will be.

    Args:
        request: the job.
        inputs: names in the order in which ``model`` takes their arrays.
        outputs: names in the order in which it gives theirs.
        model: runs one sample, a list of arrays with a batch of 1.
    """
    import numpy as np

    if not request.get("samples"):
        return
    with np.load(request["samples"], allow_pickle=False) as given:
        arrays = {name: given[name] for name in given.files}
    if len(inputs) == 1 and len(arrays) == 1:
        arrays = {inputs[0]: next(iter(arrays.values()))}
    missing = [name for name in inputs if name not in arrays]
    if missing:
        raise RefusedError(f"the samples hold no {missing[0]!r}; they hold: {', '.join(arrays)}")
    rows = [
        model([arrays[name][index : index + 1] for name in inputs]) for index in range(len(arrays[inputs[0]]))
    ]
    columns: dict[str, Any] = {
        name: np.concatenate(column) for name, column in zip(outputs, zip(*rows, strict=True), strict=True)
    }
    np.savez(request["source_outputs"], **columns)


def versions(*names: str) -> dict[str, str]:
    """Give the versions of those distributions that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _text(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("?" if side is None else str(side) for side in shape) + ")"
