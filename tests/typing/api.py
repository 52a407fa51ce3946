"""What a user's type checker sees; mypy checks this file, nothing runs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

import edgeml
from edgeml.bundle import Bundle, open_bundle, write_bundle
from edgeml.formats import identify
from edgeml.manifest import Manifest
from edgeml.pipeline import Prediction
from edgeml.settings import Settings, settings
from edgeml.words import Format

if TYPE_CHECKING:
    from edgeml_devices.emulator.machine.machine import Machine

    from edgeml.arrays import Array
    from edgeml.testing.devices import EmulatedMachine


def use(x: Array, path: Path, manifest: Manifest) -> None:
    """Use the public names as a caller would."""
    with edgeml.load("kws", threads=2) as model:
        assert_type(model, edgeml.Model)
        assert_type(model(x), Any)
        assert_type(model.run({"x": x}), "dict[str, Array]")
        assert_type(model.predict(x), Prediction)
        assert_type(model.predict(x).label, str | None)
        assert_type(model.spec.inputs, tuple[edgeml.TensorSpec, ...])
        assert_type(model.spec.inputs[0].quantization, edgeml.Quantization | None)
        assert_type(model.release, int | None)
        assert_type(model.variant, str | None)
        model.defer(60.0)
    edgeml.load(path, runtime="litert", variant="litert-float32")
    edgeml.load("kws", follow=False)
    edgeml.load(path, thread=2)  # type: ignore[call-arg] # a misspelt option is an error
    model.release = 3  # type: ignore[misc] # it says what is loaded

    assert_type(open_bundle(path), Bundle)
    assert_type(open_bundle(path).read("labels.txt"), bytes)
    assert_type(write_bundle(path, manifest, {"labels.txt": path}), Manifest)
    assert_type(identify(path), Format)
    assert_type(settings(), Settings)
    try:
        edgeml.load("kws")
    except edgeml.EdgemlError as error:
        assert_type(error.exit_code, int)


def play(machine: Machine) -> EmulatedMachine:
    """What the plug-in for pytest says of machines holds of them."""
    return machine
