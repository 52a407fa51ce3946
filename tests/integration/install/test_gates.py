"""The operator's own gates on a device without edgeml: a test, a restart, a check that must hold."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.integration.install.conftest import Deploy
from tests.integration.install.releases import NAME, bytes_bundle, is_whole

pytestmark = pytest.mark.usefixtures("bare")


@pytest.fixture
def bundles(tmp_path: Path) -> dict[int, Path]:
    return {number: bytes_bundle(tmp_path / "bundles", number) for number in (1, 2, 3)}


def test_without_edgeml_on_the_device_a_release_is_not_installed_untested(
    deploy: Deploy, home: Path, bundles: dict[int, Path]
) -> None:
    code, said = deploy(bundles[1])
    assert (code, said["result"], said["reason"]) == (1, "FAILED_NO_STATE_CHANGE", "engine")
    assert "edgeml devices provision" in said["detail"]
    assert not list(home.glob("models/*"))


def test_an_untested_release_says_so(deploy: Deploy, home: Path, bundles: dict[int, Path]) -> None:
    code, said = deploy(bundles[1], "--skip-self-test")
    assert (code, said["result"], said["verified"]) == (0, "SUCCESSFUL", "nothing")
    assert is_whole(home) == 1


def test_an_own_test_is_given_the_folder_and_decides(
    deploy: Deploy, home: Path, bundles: dict[int, Path]
) -> None:
    code, said = deploy(bundles[1], "--self-test", "grep -q one {folder}/labels.txt")
    assert (code, said["verified"]) == (0, "command")
    code, said = deploy(bundles[2], "--self-test", "echo no good >&2; exit 1 # {folder}")
    assert (code, said["result"], said["reason"]) == (3, "FAILED_NO_STATE_CHANGE", "parity")
    assert said["detail"] == "the self-test ended with 1: no good"
    code, said = deploy(bundles[2], "--self-test", "no-such-command")
    assert (code, said["reason"]) == (3, "selftest_crash")
    assert is_whole(home) == 1


def test_the_application_is_restarted_after_the_switch_and_after_a_rollback(
    deploy: Deploy, home: Path, bundles: dict[int, Path], tmp_path: Path
) -> None:
    current = shlex.quote(str(home / "models" / NAME / "current"))
    log = tmp_path / "log"
    restart = f"readlink {current} >>{shlex.quote(str(log))}"
    deploy(bundles[1], "--skip-self-test", "--restart", restart)
    # sound once, then not
    check = f"[ ! -e {tmp_path}/checked ] && touch {tmp_path}/checked"
    options = ["--skip-self-test", "--restart", restart, "--check", check, "--probation", "60"]
    code, said = deploy(bundles[2], *options)
    assert (code, said["result"], said["reason"]) == (3, "FAILED_ROLLBACK_COMPLETE", "health_check")
    assert "the check ended with 1" in said["detail"]
    assert log.read_text().split() == ["releases/1", "releases/2", "releases/1"]
    assert (is_whole(home), said["running"], said["previous"]) == (1, 1, None)


def test_a_check_may_fail_until_the_application_is_up(
    deploy: Deploy, home: Path, bundles: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeml_devices.install.gates.CHECK_EVERY_S", 0.2)
    tries = tmp_path / "tries"
    check = f"echo >>{tries}; [ $(wc -l <{tries}) -ge 3 ]"
    code, said = deploy(bundles[1], "--skip-self-test", "--check", check, "--probation", "1")
    assert (code, said["result"], is_whole(home)) == (0, "SUCCESSFUL", 1)


def test_a_first_release_that_fails_its_check_leaves_nothing(
    deploy: Deploy, home: Path, bundles: dict[int, Path], tmp_path: Path
) -> None:
    check = f"[ ! -e {tmp_path}/checked ] && touch {tmp_path}/checked"
    code, said = deploy(bundles[1], "--skip-self-test", "--check", check)
    assert (code, said["result"], said["running"]) == (3, "FAILED_ROLLBACK_COMPLETE", None)
    assert is_whole(home) is None
    assert not list(home.glob("models/*/releases/*"))


def test_a_previous_release_that_fails_its_test_is_not_gone_back_to(
    deploy: Deploy, home: Path, bundles: dict[int, Path], tmp_path: Path
) -> None:
    deploy(bundles[1], "--skip-self-test")
    # passes for release 2, fails for what is gone back to
    test = "case {folder} in */2) exit 0 ;; esac; exit 1"
    code, said = deploy(
        bundles[2],
        "--self-test",
        test,
        "--restart",
        f"[ -e {tmp_path}/ok ] || {{ touch {tmp_path}/ok; exit 1; }}",
    )
    assert (code, said["result"], said["reason"]) == (1, "FAILED_UNABLE_TO_ROLLBACK", "restart_failed")
    assert is_whole(home) is None
    assert "state=QUARANTINED" in (home / "models" / NAME / "deploy.state").read_text()
    code, said = deploy(bundles[3], "--skip-self-test")
    assert (code, is_whole(home)) == (0, 3)


def test_a_variant_is_asked_for_by_name(
    deploy: Deploy, run: Callable[..., Result], home: Path, tmp_path: Path
) -> None:
    from edgeml.manifest import Needs

    bundle = bytes_bundle(tmp_path, 1, variants={"litert-float32": Needs(), "openvino-float32": Needs()})
    _, said = deploy(bundle, "--skip-self-test", "--variant", "openvino-float32")
    assert said["variant"] == "openvino-float32"
    code, said = deploy(bundle, "--skip-self-test")
    assert (code, said["reason"]) == (1, "manifest")
    assert "another variant" in said["detail"]
    result = run("deploy", bundle, "--to", "local:", "--home", home, "--variant", "none")
    assert result.exit_code == 2
    assert "its variants are: litert-float32, openvino-float32" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a BUNDLE"),
        (["b.edgeml", "--list"], "give a BUNDLE"),
        (["b.edgeml", "--probation", "3"], "--probation needs --check"),
        (["b.edgeml", "--self-test", "true", "--skip-self-test"], "exclude each other"),
        (["--list", "--home", "relative"], "absolute path"),
    ],
)
def test_wrong_calls_are_told(run: Callable[..., Result], arguments: list[str], message: str) -> None:
    result = run("deploy", *arguments, "--to", "local:")
    assert result.exit_code in {1, 2}
    assert message in result.output


def test_an_unknown_transport_is_found_before_any_device_is_touched(
    run: Callable[..., Result], home: Path, bundles: dict[int, Path]
) -> None:
    result = run("deploy", bundles[1], "--to", "local:", "--to", "pigeon:post", "--home", home)
    assert result.exit_code == 2
    assert not home.exists()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_deploy_that_is_interrupted_in_probation_goes_back_and_says_so(
    home: Path, bundles: dict[int, Path], deploy: Deploy, tmp_path: Path, stop: int
) -> None:
    deploy(bundles[1], "--skip-self-test")
    options = ["--skip-self-test", "--check", f"touch {tmp_path}/checked", "--probation", "600"]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeml", "deploy", bundles[2], "--to", "local:", "--home", home, *options],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PATH": "/usr/bin:/bin"},
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "checked").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(stop)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[stop]
    assert "rolled back" in text
    assert "aborted: stopped during probation" in text
    assert is_whole(home) == 1
