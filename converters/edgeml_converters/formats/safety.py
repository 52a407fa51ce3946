"""What a model file could do to whoever opens it, looked for before any framework sees the file.

``edgeml.formats`` checks that a file is whole, stays in its folder and is no zip bomb. Here: code in it.
"""

from __future__ import annotations

import io
import json
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from edgeml.errors import ModelFileError, UnsafeFileError
from edgeml.formats import check_file
from edgeml.words import Format

MEMBER_LIMIT_BYTES: Final = 64 * 1024 * 1024
"""No configuration or pickle inside an archive is larger; weights are not read here."""

CODE_OPERATORS: Final = (b"PyFunc", b"PyFuncStateless", b"EagerPyFunc")
"""TensorFlow operators that call Python; their names stand in a SavedModel as they are here."""

FILE_OPERATORS: Final = (b"ReadFile", b"WriteFile", b"MatchingFiles")
"""TensorFlow operators that reach for files by a path that the graph computes."""

PICKLE_MODULES: Final = ("torch", "collections", "numpy", "_codecs")
"""What PyTorch's own tensors and dictionaries name in a pickle."""

_MEMO_WRITES: Final = frozenset({"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"})
_SAFE_BUILTINS: Final = frozenset(
    {"set", "frozenset", "list", "dict", "tuple", "int", "float", "bool", "complex", "bytearray", "slice"}
)


def check(path: Path, format_: Format, *, trust_code: bool) -> None:
    """Refuse a damaged, foreign or dangerous file.

    Args:
        path: a file, or a SavedModel's folder.
        format_: what it is expected to be.
        trust_code: the user trusts whoever made the file to run code here.

    Raises:
        ModelFileError: damaged, or of another format.
        UnsafeFileError: it leaves its folder, would unpack to more than it should, or holds code and
            ``trust_code`` is not set.
    """
    check_file(path, format_)
    if trust_code:
        return
    if format_ == "keras" and zipfile.is_zipfile(path):
        _check_keras(path)
    elif format_ == "savedmodel":
        _check_savedmodel(path)
    elif format_ == "pt2":
        _check_pt2(path)


def _check_keras(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        try:
            config = json.loads(_member(archive, "config.json", path))
        except (ValueError, RecursionError) as error:
            raise ModelFileError(f"{path} is damaged: its config.json cannot be read: {error}") from error
    for node in _objects(config):
        if node.get("class_name") in {"Lambda", "__lambda__"}:
            name = node.get("config", {}).get("name", "?") if isinstance(node.get("config"), dict) else "?"
            _refuse(path, f"Python code (Lambda layer {name!r})")
        # "package>Name" stands for a class that some module registered when it was imported
        module = node.get("module")
        if isinstance(module, str) and module.partition(".")[0] not in {"keras", "builtins", "tf_keras"}:
            _refuse(path, f"a reference to code outside Keras ({module}.{node.get('class_name')})")


def _check_savedmodel(path: Path) -> None:
    content = (path / "saved_model.pb").read_bytes()
    for operator in CODE_OPERATORS:
        # an operator's name is a protobuf string: its length stands before it
        if bytes([len(operator)]) + operator in content:
            _refuse(path, f"an operator that calls Python ({operator.decode()})")
    for operator in FILE_OPERATORS:
        if bytes([len(operator)]) + operator in content:
            _refuse(path, f"an operator that reads or writes files ({operator.decode()})")


def _check_pt2(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.endswith((".py", ".so", ".pyc", ".cpp")):
                _refuse(path, f"code ({info.filename})")
            if info.filename.endswith((".pkl", ".pt", ".pickle")) or "/constants/" in info.filename:
                _check_pickled(path, info.filename, _member(archive, info.filename, path))


def _check_pickled(path: Path, name: str, content: bytes) -> None:
    """Look at a pickle, or at the pickles in a zip that ``torch.save`` wrote."""
    if content.startswith(b"PK"):
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as inner:
                for info in inner.infolist():
                    if info.filename.endswith(".pkl"):
                        _check_pickled(path, f"{name}/{info.filename}", _member(inner, info.filename, path))
        except zipfile.BadZipFile as error:
            raise ModelFileError(f"{path} is damaged: {name}: {error}") from error
        return
    for module, attribute in _globals(path, name, content):
        known = module.partition(".")[0] in PICKLE_MODULES and attribute not in {"load", "_load_from_bytes"}
        if not known and not (module == "builtins" and attribute in _SAFE_BUILTINS):
            _refuse(path, f"a pickle that calls {module}.{attribute} ({name})")


def _globals(path: Path, name: str, content: bytes) -> Iterator[tuple[str, str]]:
    """Give what a pickle would import, in order, up to where it ends or stops making sense.

    Nothing of it is run. What a pickle takes from its memo is not followed: it is given as ``?``.
    """
    pushed: list[str | None] = []
    try:
        for operation, argument, _ in pickletools.genops(content):
            if operation.name in {"GLOBAL", "INST"}:
                module, _, attribute = str(argument).partition(" ")
                yield module, attribute
            elif operation.name == "STACK_GLOBAL":
                yield (pushed[-2] or "?", pushed[-1] or "?") if len(pushed) > 1 else ("?", "?")
            if operation.name not in _MEMO_WRITES:
                pushed.append(argument if isinstance(argument, str) else None)
    except (ValueError, UnicodeDecodeError) as error:
        # raw numbers stand in the same folders: only what is certainly a pickle has to be a sound one
        if name.endswith((".pkl", ".pickle")) or content.startswith(b"\x80"):
            raise ModelFileError(f"{path} is damaged: the pickle {name} cannot be read: {error}") from error


def _objects(root: Any) -> Iterator[dict[str, Any]]:
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield node
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    with archive.open(name) as stream:
        content = stream.read(MEMBER_LIMIT_BYTES + 1)
    if len(content) > MEMBER_LIMIT_BYTES:
        raise UnsafeFileError(f"{path}: {name} unpacks to more than {MEMBER_LIMIT_BYTES} bytes; refused")
    return content


def _refuse(path: Path, what: str) -> None:
    raise UnsafeFileError(
        f"{path} holds {what}, which would run when the model is loaded; "
        f"if you trust whoever made the file, add --trust-code"
    )
