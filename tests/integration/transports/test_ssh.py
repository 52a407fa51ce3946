"""SSH beyond the contract: whose keys are taken, what a refusal says, and what stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from edgeml_devices.transports.ssh import SshTransport

from edgeml.errors import TransportError, UsageError
from tests.conftest import require
from tests.integration.transports.ssh_server import SshServer, ssh_server
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeml.transport import Progress


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def lines(server: SshServer) -> list[str]:
    return server.config.read_text().splitlines()


def test_an_unknown_host_key_is_refused_and_says_how_to_accept_it(server, tmp_path):
    (tmp_path / "empty").touch()
    config = [line for line in lines(server) if "UserKnownHosts" not in line]
    url = server.configure(f"UserKnownHostsFile {tmp_path}/empty", *config)
    with pytest.raises(TransportError, match=rf"host key is not known.*ssh -p {server.port} .*ssh-keyscan"):
        SshTransport(url).connect()
    assert (tmp_path / "empty").read_text() == ""


def test_a_configuration_that_accepts_new_hosts_is_honoured(server, tmp_path):
    config = [line for line in lines(server) if "UserKnownHosts" not in line]
    known = tmp_path / "new"
    url = server.configure(f"UserKnownHostsFile {known}", "StrictHostKeyChecking accept-new", *config)
    with SshTransport(url) as transport:
        assert transport.run(["true"], 20).exit_code == 0
    assert f"[127.0.0.1]:{server.port}" in known.read_text()


def test_a_changed_host_key_is_refused_even_if_new_hosts_are_accepted(server, tmp_path):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{server.port} {other.with_suffix('.pub').read_text()}")
    config = [line for line in lines(server) if "UserKnownHosts" not in line]
    url = server.configure(f"UserKnownHostsFile {known}", "StrictHostKeyChecking accept-new", *config)
    with pytest.raises(TransportError, match=r"not the one that is known.*ssh-keygen -R"):
        SshTransport(url).connect()


def test_a_key_that_the_machine_does_not_know_is_refused(server, tmp_path):
    stranger = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)], check=True)
    config = [line for line in lines(server) if "IdentityFile" not in line]
    url = server.configure(f"IdentityFile {stranger}", *config)
    with pytest.raises(TransportError, match=r"none of your keys.*ssh-copy-id"):
        SshTransport(url).connect()


def test_the_identity_of_the_url_is_the_one_offered(server):
    config = [line for line in lines(server) if "IdentityFile" not in line]
    url = server.configure("IdentityFile /nowhere", *config)
    with SshTransport(f"{url}&identity={server.folder}/key") as transport:
        assert transport.run(["true"], 20).exit_code == 0


def test_an_alias_of_the_configuration_is_a_host(server):
    config = [f"  {line}" for line in lines(server)]
    server.configure("Host Board", "  HostName 127.0.0.1", f"  Port {server.port}", *config)
    with SshTransport(f"ssh://{server.user}@Board?config={server.folder}/other_config") as transport:
        assert transport.run(["true"], 20).exit_code == 0


def test_forwardings_and_commands_of_the_configuration_do_not_disturb(server):
    disturbing = [
        "LocalForward 1 localhost:1",
        "RemoteCommand false",
        "RequestTTY force",
        "ControlMaster auto",
    ]
    with SshTransport(server.configure(*disturbing, *lines(server))) as transport:
        assert transport.run(["printf", "a\nb"], 20).stdout == b"a\nb"


def test_nobody_listening_is_an_error(server):
    with pytest.raises(TransportError, match="refused"):
        SshTransport("ssh://root@127.0.0.1:1").connect()


def test_a_machine_without_ssh_names_the_package(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TransportError, match="openssh-client"):
        SshTransport("ssh://board").connect()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ssh://", "write it as"),
        ("ssh:board", "write it as"),
        ("ssh://board/folder", "write it as"),
        ("ssh://board:port", "write it as"),
        ("ssh://-oProxyCommand=id", "write it as"),
        ("ssh://-x@board", "write it as"),
        ("ssh://me:secret@board", "passwords are not taken"),
        ("ssh://board?key=x", "'key' is no option"),
    ],
)
def test_urls_that_are_written_in_another_way_are_refused(url, says):
    with pytest.raises(UsageError, match=says):
        SshTransport(url)


def test_what_a_log_in_prints_is_not_taken_for_the_commands_output(tmp_path):
    with ssh_server(tmp_path, 'ForceCommand echo Welcome; eval "$SSH_ORIGINAL_COMMAND"') as noisy:
        (tmp_path / "file").write_bytes(b"content\n" * 20_000)
        with SshTransport(noisy.url) as transport:
            assert transport.run(["echo", "hello"], 20).stdout == b"hello\n"
            transport.put(tmp_path / "file", str(tmp_path / "there"))
            transport.get(str(tmp_path / "there"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content\n" * 20_000


@pytest.fixture
def home() -> Iterator[Path]:
    """A home for user 4242: pytest's folders are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101, S103 - sshd must reach it
        path = Path(folder) / "home"
        path.mkdir()
        if os.geteuid() == 0:
            os.chown(path, 4242, 4242)
        yield path


def test_a_log_in_as_an_ordinary_user(home):
    """A name space of its own gives the server a user that this machine does not have."""
    require(os.geteuid() == 0, "needs root, to be another user")
    allowed = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True)
    require(allowed.returncode == 0, "needs a name space of its own (unshare -m)")
    passwd = home.parent / "passwd"
    passwd.write_text(f"{Path('/etc/passwd').read_text()}operator4242:x:4242:4242::{home}:/bin/sh\n")
    shadow = home.parent / "shadow"
    shadow.write_text(f"{Path('/etc/shadow').read_text()}operator4242:*:19000:0:99999:7:::\n")
    bound = f"mount --bind {passwd} /etc/passwd && mount --bind {shadow} /etc/shadow && "
    with ssh_server(home.parent, through=["unshare", "-m", "sh", "-c", f'{bound}exec "$@"', "sh"]) as server:
        server.user = "operator4242"
        with SshTransport(server.url) as transport:
            assert transport.run(["id", "-u"], 20).stdout == b"4242\n"
            transport.put(home.parent / "passwd", "in my home")
            assert (home / "in my home").stat().st_uid == 4242
            with pytest.raises(TransportError, match="ermission denied"):
                transport.put(home.parent / "passwd", "/usr/not-mine")


def test_a_cut_put_sends_no_more_than_a_hundredth_again(server, tmp_path):
    size = 40_000_000
    (tmp_path / "here").write_bytes(os.urandom(size))
    target = tmp_path / "there"
    transport = SshTransport(server.url)

    def cut(progress: Progress) -> None:
        if progress.done_bytes > size / 2:
            server.cut()

    transport.connect()
    transport.on_progress(cut)
    with pytest.raises(TransportError):
        transport.put(tmp_path / "here", str(target))
    (part,) = tmp_path.glob(".there.*.part")
    held = part.stat().st_size
    begun: list[int] = []
    transport.connect()
    transport.on_progress(lambda progress: begun.append(progress.done_bytes))
    transport.put(tmp_path / "here", str(target))
    transport.close()
    assert target.read_bytes() == (tmp_path / "here").read_bytes()
    assert held <= begun[0] <= held + size / 100


def test_a_disk_that_is_full_leaves_no_part(server, tmp_path):
    mounted = tmp_path / "small"
    mounted.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(mounted)], check=False)
    require(made.returncode == 0, "needs root, to mount a small disk")
    try:
        (tmp_path / "large").write_bytes(bytes(3_000_000))
        with SshTransport(server.url) as transport, pytest.raises(TransportError, match="No space left"):
            transport.put(tmp_path / "large", f"{mounted}/file")
        assert list(mounted.iterdir()) == []
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_nothing_stays_behind(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with SshTransport(server.url) as transport:
        transport.run(["true"], 20)
    assert list(tmp_path.glob("edgeml-*")) == []
    eventually(lambda: server.children() == [])


def test_a_program_that_is_killed_takes_its_connection_with_it(server, tmp_path):
    script = (
        "import sys, time\n"
        "from edgeml_devices.transports.ssh import SshTransport\n"
        "transport = SshTransport(sys.argv[1])\n"
        "transport.connect()\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, server.url], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"ready\n"
        assert server.children()
        program.send_signal(signal.SIGKILL)
    eventually(lambda: server.children() == [])


def test_a_temporary_folder_with_a_long_path_is_no_obstacle(server, tmp_path, monkeypatch):
    long = tmp_path / ("long-" * 20)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr("tempfile.tempdir", None)
    with SshTransport(server.url) as transport:
        assert transport.run(["true"], 20).exit_code == 0


def test_a_machine_that_freezes_is_noticed(server, monkeypatch):
    monkeypatch.setattr("edgeml_devices.transports.ssh.KILLED_WITHIN_S", 1.0)
    transport = SshTransport(server.url)
    transport.connect()
    frozen = [pid for parent in server.children() for pid in (parent, *_children(parent))]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        with pytest.raises(TransportError, match=r"no longer answers|lost"):
            transport.run(["true"], 1)
        assert time.monotonic() - begun < 60
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
        transport.close()


def _children(pid: int) -> list[int]:
    argv = ["ps", "-o", "pid=", "--ppid", str(pid)]
    return [int(word) for word in subprocess.run(argv, check=False, capture_output=True).stdout.split()]
