"""A power cut at any instant of an agentless install: the device goes on with a whole, verified release."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from edgeml_devices.install.payload import Payload

from tests.conftest import require
from tests.faults.install_script import (
    PowerCutError,
    ScriptDevice,
    as_program,
    deploy,
    fingerprint,
    leftovers,
    payload,
    state,
    steps,
)
from tests.integration.install.releases import NAME, are_whole, bytes_bundle

SHELLS = {"dash": ("dash",), "busybox": ("busybox", "sh")}
SEED = 20261125


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Payload]]:
    with _opened(tmp_path_factory.mktemp("bundles"), 1, 2) as found:
        yield found


@contextmanager
def _opened(folder: Path, *releases: int) -> Iterator[dict[int, Payload]]:
    with ExitStack() as opened:
        yield {release: opened.enter_context(payload(folder, release)) for release in releases}


@pytest.fixture
def targets(tmp_path: Path) -> Iterator[dict[int, Payload]]:
    with _opened(tmp_path, 1, 2, 3, 4) as found:
        yield found


@pytest.fixture(params=SHELLS)
def device(request: pytest.FixtureRequest, tmp_path: Path) -> ScriptDevice:
    """A device in whose path are spaces."""
    shell = SHELLS[request.param]
    require(shutil.which(shell[0]), f"{shell[0]} is not installed")
    return ScriptDevice(tmp_path / "a home", tmp_path / "cuts", shell)


def _installed(device: ScriptDevice, first: Payload) -> ScriptDevice:
    (device.home / "blobs" / "sha256").mkdir(parents=True)
    deploy(device.uncut(), first)
    assert are_whole(device.home) == 1
    return device


def _cut_everywhere(
    device: ScriptDevice, do: Callable[..., object], place: Path, sound: set[int | None], last: Payload
) -> int:
    """Cut the power before and after each call of a tool; from each cut the device must recover.

    Args:
        device: as it is before the step.
        do: the step; takes the cut.
        place: where to keep the device meanwhile.
        sound: the releases that may run after a cut.
        last: what a deploy after each cut must bring.
    """
    restore = device.kept(place)
    do()
    calls = device.calls
    seen = set()
    for when in ("before", "after"):
        for number in range(1, calls + 1):
            restore()
            with pytest.raises(PowerCutError):
                do(**{when: number})
            where = f"{when} call {number}: {device.log[-1]}"
            assert are_whole(device.home) in sound, where
            device.uncut().call("recover")
            assert are_whole(device.home) == _expected(device, sound), where
            left = fingerprint(device.home)
            if left not in seen:
                seen.add(left)
                deploy(device.uncut(), last)
                assert are_whole(device.home) == last.manifest.release, where
                assert (state(device.home)["state"], leftovers(device.home)) == ("COMMITTED", []), where
    return calls


def _expected(device: ScriptDevice, sound: set[int | None]) -> int | None:
    """What must run after a recovery, by what the device itself has written down."""
    if not (device.home / "models" / NAME / "deploy.state").exists():
        return None
    now = state(device.home)
    release = now["release"] if now["state"] in {"PROBATION", "COMMITTED"} else now["back"]
    found = int(release) if release else None
    assert found in sound
    return found


def _before(device: ScriptDevice, name: str, wanted: Payload) -> Callable[..., object]:
    """Do a deploy up to a step; give that step."""
    (device.home / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    device.call("lock", "test", "", "")
    for earlier, step in steps(device, wanted).items():
        if earlier == name:
            return step
        step()
    raise KeyError(name)


@pytest.mark.parametrize("device", ["dash"], indirect=True)
@pytest.mark.parametrize(
    ("name", "fewest"),
    [("begin", 6), ("accept 0", 5), ("stage", 15), ("describe", 5), ("switch", 15), ("end", 8)],
)
def test_each_step_of_an_update_may_be_cut_at_each_call(
    device: ScriptDevice, releases: dict[int, Payload], tmp_path: Path, name: str, fewest: int
) -> None:
    _installed(device, releases[1])
    step = _before(device, name, releases[2])
    assert _cut_everywhere(device, step, tmp_path / "kept", {1, 2}, releases[2]) >= fewest


@pytest.mark.parametrize("device", ["busybox"], indirect=True)
@pytest.mark.parametrize("name", ["stage", "switch"])
def test_each_step_of_a_first_install_may_be_cut_at_each_call(
    device: ScriptDevice, releases: dict[int, Payload], tmp_path: Path, name: str
) -> None:
    step = _before(device, name, releases[1])
    assert _cut_everywhere(device, step, tmp_path / "kept", {None, 1}, releases[1]) >= 10


@pytest.mark.parametrize("device", ["busybox"], indirect=True)
def test_a_rollback_may_be_cut_at_each_call(
    device: ScriptDevice, releases: dict[int, Payload], tmp_path: Path
) -> None:
    _installed(device, releases[1])
    _before(device, "end", releases[2])

    def roll_back(**cut: int) -> object:
        return device.call("rollback", NAME, "health_check", **cut)

    assert _cut_everywhere(device, roll_back, tmp_path / "kept", {1, 2}, releases[2]) >= 10


@pytest.mark.parametrize("device", ["dash"], indirect=True)
@pytest.mark.parametrize(
    ("written", "link", "sound"),
    [
        ("SWITCHING", "releases/2", {2}),
        ("SWITCHING", "releases/1", {1}),
        ("SWITCHING", None, {None, 1}),
        ("PROBATION", "releases/1", {1}),
        ("PROBATION", None, {None, 1}),
        ("ROLLING_BACK", "releases/2", {1, 2}),
        ("ROLLING_BACK", None, {None, 1}),
    ],
)
def test_a_recovery_may_itself_be_cut_at_each_call(
    device: ScriptDevice,
    releases: dict[int, Payload],
    tmp_path: Path,
    written: str,
    link: str | None,
    sound: set[int | None],
) -> None:
    _installed(device, releases[1])
    _before(device, "end", releases[2])
    model = device.home / "models" / NAME
    text = (model / "deploy.state").read_text()
    (model / "deploy.state").write_text(text.replace("state=PROBATION", f"state={written}"))
    (model / "current").unlink()
    if link is not None:
        (model / "current").symlink_to(link)

    def recover(**cut: int) -> object:
        return device.call("recover", **cut)

    assert _cut_everywhere(device, recover, tmp_path / "kept", sound, releases[2]) >= 5


@pytest.mark.parametrize("device", SHELLS, indirect=True)
@pytest.mark.parametrize("rounds", [6, pytest.param(500, marks=pytest.mark.soak)])
def test_a_device_that_loses_power_at_random_instants_runs_a_whole_release_for_ever(
    device: ScriptDevice, targets: dict[int, Payload], rounds: int
) -> None:
    randomness = random.Random(SEED)  # noqa: S311 - the same instants each time
    _installed(device, targets[1])
    begun = time.monotonic()
    deploy(device, targets[2])
    longest_s = 1.2 * (time.monotonic() - begun)
    cut = 0
    while cut < rounds:
        runs = are_whole(device.home)
        target = targets[randomness.choice([one for one in targets if one != runs])]
        process = subprocess.Popen(
            ["dash", "-c", as_program(device, target)],
            env=device.environment | {"CUT_BEFORE": "0", "CUT_AFTER": "0"},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(randomness.uniform(0, longest_s))
        if process.poll() is None:
            cut += 1
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        where = f"cut {cut}, seed {SEED}"
        assert are_whole(device.home) in {runs, target.manifest.release}, where
        device.call("recover")
        assert are_whole(device.home) in {runs, target.manifest.release}, where
        # every other time the deploy is finished, else the next one finds what was left
        if randomness.random() < 0.5:
            deploy(device, target)
            assert are_whole(device.home) == target.manifest.release, where
            assert leftovers(device.home) == [], where


@pytest.mark.parametrize("rounds", [3, pytest.param(150, marks=pytest.mark.soak)])
def test_a_workstation_that_dies_at_random_instants_can_deploy_again(tmp_path: Path, rounds: int) -> None:
    randomness = random.Random(SEED)  # noqa: S311 - the same instants each time
    home = tmp_path / "home"
    bundles = {number: bytes_bundle(tmp_path, number) for number in (1, 2, 3)}
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}

    def start(number: int) -> subprocess.Popen[str]:
        options = ["--self-test", "true", "--check", "true", "--probation", "0.3"]
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "edgeml",
                "deploy",
                bundles[number],
                "--to",
                "local:",
                "--home",
                home,
                *options,
            ],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def finish(number: int) -> float:
        """Deploy, and give how long that takes."""
        begun = time.monotonic()
        process = start(number)
        text, _ = process.communicate()
        assert process.returncode == 0, text
        assert are_whole(home) == number
        return time.monotonic() - begun

    takes_s = finish(1)
    killed = 0
    while killed < rounds:
        runs = are_whole(home)
        number = randomness.choice([one for one in bundles if one != runs])
        process = start(number)
        time.sleep(randomness.uniform(0.3 * takes_s, takes_s))
        killed += process.poll() is None
        process.kill()
        process.communicate()
        assert are_whole(home) in {runs, number}
        takes_s = finish(number)


@pytest.mark.parametrize("device", ["dash"], indirect=True)
def test_what_others_read_is_on_the_disk_before_and_after_it_is_renamed(
    device: ScriptDevice, releases: dict[int, Payload]
) -> None:
    _installed(device, releases[1])
    deploy(device, releases[2])
    model = f"{device.home}/models/{NAME}"
    renamed = {
        "blob": f"mv -f {device.home}/blobs/sha256/",
        "state": f"mv -f {model}/.deploy.state ",
        "current": f"mv -f {model}/.link/current ",
        "previous": f"mv -f {model}/.link/previous ",
        "release": f"mv {model}/releases/.2.new ",
    }
    # what is only the installer's own may lie between
    calls = [line for line in device.log if line == "sync " or line.startswith(tuple(renamed.values()))]
    for what, start in renamed.items():
        places = [place for place, line in enumerate(calls) if line.startswith(start)]
        assert places, what
        assert [calls[place - 1] for place in places] == ["sync "] * len(places), what
        if what != "blob":  # it is hashed again before it is used
            assert [calls[place + 1] for place in places] == ["sync "] * len(places), what
