"""The contract of a transport as tests: subclass, give the fixture ``transport_url``, and run pytest.

```python
from edgeml.testing.transports import TransportContract

class TestSerial(TransportContract):
    @pytest.fixture
    def transport_url(self) -> str:
        return "serial:///dev/ttyUSB0"
```

Subclass :class:`RemoteTransportContract` for a machine that can be lost, and give the fixture ``cut``, too.
The machine behind the transport needs a POSIX ``sh``.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from edgeml import plugins
from edgeml.errors import EngineMissingError, TransportError
from edgeml.testing import missing
from edgeml.transport import ReportsProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgeml.transport import Progress, Transport

PATIENCE_S = 60.0
"""How long a killed process may take to be gone, on a loaded machine."""
LOSS_NOTICED_S = 60.0
"""How long a transport may wait for a machine that is gone before it says so."""
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

    large_bytes = 16_000_000
    """Size of a large file; less for a slow way."""
    slowness = 1.0
    """How many times as long as usual the machine takes, emulated for example."""

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

    @pytest.fixture
    def observer(self, transport_url: str) -> Iterator[Transport]:
        """Give a second way to the machine; override it where the URL lets in one at a time."""
        with plugins.transport(transport_url) as opened:
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

    @pytest.mark.parametrize("code", [1, 64, 126, 127, 128, 255])
    def test_an_exit_code_is_the_commands_own(self, transport: Transport, code: int) -> None:
        assert transport.run(["sh", "-c", f"exit {code}"], 20).exit_code == code

    def test_a_command_ended_by_a_signal_gives_128_and_its_number(self, transport: Transport) -> None:
        assert transport.run(["sh", "-c", "kill -TERM $$"], 20).exit_code == 128 + signal.SIGTERM

    def test_output_of_any_bytes_arrives(self, transport: Transport) -> None:
        given = "".join(f"\\{number:03o}" for number in range(256))
        result = transport.run(["printf", given], 20)
        assert result.stdout == bytes(range(256))

    def test_output_without_a_last_newline_arrives_as_it_is(self, transport: Transport) -> None:
        result = transport.run(["sh", "-c", "printf 'a\n\nb'; printf ' c ' >&2"], 20)
        assert (result.stdout, result.stderr) == (b"a\n\nb", b" c ")

    def test_text_of_any_language_arrives(self, transport: Transport) -> None:
        given = "Ψηφιακό 模型 🧠 \x1b[0m"
        assert transport.run(["printf", "%s", given], 20).stdout.decode() == given

    def test_a_long_argument_arrives(self, transport: Transport) -> None:
        given = "long 'argument' " * 2000
        assert transport.run(["printf", "%s", given], 60).stdout.decode() == given

    def test_an_argument_that_no_machine_takes_is_an_error(self, transport: Transport) -> None:
        with pytest.raises(TransportError, match="could not be started"):
            transport.run(["echo", "a\0b"], 20)

    def test_a_file_that_is_no_program_is_an_error(self, transport: Transport) -> None:
        folder = self.remote(transport)
        transport.run(["sh", "-c", f"echo text > {folder}/text"], 20)
        with pytest.raises(TransportError, match=f"{folder}/text"):
            transport.run([f"{folder}/text"], 20)

    def test_commands_are_run_once_and_in_order(self, transport: Transport) -> None:
        place = f"{self.remote(transport)}/log"
        for number in range(5):
            transport.run(["sh", "-c", f"echo {number} >> {place}"], 20)
        assert transport.run(["cat", place], 20).stdout == b"0\n1\n2\n3\n4\n"

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
            transport.run(["sh", "-c", script], 2.0 + self.slowness)
        assert time.monotonic() - begun < self.slowness * (3.0 + PATIENCE_S)
        pids = transport.run(["cat", f"{folder}/pids"], 20).stdout.decode().split()
        assert len(pids) == 2
        self.wait_until(lambda: not self.alive(transport, pids))

    def test_ctrl_c_kills_the_command_with_its_children(
        self, observer: Transport, transport_url: str
    ) -> None:
        folder = self.remote(observer)
        script = f"sleep 300 & echo $! > {folder}/new; mv {folder}/new {folder}/pids; sleep 300"
        argv = [sys.executable, "-c", _INTERRUPTED, transport_url, script]
        program = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        self.wait_until(lambda: observer.run(["test", "-e", f"{folder}/pids"], 20).exit_code == 0)
        program.send_signal(signal.SIGINT)
        assert program.wait(PATIENCE_S * self.slowness) == _KEYBOARD_INTERRUPT
        pids = observer.run(["cat", f"{folder}/pids"], 20).stdout.decode().split()
        self.wait_until(lambda: not self.alive(observer, pids))

    def test_a_child_left_in_the_background_does_not_hold_the_result_back(self, transport: Transport) -> None:
        begun = time.monotonic()
        result = transport.run(["sh", "-c", "sleep 60 & echo done"], 120)
        assert result.stdout == b"done\n"
        assert time.monotonic() - begun < 50

    def test_a_file_goes_there_and_back(self, transport: Transport, tmp_path: Path) -> None:
        content = bytes(range(256)) * 400
        (tmp_path / "here").write_bytes(content)
        place = f"{self.remote(transport)}/there"
        transport.put(tmp_path / "here", place)
        transport.get(place, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content

    @pytest.mark.parametrize("size_bytes", [0, 1, 511, 512, 513])
    def test_a_small_file_goes_there_and_back(
        self, transport: Transport, tmp_path: Path, size_bytes: int
    ) -> None:
        content = bytes(number % 251 for number in range(size_bytes))
        (tmp_path / "here").write_bytes(content)
        place = f"{self.remote(transport)}/there"
        transport.put(tmp_path / "here", place)
        transport.get(place, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content

    def test_a_large_file_goes_there_and_back_and_leaves_nothing_beside_it(
        self, transport: Transport, tmp_path: Path
    ) -> None:
        content = _content(self.large_bytes, seed=1)
        (tmp_path / "here").write_bytes(content)
        folder = self.remote(transport)
        transport.put(tmp_path / "here", f"{folder}/there")
        transport.get(f"{folder}/there", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content
        assert transport.run(["ls", "-A", folder], 20).stdout == b"there\n"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "here"]

    def test_a_file_of_any_name_goes_there_and_back(self, transport: Transport, tmp_path: Path) -> None:
        name = "-a 'b' \"c\" $HOME *ψ模\n%s\\n"
        (tmp_path / name).write_bytes(b"content")
        folder = self.remote(transport)
        transport.put(tmp_path / name, f"{folder}/{name}")
        transport.get(f"{folder}/{name}", tmp_path / f"{name}2")
        assert (tmp_path / f"{name}2").read_bytes() == b"content"

    def test_put_into_a_folder_that_is_not_there_is_an_error(
        self, transport: Transport, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_bytes(b"content")
        folder = self.remote(transport)
        with pytest.raises(TransportError, match="none"):
            transport.put(tmp_path / "file", f"{folder}/none/file")
        assert transport.run(["ls", "-A", folder], 20).stdout == b""

    def test_put_does_not_replace_a_folder_nor_go_into_it(self, transport: Transport, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"content")
        folder = self.remote(transport)
        transport.run(["mkdir", f"{folder}/taken"], 20)
        with pytest.raises(TransportError, match="taken"):
            transport.put(tmp_path / "file", f"{folder}/taken")
        assert transport.run(["ls", "-A", folder, f"{folder}/taken"], 20).stdout.split()[1:] == [
            b"taken",
            f"{folder}/taken:".encode(),
        ]

    def test_get_of_a_folder_is_an_error(self, transport: Transport, tmp_path: Path) -> None:
        with pytest.raises(TransportError):
            transport.get(self.remote(transport), tmp_path / "file")
        assert list(tmp_path.iterdir()) == []

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

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for the machine to get somewhere, or to have nothing left."""
        deadline = time.monotonic() + PATIENCE_S * self.slowness
        while not condition():
            assert time.monotonic() < deadline, "the processes are still there"
            time.sleep(0.05)


class RemoteTransportContract(TransportContract):
    """What a transport keeps whose machine can be lost in the middle of its work."""

    @pytest.fixture
    def cut(self) -> Callable[[], None]:
        """Give a function that takes the machine away from who is connected; it can be connected to again."""
        raise NotImplementedError("give a function that cuts the connection in a fixture cut")

    def test_a_machine_that_is_gone_while_a_command_runs_is_an_error(
        self, transport: Transport, cut: Callable[[], None]
    ) -> None:
        timer = threading.Timer(0.5 * self.slowness, cut)
        timer.start()
        begun = time.monotonic()
        with pytest.raises(TransportError):
            transport.run(["sleep", "300"], 290)
        timer.join()
        assert time.monotonic() - begun < LOSS_NOTICED_S
        with pytest.raises(TransportError):
            transport.run(["true"], 20)
        transport.close()

    def test_a_command_does_not_outlive_its_connection(
        self, transport: Transport, observer: Transport, cut: Callable[[], None]
    ) -> None:
        folder = self.remote(observer)
        script = f"sleep 300 & echo $! $$ > {folder}/new; mv {folder}/new {folder}/pids; sleep 300"

        def cut_once_it_runs() -> None:
            try:
                self.wait_until(lambda: observer.run(["test", "-e", f"{folder}/pids"], 20).exit_code == 0)
            finally:
                cut()

        cutter = threading.Thread(target=cut_once_it_runs)
        cutter.start()
        with pytest.raises(TransportError):
            transport.run(["sh", "-c", script], 290)
        cutter.join()
        observer.connect()
        pids = observer.run(["cat", f"{folder}/pids"], 20).stdout.decode().split()
        assert len(pids) == 2
        self.wait_until(lambda: not self.alive(observer, pids))

    def test_put_that_is_cut_leaves_no_file_and_the_next_goes_on_where_it_was(
        self, transport: Transport, tmp_path: Path, cut: Callable[[], None]
    ) -> None:
        content = _content(self.large_bytes, seed=2)
        (tmp_path / "here").write_bytes(content)
        place = f"{self.remote(transport)}/there"
        held = self._cut_half_way(transport, cut, lambda: transport.put(tmp_path / "here", place))
        transport.connect()
        assert transport.run(["test", "-e", place], 20).exit_code == 1
        seen: list[Progress] = []
        self._watched(transport).on_progress(seen.append)
        transport.put(tmp_path / "here", place)
        assert transport.run(["cat", place], 120).stdout == content
        assert seen[0].done_bytes > held * 0.5, "it began anew"

    def test_get_that_is_cut_leaves_no_file_and_the_next_goes_on_where_it_was(
        self, transport: Transport, tmp_path: Path, cut: Callable[[], None]
    ) -> None:
        content = _content(self.large_bytes, seed=3)
        (tmp_path / "here").write_bytes(content)
        place = f"{self.remote(transport)}/there"
        transport.put(tmp_path / "here", place)
        held = self._cut_half_way(transport, cut, lambda: transport.get(place, tmp_path / "back"))
        assert not (tmp_path / "back").exists()
        transport.connect()
        seen: list[Progress] = []
        self._watched(transport).on_progress(seen.append)
        transport.get(place, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content
        assert seen[0].done_bytes >= held, "it began anew"

    def _cut_half_way(
        self, transport: Transport, cut: Callable[[], None], transfer: Callable[[], None]
    ) -> int:
        """Cut a transfer as soon as half of it is done; gives how many bytes were."""
        held: list[int] = []

        def watch(progress: Progress) -> None:
            if not held and progress.done_bytes >= progress.whole_bytes / 2:
                held.append(progress.done_bytes)
                cut()

        self._watched(transport).on_progress(watch)
        with pytest.raises(TransportError):
            transfer()
        return held[0]

    def _watched(self, transport: Transport) -> ReportsProgress:
        assert isinstance(transport, ReportsProgress)
        return transport


def _content(size_bytes: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size_bytes)  # noqa: S311 - nothing secret
