"""The look at a file before an engine sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeml.errors import ModelFileError

if TYPE_CHECKING:
    from pathlib import Path

_LFS: Final = b"version https://git-lfs"


def check_artifact(path: Path, wanted: str) -> None:
    """Refuse a file that is missing, empty, a Git LFS pointer or plainly of another format.

    Raises:
        ModelFileError: says which.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except FileNotFoundError:
        raise ModelFileError(f"no such file: {path}") from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    if not head:
        raise ModelFileError(f"{path}: file is empty; copy it again from its source")
    if head.startswith(_LFS):
        raise ModelFileError(f"{path}: a Git LFS pointer, not the model: run git lfs pull")
    found = _format(head)
    if found != wanted:
        raise ModelFileError(f"{path}: not a model in format {wanted}" + (f", but {found}" if found else ""))


def _format(head: bytes) -> str | None:
    if head[4:8] == b"TFL3":
        return "tflite"
    if b"<net" in head and head.lstrip()[:1] == b"<":
        return "openvino"
    return "onnx" if head[:1] in (b"\x08", b"\x0a", b"\x12", b"\x3a", b"\x42") else None
