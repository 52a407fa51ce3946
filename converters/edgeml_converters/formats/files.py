"""The files that make up a model: weights beside an IR, external data of ONNX, the files of a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgeml.errors import ModelFileError
from edgeml.wire import mapped, onnx_external_data


def model_files(path: Path) -> tuple[Path, ...]:
    """List a model's files, the one that a runtime loads first; a folder's in sorted order."""
    if path.is_dir():
        return tuple(sorted(one for one in path.rglob("*") if one.is_file()))
    weights = path.with_suffix(".bin")
    if path.suffix == ".xml" and weights.is_file():
        return path, weights
    if path.suffix == ".onnx":
        return path, *_external(path)
    return (path,)


def size_bytes(path: Path) -> int:
    """Give the size of all files of a model."""
    return sum(file.stat().st_size for file in model_files(path))


def hash_tree(path: Path) -> str:
    """Hash a model as hex: one file as sha256 does, several by their names, sizes and contents."""
    files = model_files(path)
    root = path if path.is_dir() else path.parent
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256")
        if files == (path,):
            return found.hexdigest()
        digest.update(f"{file.relative_to(root).as_posix()}\0{file.stat().st_size}\0".encode())
        digest.update(found.digest())
    return digest.hexdigest()


def _external(path: Path) -> tuple[Path, ...]:
    try:
        with mapped(path) as data:
            names = {one.location for one in onnx_external_data(path, data)}
    except (ModelFileError, OSError):
        return ()
    # formats.check_file refuses locations outside the folder; here they are only left aside
    files = ((path.parent / name).resolve() for name in sorted(names))
    root = path.parent.resolve()
    return tuple(
        path.parent / file.relative_to(root) for file in files if file.is_relative_to(root) and file.is_file()
    )
