"""Have the user's Edge TPU compiler compile a model, and find out what it really made of it.

Neither its exit code nor "compiled successfully" is believed: the file that it wrote is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from edgeml.errors import ConversionError, ModelFileError
from edgeml.figures import readable_size
from edgeml.formats import TITLE, identify
from edgeml.terminal import printable
from edgeml_converters.coral.check import Check, check_file
from edgeml_converters.coral.compilation import SUFFIX, TIMEOUT_S, Attempt, Compilation, Outcome
from edgeml_converters.coral.compiler_output import INTERNAL, OperatorRow, major, read_problem, read_said
from edgeml_converters.coral.compiler_place import (
    MOST_PRINTED_BYTES,
    Compiler,
    Place,
    find_compiler,
    full_disk,
    open_place,
)
from edgeml_converters.coral.cross_check import disagreements, interface
from edgeml_converters.coral.inspect import Compiled, inspect_file

_SEARCHES_SINCE: Final = 16
"""This version has a time limit of its own, and can search for the part of a model that it compiles."""
_SEARCH_STEPS: Final = 16
"""A search takes this many attempts at most, each with fewer operators."""
_MOST_BYTES: Final = 2 << 30
"""Of a file that the compiler writes, its output among them; a TFLite file has 2 GiB at most."""
_SIGNALLED: Final = range(129, 193)
"""Exit codes of commands that a signal ended, as shells say them; Coral's own is a shell script."""
_TOO_LONG: Final = 128 + 25
"""SIGXFSZ, where the compiler runs."""
_SLACK_BYTES: Final = 1 << 20
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._]+")


def compile_file(
    source: Path,
    folder: Path,
    *,
    title: str,
    via: str | None,
    compiler: str | None = None,
    timeout_s: float = TIMEOUT_S,
    progress: Callable[[str], None],
) -> Compilation:
    """Compile a TFLite file.

    An internal error is tried again as Coral documents it: the compiler searches for a part of the model
    that it can compile; one too old for that is run once more as it was.

    Args:
        source: a TFLite file.
        folder: where the compiled file goes.
        title: what messages call the source.
        via: URL of the machine that compiles; ``None``: this one.
        compiler: name or path of the compiler there.
        timeout_s: for all attempts together; what runs then is killed.
        progress: is called with what is being done.

    Raises:
        ModelFileError: the source is damaged, foreign, or compiled already.
        EngineMissingError: there is no compiler.
        EngineError: what is there is no compiler that can be run.
        ConversionError: it did not compile, or mapped nothing; says why and what to do.
        TransportError: the machine cannot be reached, or was lost.
    """
    if identify(source) != "tflite":
        raise ModelFileError(
            f"{title} is {TITLE[identify(source)]}, and the Edge TPU compiler takes int8 TFLite: "
            "edgeml convert --target coral-usb --scheme int8_static --calibration DATA makes a bundle of it "
            "that edgeml coral compile takes"
        )
    predicted = check_file(source)
    with open_place(via, progress) as place:
        found = find_compiler(place, compiler)
        progress(f"edgetpu_compiler {found.version} on {place.name} compiles {title}")
        return _Run(
            title, source, folder, place, found, predicted, monotonic() + timeout_s, timeout_s
        ).compile()


@dataclass(frozen=True, slots=True)
class _Run:
    """One compilation on one machine."""

    title: str
    source: Path
    folder: Path
    place: Place
    compiler: Compiler
    predicted: Check
    deadline: float
    timeout_s: float

    @property
    def name(self) -> str:
        """What the source is called there: the compiler takes a dash for an option."""
        return _UNSAFE.sub("_", self.source.stem)[:100] or "model"

    def compile(self) -> Compilation:
        self._require_room(2 * self.source.stat().st_size + _SLACK_BYTES)
        self.place.put(self.source, f"{self.name}.tflite")
        attempts: list[Attempt] = []
        for options in self._ways():
            number = len(attempts) + 1
            attempt, printed = self._attempt(options, number)
            attempts.append(attempt)
            if attempt.outcome == "compiled":
                return self._verified(attempts, printed, f"out{number}")
            if attempt.outcome != INTERNAL:
                break
        raise self._failure(attempts, printed)

    def _ways(self) -> Sequence[tuple[str, ...]]:
        """Give the options of each attempt; the second one is for internal errors."""
        if major(self.compiler.version) < _SEARCHES_SINCE:
            return (), ()
        step = max(1, math.ceil(self.predicted.total / _SEARCH_STEPS))
        return (), ("--search_delegate", "--delegate_search_step", str(step))

    def _attempt(self, options: tuple[str, ...], number: int) -> tuple[Attempt, str]:
        began, out = monotonic(), f"out{number}"
        left_s = max(0.1, self.deadline - began)
        own_limit = major(self.compiler.version) >= _SEARCHES_SINCE
        limit = ("--timeout_sec", str(math.ceil(left_s))) if own_limit else ()
        self.place.run(["mkdir", out], left_s)
        arguments = ("--show_operations", "--out_dir", out, *limit, *options, f"{self.name}.tflite")
        done = self.place.compile([self.compiler.path, *arguments], left_s, _MOST_BYTES)
        printed = b"" if done is None else done.stdout + b"\n" + done.stderr
        text = printed.decode(errors="replace")
        wrote = done is not None and self.place.get(f"{out}/{self.name}{SUFFIX}.tflite", self._target)
        outcome, message = _judged(None if done is None else done.exit_code, text, wrote=wrote)
        exit_code = None if done is None else done.exit_code
        return Attempt(arguments[:-1], outcome, exit_code, round(monotonic() - began, 3), message), text

    @property
    def _target(self) -> Path:
        return self.folder / f"{self.source.stem}{SUFFIX}.tflite"

    def _verified(self, attempts: list[Attempt], printed: str, out: str) -> Compilation:
        """Read what was written; nothing mapped is a failure."""
        log_file = self.folder / "compiler.log"
        has_log = self.place.get(f"{out}/{self.name}{SUFFIX}.log", log_file)
        log = _start(log_file) if has_log else ""
        said = read_said(printed, log)
        compiled = self._read()
        if not compiled.packages:
            raise ConversionError(
                f"{self.title}: the compiler mapped nothing to the Edge TPU{_reasons(said.rows)}; "
                "see what to change: edgeml coral check"
            )
        found = disagreements(self.predicted, compiled, said)
        if attempts[-1].searched:
            found = tuple(one for one in found if one.predicted is None)
        return Compilation(
            self.source,
            compiled,
            log or printed,
            self.place.name,
            self.compiler,
            tuple(attempts),
            said,
            self.predicted,
            found,
        )

    def _read(self) -> Compiled:
        try:
            compiled, is_same = inspect_file(self._target), interface(self.source) == interface(self._target)
        except ModelFileError as error:
            self._require_room(_SLACK_BYTES)
            raise ConversionError(
                f"{self.title}: what the compiler wrote is no compiled model that can be read, though it "
                f"says nothing of it: {str(error).removeprefix(f'{self._target}: ')}"
            ) from error
        if not is_same:
            raise ConversionError(
                f"{self.title}: what the compiler wrote has other inputs or outputs: it is another model's"
            )
        return compiled

    def _require_room(self, needed_bytes: int) -> None:
        """Raise if the disk is full: beforehand, since a transport may need room to say so afterwards."""
        full = full_disk(self.place, needed_bytes)
        if full is not None:
            raise full

    def _failure(self, attempts: list[Attempt], printed: str) -> ConversionError:
        """Make an error of the last attempt."""
        last = attempts[-1]
        if last.outcome == "timeout":
            return ConversionError(
                f"{self.title}: the compiler did not end within {self.timeout_s:g} s and was killed; "
                "give it more time (edgeml coral compile --timeout-s), or a smaller model"
            )
        self._require_room(_SLACK_BYTES)
        times = f" ({len(attempts)} attempts)" if len(attempts) > 1 else ""
        problem = read_problem(printed)
        remedy = problem.remedy if problem is not None else _what_next(last)
        return ConversionError(f"{self.title}: the compiler failed{times}: {last.message}; {remedy}")


def _judged(exit_code: int | None, printed: str, *, wrote: bool) -> tuple[Outcome, str]:
    """Say what became of an attempt, and why it failed."""
    if exit_code is None:
        return "timeout", "it did not end in time and was killed"
    if exit_code in _SIGNALLED:
        return "crashed", f"signal {exit_code - 128} ended it"
    if wrote:
        return "compiled", ""
    problem = read_problem(printed)
    if problem is not None:
        return problem.fault, printable(problem.text)
    return "failed", f"it ended with exit code {exit_code} and wrote nothing{_last_line(printed)}"


def _start(log: Path) -> str:
    with log.open("rb") as file:
        return file.read(MOST_PRINTED_BYTES).decode(errors="replace")


def _what_next(attempt: Attempt) -> str:
    if attempt.outcome == "crashed" and attempt.exit_code == 128 + 9:
        return "the machine may be short of memory"
    if attempt.outcome == "crashed" and attempt.exit_code == _TOO_LONG:
        return f"it wrote a file, or printed, more than {readable_size(_MOST_BYTES)}"
    return "edgeml coral check says what it will not take; edgetpu_compiler -s MODEL, by hand, may say more"


def _last_line(printed: str) -> str:
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return f" ({printable(lines[-1][:200])})" if lines else ""


def _reasons(rows: tuple[OperatorRow, ...]) -> str:
    """Give the reasons, the most frequent first."""
    counts: dict[str, int] = {}
    for row in rows:
        reason = printable(row.reason)
        counts[reason] = counts.get(reason, 0) + row.count
    told = sorted(counts.items(), key=lambda item: -item[1])[:3]
    return ": " + "; ".join(f"{count} × {reason}" for reason, count in told) if told else ""
