"""The installer's script as a workstation calls it, with the power cut where a test wants."""

from __future__ import annotations

import copy
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from edgeml_devices.install.payload import Payload, sums

from tests.integration.install.releases import NAME, bytes_bundle

TOOLS = ("chmod", "cp", "dd", "ln", "mkdir", "mv", "rm", "sync")
"""What changes the disk: the power is cut before and after each call of one of these."""
VARIANT = "litert-float32"
SCRIPT = Path(str(resources.files("edgeml_devices.install") / "device.sh"))
# kill 0 is the whole process group: the shell, its subshells and what they run
WRAPPER = """#!/bin/sh
read n <"$CUTS/count"
n=$((n + 1))
echo $n >"$CUTS/count"
echo "{tool} $*" >>"$CUTS/log"
[ "$n" != "$CUT_BEFORE" ] || kill -9 0
[ "$n" = "$CUT_AFTER" ] || exec {real} "$@"
{real} "$@"
kill -9 0
"""


class PowerCutError(Exception):
    """The script was killed, as it was to be."""


@dataclass
class ScriptDevice:
    """A home folder, and a shell that runs the script in it."""

    home: Path
    cuts: Path
    shell: Sequence[str] = ("dash",)
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wrappers = self.cuts / "bin"
        wrappers.mkdir(parents=True)
        for tool in TOOLS:
            # a killed process loses nothing that was written: a real sync would only take time
            real = shutil.which("true" if tool == "sync" else tool)
            (wrappers / tool).write_text(WRAPPER.format(tool=tool, real=real))
            (wrappers / tool).chmod(0o755)
        (self.cuts / "uncut").mkdir()
        (self.cuts / "uncut" / "sync").symlink_to(str(shutil.which("true")))
        self.environment = {
            "PATH": f"{wrappers}:/usr/bin:/bin",
            "CUTS": str(self.cuts),
            "HOME": str(self.cuts),
        }

    def uncut(self) -> ScriptDevice:
        """The same device; its tools are not counted, nor logged, and so no slower than they are."""
        same = copy.copy(self)
        same.environment = self.environment | {"PATH": f"{self.cuts}/uncut:/usr/bin:/bin"}
        return same

    def argv(self, *arguments: str) -> list[str]:
        return [*self.shell, str(SCRIPT), str(self.home), "test", "60", *arguments]

    def call(self, *arguments: str, before: int = 0, after: int = 0) -> dict[str, str]:
        """Do a verb; cut the power before or after the nth call of a tool."""
        (self.cuts / "count").write_text("0\n")
        cuts = {"CUT_BEFORE": str(before), "CUT_AFTER": str(after)}
        done = subprocess.run(
            self.argv(*arguments),
            env=self.environment | cuts,
            start_new_session=True,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == -signal.SIGKILL:
            raise PowerCutError
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        assert done.stderr == ""
        return dict(line.split(":", 1) for line in done.stdout.splitlines())

    @property
    def calls(self) -> int:
        """Calls of tools in the last verb."""
        return int((self.cuts / "count").read_text())

    @property
    def log(self) -> list[str]:
        return (self.cuts / "log").read_text().splitlines()

    def put(self, local: Path, remote: str) -> None:
        """What a transport's put does: whole or not at all."""
        scratch = self.home / f"{remote}.scratch"
        shutil.copyfile(local, scratch)
        scratch.replace(self.home / remote)

    def kept(self, place: Path) -> Callable[[], None]:
        """Keep the home as it is; the function that is given brings it back."""
        subprocess.run(["cp", "-a", self.home, place], check=True)

        def restore() -> None:
            shutil.rmtree(self.home)
            subprocess.run(["cp", "-a", place, self.home], check=True)

        return restore


Step = Callable[..., object]


def steps(device: ScriptDevice, payload: Payload) -> dict[str, Step]:
    """What a workstation lets the device do to install a release, up to the commit; each takes cuts."""
    release = str(payload.manifest.release)
    files = payload.files(VARIANT)

    def accept(place: int) -> Step:
        entry = files[place]

        def step(**cut: int) -> object:
            missing = device.call("missing", entry.sha256).get("missing")
            if missing == entry.sha256:
                device.put(payload.local(entry), f"blobs/sha256/{entry.sha256}.part")
            return device.call("accept", entry.sha256, **cut)

        return step

    def stage(**cut: int) -> object:
        deploy = f"models/{NAME}/deploy"
        device.put(payload.scratch("list", sums(files)), f"{deploy}/.{release}.sha256")
        device.put(payload.installed_json(VARIANT, {}), f"{deploy}/.{release}.json")
        return device.call("stage", NAME, release, **cut)

    def describe(**cut: int) -> object:
        text = payload.installed_json(VARIANT, {"p50_ms": 1.0})
        device.put(text, f"models/{NAME}/deploy/.{release}.json")
        return device.call("describe", NAME, release, **cut)

    return {
        "begin": lambda **cut: device.call("begin", NAME, release, **cut),
        **{f"accept {place}": accept(place) for place in range(len(files))},
        "stage": stage,
        "describe": describe,
        "switch": lambda **cut: device.call("switch", NAME, release, **cut),
        "end": lambda **cut: device.call("end", NAME, "COMMITTED", "SUCCESSFUL", "", **cut),
    }


def deploy(device: ScriptDevice, payload: Payload) -> None:
    """Install a release, whatever an earlier deploy has left, as the workstation does."""
    device.call("lock", "test", "", "")
    device.call("recover")
    found = device.call("status", NAME)
    todo = steps(device, payload)
    if found.get("state") == "PROBATION" and found["release"] == str(payload.manifest.release):
        todo = {name: todo[name] for name in ("switch", "end")}
    elif found.get("state") in {"PROBATION", "ROLLING_BACK"}:
        device.call("rollback", NAME, "superseded")
        device.call("end", NAME, "FAILED", "FAILED_ROLLBACK_COMPLETE", "superseded")
    for step in todo.values():
        step()
    device.call("unlock")


def as_program(device: ScriptDevice, payload: Payload) -> str:
    """The calls of one deploy as a shell program, to be killed as a whole."""
    release = str(payload.manifest.release)
    files = payload.files(VARIANT)
    deploy = f"{device.home}/models/{NAME}/deploy"

    def call(*arguments: str) -> str:
        return f"{shlex.join(device.argv(*arguments))} || exit 1"

    def put(local: Path, remote: str) -> str:
        # not whole or not at all: what a cut line leaves
        return shlex.join(["cp", str(local), remote])

    lines = [call("lock", "test", "", ""), call("begin", NAME, release)]
    lines.append(call("missing", *(entry.sha256 for entry in files)))
    for entry in files:
        lines.append(put(payload.local(entry), f"{device.home}/blobs/sha256/{entry.sha256}.part"))
        lines.append(call("accept", entry.sha256))
    lines.append(put(payload.scratch("list", sums(files)), f"{deploy}/.{release}.sha256"))
    lines.append(put(payload.installed_json(VARIANT, {}), f"{deploy}/.{release}.json"))
    lines.append(call("stage", NAME, release))
    lines.append(put(payload.installed_json(VARIANT, {"p50_ms": 1.0}), f"{deploy}/.{release}.json"))
    lines += [call("describe", NAME, release), call("switch", NAME, release)]
    lines += [call("end", NAME, "COMMITTED", "SUCCESSFUL", ""), call("unlock")]
    return "\n".join(lines)


def payload(folder: Path, release: int) -> Payload:
    return Payload(bytes_bundle(folder, release))


def state(home: Path) -> dict[str, str]:
    text = (home / "models" / NAME / "deploy.state").read_text()
    return dict(line.split("=", 1) for line in text.splitlines())


def fingerprint(home: Path) -> frozenset[tuple[str, str]]:
    """All that is in a home, by path: two cuts that leave the same need one recovery to be tried."""

    def content(path: Path) -> str:
        return os.fspath(path.readlink()) if path.is_symlink() else path.read_bytes().hex()

    return frozenset(
        (os.fspath(path.relative_to(home)), content(path))
        for path in home.rglob("*")
        if (path.is_file() or path.is_symlink()) and path.name != "lease"
    )


def leftovers(home: Path) -> list[str]:
    """What a finished deploy must not leave behind."""
    found = [path for path in home.rglob("*") if path.name.endswith((".part", ".new", ".gone", ".scratch"))]
    found += [path for path in home.rglob(".*") if path.parent.name != "install"]
    return sorted(os.fspath(path.relative_to(home)) for path in found)
