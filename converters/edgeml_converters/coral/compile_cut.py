"""A model that the Edge TPU compiler would stop at, compiled all the same: cut, compiled, joined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeml.errors import ConversionError
from edgeml.findings import Finding
from edgeml_converters.coral.compilation import SUFFIX, Compilation
from edgeml_converters.coral.compile import compile_file
from edgeml_converters.coral.cut import Cut, cut, stops
from edgeml_converters.coral.graph import read_graph
from edgeml_converters.coral.join import joined

_BODY: Final = "body"


@dataclass(frozen=True, slots=True)
class Whole:
    """A compiled file with all of a model's operators, the part that no compiler saw among them."""

    compilation: Compilation
    """Of the model, or of its body."""
    cut: Cut | None

    def mapping(self) -> dict[str, Any]:
        """Give what a variant of a bundle says of it; operators of the tail count."""
        found = self.compilation.mapping()
        return found if self.cut is None else found | {"total": found["total"] + self.cut.tail_total}

    def findings(self, subject: str) -> tuple[Finding, ...]:
        """Say that it was cut, and why; and where the compiler said something else than it did."""
        remedy = "the compiled file is right; see edgeml coral inspect"
        odd = tuple(
            Finding("compiler-disagrees", "warning", subject, str(one), remedy)
            for one in self.compilation.disagreements
        )
        if self.cut is None:
            return odd
        message = (
            f"the compiler would stop at {self.cut.stops[0]}: {self.cut.tail_total} operators were cut off, "
            "the rest was compiled, and both were joined; the CPU runs what was cut off"
        )
        checked = self.cut.unchecked
        remedy = (
            f"try it on the device: the parts were not compared with the whole ({checked})"
            if checked
            else "nothing to do: the parts give what the whole gives, as was checked on the CPU"
        )
        return (Finding("edge-tpu-cut", "warning" if checked else "info", subject, message, remedy), *odd)


def compile_whole(
    source: Path, folder: Path, *, title: str, via: str | None, progress: Callable[[str], None]
) -> Whole:
    """Compile a TFLite file to ``NAME_edgetpu.tflite`` in ``folder``, cut where the compiler would stop.

    Args and errors are those of :func:`edgeml_converters.coral.compile.compile_file`.
    """
    parts = _parts(source)
    if parts is None:
        return Whole(compile_file(source, folder, title=title, via=via, progress=progress), None)
    progress(f"cut off {title}: {parts.tail_total} operators at which the Edge TPU compiler would stop")
    inner = folder / _BODY
    inner.mkdir()
    body = inner / source.name
    body.write_bytes(parts.body)
    made = compile_file(body, inner, title=title, via=via, progress=progress)
    compiled = made.compiled.path
    whole = joined(compiled, compiled.read_bytes(), source, parts.tail)
    (folder / f"{source.stem}{SUFFIX}.tflite").write_bytes(whole)
    return Whole(made, parts)


def _parts(source: Path) -> Cut | None:
    """Cut a model that stops the compiler; ``None``: it does not, or there is no place to cut."""
    if not stops(read_graph(source)):
        return None
    try:
        return cut(source)
    except ConversionError:  # the compiler says itself what it does not take
        return None
