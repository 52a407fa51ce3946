"""Models that are Python objects, written to files that the step graph starts from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeml.atomic import replacing_file
from edgeml.errors import ConversionError, EngineMissingError, UsageError
from edgeml.tensors import Array
from edgeml.words import ARTIFACT_FILE
from edgeml_converters.steps.step import first_line

SKLEARN_OPSET = 17
"""Read by every engine we pin."""


def export_object(model: object, example_inputs: object, output_dir: Path) -> Path:
    """Write a model object to a file in ``output_dir`` and give its path.

    A ``torch.nn.Module`` becomes ``model.pt2`` in this interpreter (its own code is needed for that); a
    fitted scikit-learn estimator becomes ``model.onnx`` with float32 input and outputs as arrays.

    Args:
        model: the object.
        example_inputs: one array or tensor, or a sequence of them, each with its batch dimension.
        output_dir: an existing folder.

    Raises:
        UsageError: another kind of object, or examples that do not fit it.
        EngineMissingError: what exports it is not installed.
        ConversionError: the export failed.
    """
    if not output_dir.is_dir():
        raise UsageError(f"no such folder: {output_dir}")
    kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(model).__mro__]
    if "torch.nn.modules.module.Module" in kinds:
        return _export_torch(model, _examples(example_inputs), output_dir / ARTIFACT_FILE["pt2"])
    if "sklearn.base.BaseEstimator" in kinds:
        return _export_sklearn(model, _examples(example_inputs), output_dir / ARTIFACT_FILE["onnx"])
    if any(kind.startswith(("keras.", "tf_keras.")) for kind in kinds):
        raise UsageError(f"a {kinds[0]} object: save it with model.save('model.keras') and convert that file")
    raise UsageError(
        f"a {kinds[0]} cannot be converted; give a torch.nn.Module, a fitted scikit-learn estimator, "
        f"or the path of a model file"
    )


def _examples(given: object) -> list[Any]:
    values = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not values or any(not hasattr(value, "shape") for value in values):
        raise UsageError("example_inputs: give one array or tensor per input, each with its batch dimension")
    return values


def _export_torch(model: Any, examples: list[Any], target: Path) -> Path:
    import torch

    tensors = tuple(
        value if isinstance(value, torch.Tensor) else torch.as_tensor(value) for value in examples
    )
    training = bool(model.training)
    try:
        program = torch.export.export(model.eval(), tensors)
        with replacing_file(target) as scratch:
            torch.export.save(program, scratch)
    except OSError:
        raise
    except Exception as error:
        raise ConversionError(
            f"torch.export cannot export {type(model).__name__}: {first_line(error)}; "
            f"see that model(*example_inputs) runs and has no Python control flow over values"
        ) from error
    finally:
        model.train(training)
    return target


def _export_sklearn(model: Any, examples: list[Array], target: Path) -> Path:
    try:
        from skl2onnx import to_onnx
    except ModuleNotFoundError as error:
        raise EngineMissingError(
            "a scikit-learn estimator needs 'skl2onnx', which is not installed. "
            "Install it: pip install 'edgeml-converters[sklearn]'"
        ) from error
    if len(examples) != 1 or len(examples[0].shape) != 2:  # noqa: PLR2004 - samples × features
        raise UsageError("a scikit-learn estimator takes one example input of shape [samples, features]")
    _require_fitted(model)
    example = examples[0].astype("float32")[:1]
    # probabilities as one array: a list of dictionaries has no counterpart in the other formats
    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
    try:
        made = to_onnx(model, example, options=options, target_opset=SKLEARN_OPSET)
    except Exception as error:
        raise ConversionError(
            f"skl2onnx cannot export {type(model).__name__}: {first_line(error)}"
        ) from error
    with replacing_file(target) as scratch:
        scratch.write_bytes(made.SerializeToString())
    return target


def _require_fitted(model: Any) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise UsageError(f"the {type(model).__name__} is not fitted; call fit() first") from error
