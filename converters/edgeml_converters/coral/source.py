"""Any model that can be converted, brought to the int8 TFLite file that the Edge TPU compiler would get."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from edgeml.bundle import open_bundle
from edgeml.errors import UsageError
from edgeml.tensors import Shape
from edgeml_converters.convert import convert
from edgeml_converters.evaluate.golden import save_golden
from edgeml_converters.formats.inspection import inspect_model
from edgeml_converters.formats.shapes import with_shapes
from edgeml_converters.variants.artifact import random_samples

TARGET: Final = "coral-usb"
_SAMPLES: Final = 8
"""Where an operator runs does not depend on the values it is calibrated with."""


def int8_tflite(
    model: Path,
    calibration: str | None,
    input_shapes: Mapping[str, Shape],
    folder: Path,
    progress: Callable[[str], None],
) -> Path:
    """Convert a model to int8 TFLite with int8 inputs and outputs; gives the file, in ``folder``.

    Args:
        model: in any format that is converted.
        calibration: data, as ``edgeml convert --calibration`` takes them; none: drawn.
        input_shapes: sizes of free dimensions, by input name.
        folder: an empty one, for what is made.
        progress: is called with what is being done.

    Raises:
        ModelFileError: damaged or foreign.
        UsageError: without data, the inputs of a format that nothing here reads are not known.
        ConversionError: it cannot be made int8.
    """
    result = convert(
        model,
        targets=TARGET,
        runtimes="litert",
        schemes="int8_static",
        io_dtype="int8",
        calibration=calibration or _drawn(model, input_shapes, folder),
        input_shapes=input_shapes,
        golden=1,
        measure=False,
        drift_reference=False,
        compile_edgetpu=False,
        output=folder / "model.edgeml",
        progress=progress,
    )
    result.require_variants()
    bundle, made = open_bundle(folder / "model.edgeml"), folder / "model.tflite"
    (variant,) = bundle.manifest.variants
    made.write_bytes(bundle.read(variant.files[0].path))
    return made


def _drawn(model: Path, input_shapes: Mapping[str, Shape], folder: Path) -> str:
    inputs = with_shapes(inspect_model(model).inputs, input_shapes)
    if not inputs:
        raise UsageError(
            f"{model}: its inputs cannot be read here; give --calibration, a few samples of its data"
        )
    return str(save_golden(folder / "drawn.npz", random_samples(inputs, _SAMPLES)))
