"""What a model file could do to whoever opens it, looked for before any framework sees the file.

``edgeml.formats`` checks that a file is whole, stays in its folder and is no zip bomb. Here: code in it.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from edgeml.errors import ModelFileError, UnsafeFileError
from edgeml.formats import check_file
from edgeml.words import Format
from edgeml_converters.formats import program, saved_model


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
    if format_ == "keras" and path.is_file():
        _check_name(path)
    if trust_code:
        return
    if format_ == "keras" and zipfile.is_zipfile(path):
        _check_keras(path)
    elif format_ in {"savedmodel", "pt2"}:
        found = saved_model.finding(path) if format_ == "savedmodel" else program.finding(path)
        if found is not None:
            _refuse(path, found)


def _check_name(path: Path) -> None:
    """Refuse a file whose name says another way of saving than its content: Keras goes by the name."""
    wanted = ".keras" if zipfile.is_zipfile(path) else ".h5"
    if {path.suffix.lower(), wanted} == {".keras", ".h5"}:
        raise ModelFileError(f"{path} holds what Keras saves as {wanted}; rename it to {path.stem}{wanted}")


def _check_keras(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        try:
            config = json.loads(program.member(archive, "config.json", path))
        except (ValueError, RecursionError) as error:
            raise ModelFileError(f"{path} is damaged: its config.json cannot be read: {error}") from error
    for node in program.objects(config):
        if node.get("class_name") in {"Lambda", "__lambda__"}:
            name = node.get("config", {}).get("name", "?") if isinstance(node.get("config"), dict) else "?"
            _refuse(path, f"Python code (Lambda layer {name!r})")
        # "package>Name" stands for a class that some module registered when it was imported
        module = node.get("module")
        if isinstance(module, str) and module.partition(".")[0] not in {"keras", "builtins", "tf_keras"}:
            _refuse(path, f"a reference to code outside Keras ({module}.{node.get('class_name')})")


def _refuse(path: Path, what: str) -> None:
    raise UnsafeFileError(
        f"{path} holds {what}, which would run when the model is loaded; "
        f"if you trust whoever made the file, add --trust-code"
    )
