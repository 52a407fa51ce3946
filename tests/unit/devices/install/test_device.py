"""What the device answers, and what of it is believed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from edgeml_devices.install.device import Device, open_device
from edgeml_devices.install.words import StepError
from edgeml_devices.messages import Reason, State
from edgeml_devices.transports.local import LocalTransport

from edgeml.errors import TransportError, UsageError
from edgeml.transport import CommandResult


class ToldTransport(LocalTransport):
    """A device that gives one answer to everything."""

    def __init__(self, stdout: str, exit_code: int = 0, stderr: str = "") -> None:
        super().__init__()
        self._answer = CommandResult(exit_code, stdout.encode(), stderr.encode())
        self.ran: list[Sequence[str]] = []

    def run(self, argv: Sequence[str], timeout_s: float) -> CommandResult:  # noqa: ARG002 - the contract's
        self.ran.append(argv)
        return self._answer

    def put(self, local: Path, remote: str) -> None:  # noqa: ARG002 - the contract's
        raise TransportError(self._answer.stderr.decode())


def _device(stdout: str, exit_code: int = 0, stderr: str = "") -> Device:
    return Device(ToldTransport(stdout, exit_code, stderr), "/h", "/root", "me", "/h/install/device.sh")


def test_what_a_login_says_before_the_answer_is_passed_over():
    reply = _device("Welcome\nLast login: yesterday\nfree_kib:12\nok:\n").call("missing")
    assert reply.number("free_kib") == 12


def test_an_error_of_the_device_has_a_reason():
    with pytest.raises(StepError, match=r"^the disk is full: ln: x$") as caught:
        _device("error:disk_full:the disk is full: ln: x\n", 1).call("stage", "kws", "1")
    assert caught.value.reason is Reason.DISK_FULL


def test_a_reason_that_this_edgeml_does_not_know_is_told_by_its_text():
    with pytest.raises(StepError, match="too hot") as caught:
        _device("error:heat:too hot\n", 1).call("switch")
    assert caught.value.reason is Reason.IO_ERROR


@pytest.mark.parametrize("exit_code", [0, 1, 137])
def test_an_answer_that_breaks_off_is_no_answer(exit_code: int):
    with pytest.raises(StepError, match="switch on the device ended early: sh: killed"):
        _device("starts:1\n", exit_code, "sh: killed").call("switch")


def test_the_models_on_a_device_are_read_each_by_itself():
    text = (
        "model:kws\nrunning:3\nvariants:litert-int8_static\nmanifest:aa\nprevious:2\nstate:COMMITTED\nrelease:3\n"
        "back:2\nstarts:1\nresult:SUCCESSFUL\nreason:\nmodel:vww\nrunning:\nprevious:\nstate:unreadable\nok:\n"
    )
    kws, vww = _device(text).status()
    assert (kws.name, kws.running, kws.previous, kws.variants) == ("kws", 3, 2, ("litert-int8_static",))
    assert (kws.state, kws.release, kws.back, kws.starts) == (State.COMMITTED, 3, 2, 1)
    assert (vww.name, vww.running, vww.state) == ("vww", None, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("No space left on device", Reason.DISK_FULL), ("Read-only file system", Reason.READ_ONLY)],
)
def test_a_file_that_the_device_cannot_take_has_a_reason(text: str, reason: Reason):
    with pytest.raises(StepError) as caught:
        _device("", 1, f"local: it could not be copied: {text}").put(Path("x"), "blobs/x.part")
    assert caught.value.reason is reason


def test_a_line_that_breaks_is_no_fault_of_the_device():
    with pytest.raises(TransportError, match="the line was cut"):
        _device("", 1, "the line was cut").put(Path("x"), "blobs/x.part")


@pytest.mark.parametrize(
    ("asked", "said", "home"),
    [
        (None, "uid:0\nhome:/root\nedgeml_home:\n", "/var/lib/edgeml"),
        (None, "uid:1000\nhome:/home/pi\nedgeml_home:\n", "/home/pi/.local/share/edgeml"),
        (None, "uid:1000\nhome:/home/pi\nedgeml_home:/data/edgeml\n", "/data/edgeml"),
        ("/srv/my models/", "uid:0\nhome:/root\nedgeml_home:/x\n", "/srv/my models"),
        ("~/models", "uid:1000\nhome:/home/pi\nedgeml_home:\n", "/home/pi/models"),
    ],
)
def test_the_home_is_the_operators_the_devices_or_the_default(asked: str | None, said: str, home: str):
    transport = ToldTransport(said)
    assert open_device(transport, asked, "me").home == home
    assert transport.ran[1][-1] == f"{home}/install"


def test_a_home_that_depends_on_a_working_folder_is_refused():
    with pytest.raises(UsageError, match="absolute path"):
        open_device(ToldTransport("uid:0\nhome:/root\nedgeml_home:\n"), "models", "me")
