"""`edgeml server run` as a process: its start, its end, its workers, its patience."""

from __future__ import annotations

import datetime as dt
import os
import platform
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.postgres import Postgres
from tests.integration.server_process import ServerProcess
from tests.waiting import eventually, gone, is_running


def _address(server: ServerProcess) -> tuple[str, int]:
    host, _, port = server.url.partition("://")[2].rpartition(":")
    return host, int(port)


def _enrol(server: ServerProcess, token: str = "t" * 43) -> str:
    _, join = server.call("POST", "/v1/join-tokens", {})
    status, answer = server.call("POST", "/v1/enrol", {"join_token": join["token"], "device_token": token})
    assert status == 201, answer
    return token


def _cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeml", "server", *arguments]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=180, env=os.environ | environment
    )


def test_the_first_start_prints_a_token_that_works_and_later_ones_do_not(server: ServerProcess) -> None:
    token = server.admin_token
    assert token
    assert server.printed("edgeml repo init")
    assert server.data.stat().st_mode & 0o777 == 0o700
    assert server.stop() == 0
    server.output.clear()
    server.start()
    assert not any("EDGEML_TOKEN" in line for line in server.output)
    assert server.call("GET", "/v1/server", token=token)[0] == 200


def test_sigterm_ends_it_at_once_although_polls_wait(server: ServerProcess) -> None:
    token = _enrol(server)
    headers = {"If-None-Match": '"0"', "Authorization": f"Bearer {token}"}
    with closing(HTTPConnection(*_address(server), timeout=60)) as poll:
        poll.request("GET", "/v1/agent/state?wait=55", headers=headers)
        server.call("GET", "/v1/devices")  # by then the poll has reached it
        time.sleep(0.5)
        begun = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begun < 30
        assert poll.getresponse().status == 304


def test_what_was_answered_is_there_after_a_kill(server: ServerProcess) -> None:
    _enrol(server)
    server.kill()
    server.start()
    assert len(server.call("GET", "/v1/devices")[1]["devices"]) == 1


def test_a_caller_that_hangs_up_in_the_middle_of_a_body_is_no_failure_of_the_server(
    server: ServerProcess,
) -> None:
    heard = len(server.output)
    for _ in range(3):
        with socket.create_connection(_address(server)) as caller:
            head = "POST /v1/enrol HTTP/1.1\r\nHost: edgeml\r\nContent-Length: 100\r\n\r\n"
            caller.sendall(head.encode() + b'{"join_token":')
            time.sleep(0.2)
    _enrol(server)
    server.stop()  # what it has to say of them is said then
    assert [line for line in server.output[heard:] if "failed" in line or "Traceback" in line] == []


def test_a_lost_token_is_made_again_on_the_servers_machine(server: ServerProcess, database_url: str) -> None:
    made = _cli("token", "--data", str(server.data), EDGEML_DATABASE=database_url)
    assert made.returncode == 0, made.stderr
    assert server.call("GET", "/v1/tokens", token=made.stdout.strip())[0] == 200


def test_backup_and_restore_by_command(server: ServerProcess, database_url: str, tmp_path: Path) -> None:
    _enrol(server)
    made = _cli("backup", str(tmp_path / "b.tar"), "--data", str(server.data), EDGEML_DATABASE=database_url)
    assert made.returncode == 0, made.stderr
    restored = _cli("restore", str(tmp_path / "b.tar"), "--data", str(tmp_path / "new"), EDGEML_DATABASE="")
    assert restored.returncode == 0, restored.stderr
    with ServerProcess(tmp_path / "new", admin_token=server.admin_token) as other:
        assert len(other.call("GET", "/v1/devices")[1]["devices"]) == 1


def test_sqlite_has_one_process(tmp_path: Path) -> None:
    refused = _cli("run", "--data", str(tmp_path / "server"), "--port", "0", "--workers", "2")
    assert refused.returncode == 2
    assert "PostgreSQL" in refused.stderr
    with ServerProcess(tmp_path / "server"):
        second = _cli("run", "--data", str(tmp_path / "server"), "--port", "0")
        assert second.returncode == 2
        assert "another server" in second.stderr


def test_workers_hear_of_each_others_changes_and_are_started_again(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.create()
    with ServerProcess(tmp_path / "server", url, options=["--workers", "3"]) as server:
        token = _enrol(server)
        device = server.call("GET", "/v1/devices")[1]["devices"][0]["id"]
        for generation in range(6):
            polls: list[int] = []
            headers = {"If-None-Match": f'"{generation}"', "Connection": "close"}
            threads = [
                threading.Thread(
                    target=lambda headers=headers, polls=polls: polls.append(
                        server.call("GET", "/v1/agent/state?wait=55", token=token, headers=headers)[0]
                    )
                )
                for _ in range(3)
            ]
            for thread in threads:
                thread.start()
            time.sleep(0.3)
            server.call("PUT", f"/v1/devices/{device}/models/kws", {"release": None})
            for thread in threads:
                thread.join(60)
            assert polls == [200, 200, 200]
            if generation == 2:
                before = set(_workers(server))
                os.kill(min(before), signal.SIGKILL)
                eventually(lambda seen=before: len(set(_workers(server)) - seen) == 1)  # type: ignore[misc] # bound now
        workers = _workers(server)
        assert len(workers) == 3
        server._process.kill()
        assert all(gone(pid) for pid in workers)
    postgres.drop(url)


def _workers(server: ServerProcess) -> list[int]:
    """Give the processes that it started and that run."""
    argv = ["pgrep", "-P", str(server.pid)]
    listed = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()
    return [int(pid) for pid in listed if is_running(int(pid))]


def test_it_serves_tls(tmp_path: Path) -> None:
    cert, key = _certificate(tmp_path)
    with ServerProcess(
        tmp_path / "server", options=["--tls-cert", str(cert), "--tls-key", str(key)]
    ) as server:
        assert server.url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(cert))
        deadline = time.monotonic() + 60
        while True:
            try:
                with (
                    socket.create_connection(_address(server)) as plain,
                    context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
                ):
                    wrapped.sendall(b"GET /v1/server HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    assert wrapped.recv(100).startswith(b"HTTP/1.1 401 ")
                    break
            except ConnectionError:
                assert time.monotonic() < deadline


def test_files_that_are_no_certificate_and_its_key_end_it_before_it_begins(tmp_path: Path) -> None:
    cert, _ = _certificate(tmp_path)
    (tmp_path / "of another").mkdir()
    other = _certificate(tmp_path / "of another")[1]
    for options in (("--tls-cert", cert), ("--tls-cert", cert, "--tls-key", other)):
        ended = _cli("run", "--port", "0", "--data", str(tmp_path / "server"), *map(str, options))
        assert (ended.returncode, ended.stdout) == (2, "")
    assert f"{cert} and {other} are no certificate and its key" in ended.stderr
    assert not (tmp_path / "server").exists()


def test_a_database_that_is_not_there_is_told_without_its_password(
    postgres: Postgres, tmp_path: Path
) -> None:
    there = postgres.create()
    place = ["--data", str(tmp_path / "server"), "--port", "0"]
    for url, said in (
        (urlsplit(there)._replace(path="/missing").geturl(), 'database "missing" does not exist'),
        ("postgresql://anna:geheim@127.0.0.1:9/fleet", "postgresql+asyncpg://anna:***@127.0.0.1:9/fleet"),
    ):
        ended = _cli("run", *place, EDGEML_DATABASE=url)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert said in ended.stderr
        assert "EDGEML_DATABASE" in ended.stderr
        assert "geheim" not in ended.stderr
    postgres.drop(there)


def test_one_that_listens_everywhere_is_called_by_the_machines_name(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "server", options=["--host", "0.0.0.0"]) as server:  # noqa: S104 - what it is about
        assert server.printed(f"EDGEML_SERVER=http://{platform.node()}:")
        assert server.printed("is not https: anyone on the way can read tokens")


def test_an_address_in_use_is_said_in_a_sentence(server: ServerProcess, tmp_path: Path) -> None:
    taken = _cli("run", "--data", str(tmp_path / "other"), "--port", str(_address(server)[1]))
    assert taken.returncode == 2
    assert "cannot listen on 127.0.0.1" in taken.stderr


def _certificate(folder: Path) -> tuple[Path, Path]:
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


def test_the_caller_is_whom_the_proxy_names_only_where_there_is_one(tmp_path: Path) -> None:
    for options, expected in (["--behind-proxy"], "203.0.113.9"), ([], "127.0.0.1"):
        with ServerProcess(tmp_path / f"server{len(options)}", options=options) as server:
            forwarded = {"X-Forwarded-For": "203.0.113.9"}
            nobody = {"Authorization": "Bearer nobody"}
            assert server.call("GET", "/v1/server", headers=forwarded | nobody)[0] == 401
            rows = server.call("GET", "/v1/audit?action=refused")[1]["audit"]
            assert f"anonymous:{expected}" in {row["actor"] for row in rows}
            assert len(rows) <= 2


def test_a_port_that_is_taken_leaves_no_folder_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [
            sys.executable,
            "-m",
            "edgeml",
            "server",
            "run",
            "--data",
            str(tmp_path / "new"),
            "--port",
            port,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert not (tmp_path / "new").exists()
