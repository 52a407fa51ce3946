"""Which format a model file has, by its content, and whether it is whole: before any engine sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from edgeml.archive import READ_ERRORS, open_zip
from edgeml.errors import ModelFileError, UnsafeFileError
from edgeml.flatbuffer import Bytes
from edgeml.wire import (
    hdf5_end,
    mapped,
    message,
    onnx_external_data,
    openvino_weights_end,
    tflite_end,
)
from edgeml.words import RUNTIME_OF_FORMAT, Format

TITLE: Final[dict[Format, str]] = {
    "onnx": "an ONNX model",
    "tflite": "a TFLite file",
    "openvino": "an OpenVINO model",
    "savedmodel": "a TensorFlow SavedModel",
    "keras": "a Keras model",
    "pt2": "a PyTorch exported program",
}
SAVED_MODEL_FILE: Final = "saved_model.pb"
XML_LIMIT_BYTES: Final = 512 * 1024 * 1024
_HEAD_BYTES: Final = 4096
_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
_IR_VERSION, _GRAPH, _OPSETS = 1, 7, 8
"""Fields of onnx.proto's ModelProto."""
_FOREIGN: Final[tuple[tuple[bytes, str], ...]] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the model: run git lfs pull"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (
        b"\x80\x02",
        "a pickle (.pth, .pkl): loading it would run code; export the model with torch.export.save",
    ),
    (b"\x80\x03", "a pickle: loading it would run code; export the model with torch.export.save"),
    (b"\x80\x04", "a pickle: loading it would run code; export the model with torch.export.save"),
    (b"\x93NUMPY", "a numpy array, not a model"),
)


def identify(path: Path) -> Format:
    """Say which format a model file or folder has; its name does not count.

    Raises:
        ModelFileError: missing, empty, a Git LFS pointer, cut off before the format shows, or foreign.
        UnsafeFileError: a zip with unsafe members.
    """
    if path.is_dir():
        if (path / SAVED_MODEL_FILE).is_file():
            return "savedmodel"
        raise ModelFileError(f"{path}: a folder without {SAVED_MODEL_FILE}; give the model's file")
    head = _head(path)
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            raise ModelFileError(f"{path}: {what}")
    if head[4:8] == b"TFL3":
        return "tflite"
    if head[4:8] == b"ORTM":
        raise ModelFileError(
            f"{path}: an .ort file, which fits one machine only; give the .onnx it was made of"
        )
    if head.startswith(_HDF5):
        return "keras"
    if head.startswith(_ZIP):
        return _identify_zip(path)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] == b"<":
        return _identify_markup(path, text)
    return _identify_protobuf(path, head)


def check_file(path: Path, expected: Format) -> None:
    """Check that a file or folder is whole and of one format.

    Raises:
        ModelFileError: as :func:`identify`; of another format; cut off (says how many bytes are there);
            or a file that belongs to it is missing.
        UnsafeFileError: it refers to files outside its folder, declares XML entities, or is a zip with
            unsafe members.
    """
    found = identify(path)
    if found != expected:
        reader = RUNTIME_OF_FORMAT.get(expected)
        needs = "needed is" if reader is None else f"runtime {reader} needs"
        raise ModelFileError(f"{path}: this is {TITLE[found]}, {needs} {TITLE[expected]}")
    try:
        _CHECKS[found](path)
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error


def _head(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise ModelFileError(f"{path}: a pipe or device, not a file; save it to a file first")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError:
        raise ModelFileError(f"no such file: {path}") from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    if not head:
        raise ModelFileError(f"{path}: file is empty; copy it again from its source")
    return head


def _identify_zip(path: Path) -> Format:
    with open_zip(path) as archive:
        names = archive.namelist()
        if "config.json" in names and any(name.startswith("model.weights") for name in names):
            return "keras"
        if any(name.rpartition("/")[2] == "archive_format" for name in names):
            return "pt2"
        if "serialized_exported_program.json" in names:
            return "pt2"
    if any(name.endswith("data.pkl") for name in names):
        raise ModelFileError(
            f"{path}: a PyTorch checkpoint or TorchScript, not an exported program; "
            "save the model with torch.export.save"
        )
    if names[:1] == ["manifest.json"]:
        raise ModelFileError(f"{path}: an edgeml bundle, not a model file; see edgeml bundle inspect {path}")
    raise ModelFileError(f"{path}: a zip, but neither a Keras model nor a PyTorch exported program")


def _identify_markup(path: Path, text: bytes) -> Format:
    if b"<net" in text:
        return "openvino"
    start = text[:512].lower()
    if b"<html" in start or start.startswith(b"<!doctype html"):
        raise ModelFileError(f"{path}: a web page, not a model: download the file itself")
    openvino_weights_end(path, _read_xml(path))
    return "openvino"


def _identify_protobuf(path: Path, head: bytes) -> Format:
    if path.name == SAVED_MODEL_FILE:
        raise ModelFileError(f"{path}: part of a TensorFlow SavedModel; give its folder, {path.parent}")
    if head[:1] != b"\x08" and head[:1] not in {b"\x12", b"\x3a", b"\x42"}:
        _reject_unknown(path)
    numbers: set[int] = set()
    with mapped(path) as data:
        try:
            for field in message(path, data, 0, len(data)):
                numbers.add(field.number)
        except ModelFileError:
            # without a plausible beginning it is not a damaged ONNX file, but something else
            if not numbers & {_IR_VERSION, _GRAPH} or head[:1] != b"\x08":
                _reject_unknown(path)
            raise
    if _IR_VERSION not in numbers:
        _reject_unknown(path)
    if _GRAPH not in numbers or _OPSETS not in numbers:
        what = "graph" if _GRAPH not in numbers else "operator set"
        raise ModelFileError(
            f"{path}: truncated: an ONNX file without its {what}; copy it again from its source"
        )
    return "onnx"


def _reject_unknown(path: Path) -> NoReturn:
    known = ", ".join(title.split(" ", 1)[1] for title in TITLE.values())
    raise ModelFileError(f"{path}: not a model in a known format ({known})")


# --- checks of whole files


def _check_onnx(path: Path) -> None:
    with mapped(path) as data:
        external = onnx_external_data(path, data)
    folder = path.parent.resolve()
    for tensor in external:
        place = path.parent / tensor.location
        if Path(tensor.location).is_absolute() or not place.resolve().is_relative_to(folder):
            raise UnsafeFileError(
                f"{path}: its weights point to {tensor.location!r}, outside its folder; "
                "refused, do not trust its source"
            )
        if not place.is_file():
            raise ModelFileError(f"{path}: {tensor.location} is missing beside the model; copy both files")
        size_bytes, needs = place.stat().st_size, tensor.offset + tensor.length
        if size_bytes < needs:
            raise ModelFileError(f"{place}: truncated: {size_bytes} of at least {needs} bytes; copy it again")


def _check_tflite(path: Path) -> None:
    with mapped(path) as data:
        _check_end(path, data, tflite_end(path, data))


def _check_openvino(path: Path) -> None:
    needs = openvino_weights_end(path, _read_xml(path))
    weights = path.with_suffix(".bin")
    if not needs:
        return
    if not weights.is_file():
        raise ModelFileError(f"{path}: {weights.name} is missing beside the model; copy both files")
    size_bytes = weights.stat().st_size
    if size_bytes < needs:
        raise ModelFileError(f"{weights}: truncated: {size_bytes} of at least {needs} bytes; copy it again")


def _read_xml(path: Path) -> bytes:
    size_bytes = path.stat().st_size
    if size_bytes > XML_LIMIT_BYTES:
        raise UnsafeFileError(f"{path}: an XML of {size_bytes} bytes; refused above {XML_LIMIT_BYTES}")
    return path.read_bytes()


def _check_savedmodel(path: Path) -> None:
    file = path / SAVED_MODEL_FILE
    _head(file)
    with mapped(file) as data:
        numbers = {field.number for field in message(file, data, 0, len(data))}
    if 2 not in numbers:  # noqa: PLR2004 - SavedModel.meta_graphs
        raise ModelFileError(
            f"{file}: truncated or damaged: it holds no graph; copy it again from its source"
        )
    for entry in path.rglob("*"):
        if not entry.resolve().is_relative_to(path.resolve()):
            raise UnsafeFileError(f"{entry} is a link out of the model's folder; refused")
    variables = path / "variables"
    if variables.is_dir() and any(variables.iterdir()) and not (variables / "variables.index").is_file():
        raise ModelFileError(f"{variables}: variables.index is missing; copy the whole folder again")


def _check_keras(path: Path) -> None:
    if _head(path).startswith(_HDF5):
        with mapped(path) as data:
            _check_end(path, data, hdf5_end(path, data))
        return
    _check_zip(path)


def _check_zip(path: Path) -> None:
    with open_zip(path) as archive:
        try:
            damaged = archive.testzip()
        except READ_ERRORS as error:
            raise ModelFileError(f"{path}: damaged: {error}; copy it again from its source") from error
    if damaged is not None:
        raise ModelFileError(f"{path}: damaged: {damaged} does not have its checksum; copy it again")


def _check_end(path: Path, data: Bytes, needs: int) -> None:
    if len(data) < needs:
        raise ModelFileError(
            f"{path}: truncated: {len(data)} of at least {needs} bytes; copy it again from its source"
        )


_CHECKS: Final[dict[Format, Callable[[Path], None]]] = {
    "onnx": _check_onnx,
    "tflite": _check_tflite,
    "openvino": _check_openvino,
    "savedmodel": _check_savedmodel,
    "keras": _check_keras,
    "pt2": _check_zip,
}
