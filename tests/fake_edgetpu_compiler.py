"""A program called ``edgetpu_compiler`` that answers as Coral's did: texts, files, exit codes, deaths.

As Coral's, it is a shell script that starts the program proper.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

V16 = "16.0.384591198"
V2 = "2.1.302470888"

_SCRIPT = """#!/bin/sh
{python} -I {program} "$@"
"""
_PROGRAM = """
import json, os, shutil, signal, sys, time
from pathlib import Path

folder = Path(__file__).parent
plan = json.loads((folder / "plan.json").read_text())
version, argv = plan["version"], sys.argv[1:]
print(f"Edge TPU Compiler version {version}", flush=True)
if "--version" in argv:
    sys.exit(0)
with (folder / "calls").open("a") as file:
    file.write(json.dumps({"argv": argv, "folder": os.getcwd(), "pid": os.getpid()}) + "\\n")
number = len((folder / "calls").read_text().splitlines()) - 1
run = plan["runs"][min(number, len(plan["runs"]) - 1)]
takes = {"--out_dir": 1, "--show_operations": 0}
if int(version.split(".")[0]) >= 16:
    takes |= {"--timeout_sec": 1, "--search_delegate": 0, "--delegate_search_step": 1}
given, models = {}, []
while argv:
    word = argv.pop(0)
    if word in takes:
        given[word] = argv.pop(0) if takes[word] else ""
    elif word.startswith("-"):
        sys.exit(f"ERROR: Unknown command line flag '{word.lstrip('-')}'")
    else:
        models.append(Path(word))
(model,) = models
model.read_bytes()
out = Path(given["--out_dir"])
print(run["printed"], flush=True)
target = out / f"{model.stem}_edgetpu.tflite"
if run["compiled"]:
    shutil.copyfile(run["compiled"], target)
if run["content"]:
    target.write_bytes(bytes.fromhex(run["content"]))
if run["log"]:
    target.with_suffix(".log").write_text(run["log"])
if run["hangs"]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
if run["signal"]:
    os.kill(os.getpid(), run["signal"])
sys.exit(run["exit_code"])
"""


@dataclass(frozen=True)
class Run:
    """What one call does."""

    printed: str = ""
    """Behind the line with the version."""
    exit_code: int = 0
    compiled: str = ""
    """The file that it writes, copied from here."""
    content: str = ""
    """Or its content, in hex."""
    log: str = ""
    hangs: bool = False
    signal: int = 0
    """Ends it."""


@dataclass(frozen=True)
class FakeCompiler:
    """The program, and what was asked of it."""

    path: Path
    folder: Path = field(repr=False)

    @property
    def calls(self) -> list[dict[str, str]]:
        """What it was called with, ``--version`` left out."""
        calls = self.folder / "calls"
        return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    @property
    def options(self) -> list[list[str]]:
        """The options of each call."""
        return [list(one["argv"][:-1]) for one in self.calls]


def fake_compiler(folder: Path, *runs: Run, version: str = V16) -> FakeCompiler:
    """Make the program; call after call it does what the runs say, the last one from then on."""
    folder = folder.absolute()
    folder.mkdir(parents=True)
    program, path = folder / "program.py", folder / "edgetpu_compiler"
    program.write_text(_PROGRAM)
    (folder / "plan.json").write_text(json.dumps({"version": version, "runs": [asdict(run) for run in runs]}))
    path.write_text(_SCRIPT.format(python=shlex.quote(sys.executable), program=shlex.quote(str(program))))
    path.chmod(0o755)
    return FakeCompiler(path, folder)


def success(
    total: int, mapped: int, *, on_chip: str = "64.00B", streamed: str = "0.00B", v16: bool = True
) -> str:
    """Give what it prints where it compiled a model."""
    lines = [
        *(["Started a compilation timeout timer of 180 seconds."] if v16 else []),
        "",
        "Model compiled successfully in 141 ms.",
        "",
        "Input model: model.tflite",
        "Input size: 5.11MiB",
        "Output model: model_edgetpu.tflite",
        "Output size: 5.09MiB",
        f"On-chip memory used for caching model parameters: {on_chip}",
        "On-chip memory remaining for caching model parameters: 6.86MiB",
        f"Off-chip memory used for streaming uncached model parameters: {streamed}",
        f"Number of Edge TPU subgraphs: {int(mapped > 0)}",
        f"Total number of operations: {total}",
        "Operation log: model_edgetpu.log",
    ]
    if mapped < total:
        lines += [
            "",
            "Model successfully compiled but not all operations are supported by the Edge TPU.",
            f"Number of operations that will run on Edge TPU: {mapped}",
            f"Number of operations that will run on CPU: {total - mapped}",
        ]
    lines += ["See the operation log file for individual operation details."]
    if v16:
        lines += ["Compilation child process completed within timeout period.", "Compilation succeeded! "]
    return "\n".join(lines)


def operator_log(*rows: tuple[str, int, str], version: str = V16) -> str:
    """Give the file that it writes beside the compiled one."""
    head = f"Edge TPU Compiler version {version}\nInput: model.tflite\nOutput: model_edgetpu.tflite\n\n"
    lines = [f"{name:31}{count:<11}{reason}" for name, count, reason in rows]
    return head + "\n".join([f"{'Operator':31}{'Count':11}Status", "", *lines]) + "\n"


FAILED = """Started a compilation timeout timer of 180 seconds.
{said}
Compilation child process completed within timeout period.
Compilation failed! """
"""What it prints where it gives up, with what it says of the reason."""
INTERNAL = "\nInternal compiler error. Aborting! "
"""What it printed of that before version 16."""
