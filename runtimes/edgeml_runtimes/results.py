"""Where the results of ``edgeml run`` go: the terminal, a .jsonl or an .npz file that can be resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import click
import numpy as np

from edgeml import plugins
from edgeml.atomic import replacing_file
from edgeml.commands.json_output import print_json
from edgeml.errors import UsageError

if TYPE_CHECKING:
    from types import TracebackType

    from edgeml.data import Dataset
    from edgeml.pipeline import Prediction
    from edgeml_runtimes.running import Chosen

PART: Final = ".part"
"""Behind the output's name while a run is going on; what it holds is not run again."""
_SHOWN: Final = 8
"""Values of an output that a line on the terminal shows."""


class Sink:
    """Takes results one by one. With an output file, a run that was interrupted goes on where it was."""

    def __init__(self, output: Path | None, chosen: Chosen, dataset: Dataset, *, as_json: bool) -> None:
        if output is not None and output.suffix not in {".jsonl", ".npz"}:
            raise UsageError(f"--output {output}: name it *.jsonl or *.npz")
        self.output = output
        self.done = 0
        """Samples that an earlier run left finished."""
        self._chosen = chosen
        self._as_json = as_json
        self._records: list[dict[str, Any]] = []
        self._part: Any = None
        self._header = ""
        if output is not None:
            self._header = json.dumps({"schema": 1, "run": chosen.fingerprint(dataset)})
            self._records = _resumable(_part_of(output), self._header)
            self.done = len(self._records)

    def __enter__(self) -> Self:
        if self.output is not None:
            # Written again, so that a line cut short by a crash is gone.
            lines = [self._header, *map(json.dumps, self._records)]
            with replacing_file(_part_of(self.output)) as scratch:
                scratch.write_text("".join(f"{line}\n" for line in lines))
            self._part = _part_of(self.output).open("a")
            if self.done and not self._as_json:
                click.echo(f"{self.output}: goes on after {self.done} samples", err=True)
        return self

    def write(self, name: str, prediction: Prediction) -> None:
        """Take one sample's result."""
        record = _record(name, prediction)
        self._records.append(record)
        if self._part is not None:
            self._part.write(json.dumps(record) + "\n")
            self._part.flush()
        elif not self._as_json:
            click.echo(_line(name, prediction))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._part is not None:
            self._part.close()
        if kind is not None:
            return
        if self.output is not None:
            self._finish(self.output)
        if self._as_json:
            print_json(self._summary())

    def _finish(self, output: Path) -> None:
        with replacing_file(output) as scratch:
            if output.suffix == ".jsonl":
                scratch.write_text("".join(json.dumps(record) + "\n" for record in self._records))
            else:
                with scratch.open("wb") as file:
                    np.savez(file, allow_pickle=False, **self._arrays())
        _part_of(output).unlink(missing_ok=True)
        if not self._as_json:
            click.echo(f"{len(self._records)} results in {output}", err=True)

    def _arrays(self) -> dict[str, Any]:
        """Stack the outputs [N,…] under their names, and the samples' names under ``sample``."""
        arrays: dict[str, Any] = {}
        for spec in self._chosen.model.spec.outputs:
            values = [np.atleast_1d(record["outputs"][spec.name]) for record in self._records]
            # a quantized output holds what it stores only if the inputs did
            real = spec.quantization is not None and not (self._chosen.raw and values[0].dtype.kind == "i")
            arrays[spec.name] = np.concatenate(
                values, dtype="float32" if real else spec.dtype, casting="unsafe"
            )
        arrays.setdefault("sample", np.asarray([record["sample"] for record in self._records]))
        if self._records[0]["classes"]:
            arrays.setdefault(
                "class", np.asarray([record["classes"][0]["index"] for record in self._records])
            )
        return arrays

    def _summary(self) -> dict[str, Any]:
        return {
            "model": self._chosen.title,
            "runtime": self._chosen.model.runtime,
            "runtime_version": plugins.runtime(self._chosen.model.runtime).version,
            "variant": self._chosen.model.variant,
            "samples": len(self._records),
            "resumed_after": self.done,
            "output": None if self.output is None else str(self.output),
            "results": self._records if self.output is None else [],
        }


def _part_of(output: Path) -> Path:
    return output.with_name(output.name + PART)


def _resumable(part: Path, header: str) -> list[dict[str, Any]]:
    """Give the whole records of an interrupted run with the same model, data and processing."""
    try:
        lines = part.read_text().split("\n")
    except (OSError, UnicodeDecodeError):
        return []
    if lines[0] != header:
        return []
    records = []
    for line in lines[1:-1]:
        try:
            records.append(dict(json.loads(line)))
        except ValueError:
            break
    return records


def _record(name: str, prediction: Prediction) -> dict[str, Any]:
    return {
        "sample": name,
        "outputs": {output: array.tolist() for output, array in prediction.outputs.items()},
        "classes": [
            {"index": part.index, "label": part.label, "score": part.score} for part in prediction.classes
        ],
    }


def _line(name: str, prediction: Prediction) -> str:
    if prediction.classes:
        shown = ", ".join(f"{part.label or part.index} {part.score:.3f}" for part in prediction.classes)
        return f"{name}: {shown}"
    parts = []
    for output, array in prediction.outputs.items():
        values = " ".join(f"{value:.4g}" for value in array.ravel()[:_SHOWN])
        more = f" … ({array.size} values)" if array.size > _SHOWN else ""
        parts.append(f"{output} [{values}{more}]")
    return f"{name}: {'; '.join(parts)}"
