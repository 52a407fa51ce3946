"""Models that are Python objects, written to files that the step graph starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from edgeml.arrays import Array
from edgeml.atomic import replacing_file
from edgeml.engine_text import engine_text
from edgeml.errors import ConversionError, EngineMissingError, UsageError
from edgeml.words import ARTIFACT_FILE

SKLEARN_OPSET: Final = 17
"""Read by every engine we pin."""
_LABELS: Final = frozenset({"label", "output_label"})
_ML_ONLY: Final = {
    *("Binarizer", "Imputer", "LinearClassifier", "LinearRegressor", "Normalizer", "Scaler"),
    *("SVMClassifier", "SVMRegressor"),
}
"""Operators of ONNX's domain ai.onnx.ml that skl2onnx can replace, for some estimators, by tensor ones."""


def export_object(model: object, example_inputs: object, output_dir: Path) -> Path:
    """Write a model object to a file in ``output_dir`` and give its path.

    A ``torch.nn.Module`` becomes ``model.pt2`` in this interpreter (its own code is needed for that); a
    fitted scikit-learn estimator becomes ``model.onnx`` for one sample, with float32 input and outputs as
    arrays; of a classifier that gives probabilities or scores these only, in the order of ``classes_``.

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
            f"torch.export cannot export {type(model).__name__}: {engine_text(error)}; "
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
    made = _sklearn_graph(to_onnx, model, examples[0].astype("float32")[:1])
    with replacing_file(target) as scratch:
        scratch.write_bytes(made.SerializeToString())
    return target


def _sklearn_graph(to_onnx: Callable[..., Any], model: Any, example: Array) -> Any:
    """Give the ONNX model, of tensor operators alone where skl2onnx can say it with them."""
    made = None
    for options, without in _attempts(model):
        try:
            made = to_onnx(model, example, options=options, target_opset=SKLEARN_OPSET, black_op=without)
            break
        except Exception as error:  # noqa: BLE001 - it raises many kinds; the last attempt's is told
            failure = error
    if made is None:
        raise ConversionError(
            f"skl2onnx cannot export {type(model).__name__}: {engine_text(failure)}"
        ) from failure
    if hasattr(model, "classes_"):
        _drop_label(made.graph)
    _flatten_biases(made.graph)
    return _one_sample(made)


def _attempts(model: Any) -> Iterator[tuple[dict[int, dict[str, bool]] | None, set[str] | None]]:
    """Give what to ask skl2onnx for, the best first: it refuses options that an estimator does not have."""
    if hasattr(model, "classes_"):
        # probabilities as one array: a list of dictionaries has no counterpart in the other formats
        arrays = {id(model): {"zipmap": False}}
        yield arrays, _ML_ONLY
        yield arrays, None
    yield None, _ML_ONLY
    yield None, None


def _drop_label(graph: Any) -> None:
    """Keep a classifier's numbers only: the label is their maximum, and its lookup exists in ONNX alone."""
    kept = [port for port in graph.output if port.name not in _LABELS]
    if not kept or len(kept) == len(graph.output):
        return
    needed = {port.name for port in kept}
    nodes = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= set(node.input)
    _replace(graph.node, reversed(nodes))
    _replace(graph.output, kept)
    _replace(graph.initializer, [one for one in graph.initializer if one.name in needed])


def _flatten_biases(graph: Any) -> None:
    """Make biases of shape [1,N] vectors, which is what quantizers expect of them."""
    products = {node.output[0] for node in graph.node if node.op_type == "MatMul"}
    biases = {
        name
        for node in graph.node
        if node.op_type == "Add" and products & set(node.input)
        for name in node.input
    }
    for constant in graph.initializer:
        if constant.name in biases and len(constant.dims) == 2 and constant.dims[0] == 1:  # noqa: PLR2004 - rows, columns
            del constant.dims[0]


def _one_sample(made: Any) -> Any:
    """Fix the batch of 1, and give the outputs the shapes that follow from it."""
    import onnx

    for port in (*made.graph.input, *made.graph.output):
        for batch in port.type.tensor_type.shape.dim[:1]:
            batch.dim_value = 1
    _replace(made.graph.value_info, [])
    # skl2onnx lists a domain twice, or ONNX's own not at all, where all operators are of ai.onnx.ml
    versions = {"": SKLEARN_OPSET} | {item.domain: item.version for item in made.opset_import}
    del made.opset_import[:]
    for domain, version in versions.items():
        made.opset_import.add(domain=domain, version=version)
    return onnx.shape_inference.infer_shapes(made)


def _replace(field: Any, items: Iterable[Any]) -> None:
    kept = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(kept)


def _require_fitted(model: Any) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise UsageError(f"the {type(model).__name__} is not fitted; call fit() first") from error
