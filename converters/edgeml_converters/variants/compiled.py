"""Variants compiled for the Edge TPU: a row for each int8 one that a target with an Edge TPU has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgeml.edgetpu import ACCELERATOR
from edgeml.errors import ConversionError, EdgemlError, ModelFileError
from edgeml_converters.coral.compilation import COMPILED_FILE
from edgeml_converters.coral.compile_cut import compile_whole
from edgeml_converters.formats.files import hash_tree, size_bytes
from edgeml_converters.variants.request import Request
from edgeml_converters.variants.rows import Row

COMPILED: Final = "-edgetpu"
"""What the name of a compiled variant has behind that of its source."""


def with_compiled(
    request: Request, rows: Sequence[Row], scratch: Path, progress: Callable[[str], None]
) -> list[Row]:
    """Give the rows with a compiled one behind each that can be compiled.

    Where there is no compiler, or it fails, the row says so.

    Args:
        request: the conversion.
        rows: as they were made.
        scratch: where compiled files go.
        progress: is called with what is being done.
    """
    found: list[Row] = []
    for row in rows:
        found.append(row)
        if row.edge_tpu and row.status == "ok":
            planned = replace(row, name=row.name + COMPILED, accelerator=ACCELERATOR)
            found.append(_compiled(request, planned, scratch, progress))
    return found


def _compiled(request: Request, row: Row, scratch: Path, progress: Callable[[str], None]) -> Row:
    """Compile what the row was planned from, whose accuracy and golden outputs it keeps."""
    folder = scratch / row.name
    folder.mkdir()
    source = folder / "model.tflite"
    assert row.artifact is not None  # noqa: S101 - it was made
    source.symlink_to(row.artifact.absolute())
    bare = Row(row.name, row.runtime, row.scheme, row.targets, row.settings, accelerator=ACCELERATOR)
    try:
        made = compile_whole(source, folder, title=row.name, via=request.compiler_via, progress=progress)
    except (ConversionError, ModelFileError) as error:
        return bare.without("failed", str(error))
    except EdgemlError as error:  # the compiler or its machine is not there, or cannot be used
        return bare.without("unavailable", str(error))
    compiled = folder / COMPILED_FILE
    return replace(
        row,
        artifact=compiled,
        sha256=hash_tree(compiled),
        fallback=row.artifact,
        size_bytes=size_bytes(compiled),
        mapping=made.mapping(),
        findings=(*row.findings, *made.findings(row.name)),
    )
