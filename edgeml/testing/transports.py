"""The contract of a transport as tests: subclass, give the fixture ``transport_url``, and run pytest.

```python
from edgeml.testing.transports import TransportContract

class TestSerial(TransportContract):
    @pytest.fixture
    def transport_url(self) -> str:
        return "serial:///dev/ttyUSB0"
```

The machine behind the transport needs a POSIX ``sh``.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from edgeml import plugins
from edgeml.errors import EngineMissingError, TransportError
from edgeml.testing import missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgeml.transport import Transport

PATIENCE_S = 10.0
"""How long a killed process may take to be gone, on a loaded machine."""
_KEYBOARD_INTERRUPT = 130
_INTERRUPTED = f"""
import sys
from edgeml import plugins
try:
    with plugins.transport(sys.argv[1]) as transport:
        transport.connect()
        transport.run(["sh", "-c", sys.argv[2]], 60)
except KeyboardInterrupt:
    sys.exit({_KEYBOARD_INTERRUPT})
"""


class TransportContract:
    """What every transport keeps."""

    @pytest.fixture
    def transport_url(self) -> str:
        raise NotImplementedError("give the URL of the machine to test with in a fixture transport_url")

    @pytest.fixture
    def unconnected(self, transport_url: str) -> Transport:
        try:
            return plugins.transport(transport_url)
        except EngineMissingError as error:
            missing(str(error))

    @pytest.fixture
    def transport(self, unconnected: Transport) -> Iterator[Transport]:
        with unconnected as opened:
            opened.connect()
            yield opened

    def remote(self, transport: Transport) -> str:
        """Make an empty folder on the machine."""
        return transport.run(["mktemp", "-d"], 20).stdout.decode().strip()

    def test_a_command_gives_its_output_and_exit_code(self, transport: Transport) -> None:
        result = transport.run(["sh", "-c", "echo out; echo err >&2; exit 7"], 20)
        assert (result.exit_code, result.stdout, result.stderr) == (7, b"out\n", b"err\n")

    def test_arguments_arrive_as_they_were_given(self, transport: Transport) -> None:
        given = ["a b", "", "$HOME", "'quoted'", 'two\nlines"', "*"]
        result = transport.run(["sh", "-c", 'printf "<%s>" "$@"', "name", *given], 20)
        assert result.stdout.decode() == "".join(f"<{part}>" for part in given)

    def test_a_command_has_no_input_to_wait_for(self, transport: Transport) -> None:
        assert transport.run(["cat"], 20).stdout == b""

    def test_a_command_that_does_not_exist_is_an_error(self, transport: Transport) -> None:
        with pytest.raises(TransportError, match="edgeml-no-such-command"):
            transport.run(["edgeml-no-such-command"], 20)

    def test_large_output_of_both_kinds_arrives_whole(self, transport: Transport) -> None:
        script = "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789; "
        script += "echo 0123456789012345678901234567890123456789 >&2; i=$((i+1)); done"
        result = transport.run(["sh", "-c", script], 60)
        assert len(result.stdout) == len(result.stderr) == 3000 * 41

    def test_a_command_that_takes_too_long_is_killed_with_its_children(self, transport: Transport) -> None:
        folder = self.remote(transport)
        script = f"(sleep 300 & echo $! >> {folder}/pids; wait) & echo $! >> {folder}/pids; sleep 300"
        begun = time.monotonic()
        with pytest.raises(TransportError, match="killed"):
            transport.run(["sh", "-c", script], 1.0)
        assert time.monotonic() - begun < 1.0 + PATIENCE_S
        pids = transport.run(["cat", f"{folder}/pids"], 20).stdout.decode().split()
        assert len(pids) == 2
        _wait_until(lambda: not self.alive(transport, pids))

    def test_ctrl_c_kills_the_command_with_its_children(
        self, transport: Transport, transport_url: str
    ) -> None:
        folder = self.remote(transport)
        script = f"sleep 300 & echo $! > {folder}/new; mv {folder}/new {folder}/pids; sleep 300"
        argv = [sys.executable, "-c", _INTERRUPTED, transport_url, script]
        program = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        _wait_until(lambda: transport.run(["test", "-e", f"{folder}/pids"], 20).exit_code == 0)
        program.send_signal(signal.SIGINT)
        assert program.wait(PATIENCE_S) == _KEYBOARD_INTERRUPT
        pids = transport.run(["cat", f"{folder}/pids"], 20).stdout.decode().split()
        _wait_until(lambda: not self.alive(transport, pids))

    def test_a_child_left_in_the_background_does_not_hold_the_result_back(self, transport: Transport) -> None:
        begun = time.monotonic()
        result = transport.run(["sh", "-c", "sleep 3 & echo done"], 60)
        assert result.stdout == b"done\n"
        assert time.monotonic() - begun < 2.5

    def test_a_file_goes_there_and_back(self, transport: Transport, tmp_path: Path) -> None:
        content = bytes(range(256)) * 5000
        (tmp_path / "here").write_bytes(content)
        place = f"{self.remote(transport)}/there"
        transport.put(tmp_path / "here", place)
        transport.get(place, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content

    def test_put_replaces_what_was_there(self, transport: Transport, tmp_path: Path) -> None:
        place = f"{self.remote(transport)}/file"
        for content in (b"old and longer", b"new"):
            (tmp_path / "file").write_bytes(content)
            transport.put(tmp_path / "file", place)
        assert transport.run(["cat", place], 20).stdout == b"new"

    def test_a_failed_put_leaves_nothing_behind(self, transport: Transport, tmp_path: Path) -> None:
        folder = self.remote(transport)
        with pytest.raises(TransportError):
            transport.put(tmp_path / "missing", f"{folder}/file")
        assert transport.run(["ls", "-A", folder], 20).stdout == b""

    def test_a_failed_get_leaves_nothing_behind(self, transport: Transport, tmp_path: Path) -> None:
        with pytest.raises(TransportError):
            transport.get(f"{self.remote(transport)}/missing", tmp_path / "file")
        assert list(tmp_path.iterdir()) == []

    def test_it_can_be_closed_twice_and_then_refuses(self, transport: Transport) -> None:
        transport.close()
        transport.close()
        with pytest.raises(TransportError):
            transport.run(["true"], 20)

    def test_it_refuses_before_it_is_connected(self, unconnected: Transport) -> None:
        with pytest.raises(TransportError, match="connect"):
            unconnected.run(["true"], 20)

    def alive(self, transport: Transport, pids: list[str]) -> bool:
        """Say whether any of the processes runs; one that is dead but not collected does not."""
        script = 'for pid; do case "$(ps -o stat= -p $pid)" in ""|Z*) ;; *) echo $pid;; esac; done'
        return bool(transport.run(["sh", "-c", script, "name", *pids], 20).stdout)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the processes are still there"
        time.sleep(0.05)
