"""The public API as a user types it: mypy strict reads this file, nothing runs it."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import numpy as np

import edgeml
from edgeml.tensors import Array


def three_lines(picture: Array) -> Array:
    model = edgeml.load("digits-1.edgeml")
    assert_type(model, edgeml.Model)
    return np.asarray(model(picture))


def named_inputs(model: edgeml.Model, picture: Array) -> Array:
    outputs = model.run({"image": picture})
    assert_type(outputs, dict[str, Array])
    return outputs["scores"]


def from_a_path(path: Path) -> str:
    with edgeml.load(path) as model:
        return f"{model.name} takes {model.spec.inputs[0]}"


def release(model: edgeml.Model) -> int:
    assert_type(model.release, int | None)
    return model.release or 0


def answer(model: edgeml.Model, picture: Array) -> str:
    prediction = model.predict(picture)
    return prediction.best.label or str(prediction.best.index)


def refused(model: edgeml.Model, picture: Array) -> str:
    try:
        model(picture)
    except edgeml.EdgemlError as error:
        return str(error)
    return ""
