"""Whatever the line does, a request is run as it was meant or not at all, and an answer is right or none."""

from __future__ import annotations

import base64
import random
import subprocess

import pytest
from edgeml_devices.transports.serial_frames import (
    LINE_BYTES,
    Answer,
    cksum,
    escaped,
    find_answer,
    request_lines,
)
from edgeml_devices.transports.serial_receiver import launch, sums, word_sum, words
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.testing.serial_lines import KERNEL_MESSAGE, Noise

ID = "0123abcd.7"
seeds = st.integers(0, 2**32 - 1)


def answer_lines(status: int, data: bytes, request_id: str = ID) -> bytes:
    """What the receiver prints."""
    checked = f"{request_id} {status}\n".encode() + data
    last = f">{request_id} {status} {cksum(checked)} {len(checked)}\r\n".encode()
    body = base64.encodebytes(data).replace(b"\n", b"\r\n")
    return f"<{request_id}\r\n".encode() + body + last + last


@given(st.binary(max_size=4000))
@settings(max_examples=30)
def test_the_checksum_is_that_of_cksum(data):
    found = subprocess.run(["cksum"], input=data, capture_output=True, check=True).stdout.split()
    assert found == [str(cksum(data)).encode(), str(len(data)).encode()]


@given(st.binary(max_size=3000))
def test_an_answer_is_read_back(data):
    assert find_answer(answer_lines(3, data), ID) == Answer(3, data)


@given(st.binary(min_size=1, max_size=600), seeds, st.sampled_from([1e-4, 1e-3, 1e-2, 1e-1]))
@settings(max_examples=300)
def test_a_damaged_answer_is_right_or_none(data, seed, rate):
    noise = Noise(rate, rate, rate, rate, seed)
    received = noise.on(answer_lines(0, data), from_machine=True)
    assert find_answer(received, ID) in {None, Answer(0, data)}


@given(st.binary(max_size=300), st.binary(max_size=300), seeds)
@settings(max_examples=200)
def test_an_answer_among_pieces_of_others_is_its_own_or_none(data, other, seed):
    pieces = [answer_lines(0, data), answer_lines(1, other), answer_lines(0, other, "0123abcd.6")]
    source = random.Random(seed)  # noqa: S311 - noise
    received = b"".join(piece[source.randrange(len(piece)) :] for piece in source.sample(pieces, 3))
    received += answer_lines(0, data)
    assert find_answer(received, ID) in {Answer(0, data), Answer(1, other)}


@given(st.binary(max_size=2000))
def test_bytes_of_any_kind_are_no_answer(data):
    assert find_answer(data, ID) is None


def test_kernel_messages_between_the_lines_do_no_harm():
    lines = answer_lines(0, bytes(range(256))).splitlines(keepends=True)
    received = b"".join(KERNEL_MESSAGE % (1, 2, 3) + line for line in lines)
    assert find_answer(received, ID) == Answer(0, bytes(range(256)))


def test_hexadecimal_is_read_where_the_machine_has_no_base64():
    data = bytes(range(256))
    dump = subprocess.run(["od", "-An", "-v", "-tx1"], input=data, capture_output=True, check=True).stdout
    checked = f"{ID} 0\n".encode() + data
    received = f"<{ID}\n".encode() + dump + f">{ID} 0 {cksum(checked)} {len(checked)}\n".encode()
    assert find_answer(received, ID) == Answer(0, data)


@given(st.binary(max_size=3000), st.integers(16, 480))
def test_lines_of_a_request_are_short_printable_and_comments_to_a_shell(script, part):
    for line in request_lines(ID, script, part):
        assert len(line) <= LINE_BYTES
        assert line.endswith(b"\n")
        assert line == b"\n" or line.startswith(b"#")
        assert all(0x20 <= byte < 0x7F for byte in line[:-1])


@given(st.binary(max_size=300).filter(lambda data: b"\0" not in data))
@settings(max_examples=30)
def test_an_escaped_script_is_what_printf_gives_back(script):
    done = subprocess.run(
        ["sh", "-c", 'printf %b "$1"', "sh", escaped(script)], capture_output=True, check=True
    )
    assert done.stdout == script


SHELLS = ["dash", "bash --posix", "busybox sh"]


class Receiver:
    """The machine's end, fed through a pipe."""

    def __init__(self, shell: str, folder, nonce: str = "0123abcd") -> None:
        self.shell = shell.split()
        parts = words(nonce)
        whole = subprocess.run(
            [*self.shell, "-c", 'printf %b "$1"', "sh", "".join(parts)], capture_output=True, check=True
        )
        self.script = folder / "receiver"
        self.script.write_bytes(whole.stdout)
        self.folder = folder / "d"

    def run(self, received: bytes) -> bytes:
        self.folder.mkdir()
        argv = [*self.shell, str(self.script), str(self.folder)]
        return subprocess.run(argv, input=received, capture_output=True, check=False, timeout=60).stdout


@pytest.fixture(params=SHELLS)
def receiver(request, tmp_path, require):
    import shutil

    require(shutil.which(request.param.split()[0]), f"no {request.param.split()[0]}; install it")
    return Receiver(request.param, tmp_path)


def test_a_request_is_run_and_answered(receiver):
    printed = receiver.run(b"".join(request_lines(ID, b"printf 'a\\nb'; echo c >&2; (exit 5)")))
    assert find_answer(printed, ID) == Answer(5, b"a\nbc\n")


def test_a_request_that_comes_twice_is_run_once_and_answered_twice(receiver, tmp_path):
    request = b"".join(request_lines(ID, f"echo run | tee -a {tmp_path}/log".encode()))
    printed = receiver.run(request + request)
    assert (tmp_path / "log").read_text() == "run\n"
    assert printed.count(f"<{ID}".encode()) == 2


def test_a_request_of_another_session_is_not_run(receiver, tmp_path):
    receiver.run(b"".join(request_lines("ffffffff.7", f"touch {tmp_path}/run".encode())))
    assert not (tmp_path / "run").exists()


def test_requests_damaged_in_any_way_are_run_as_meant_or_not_at_all(receiver, tmp_path):
    """One process takes 400 damaged requests; what it ran is what some request said, each at most once."""
    log = tmp_path / "log"
    source = random.Random(99)  # noqa: S311 - noise
    sent = b""
    for number in range(400):
        rate = source.choice([1e-3, 5e-3, 2e-2])
        noise = Noise(rate, rate, rate, 0, source.randrange(2**32))
        request = request_lines(f"0123abcd.{number}", f"echo {number:06d}-{number * 7:06d} >> {log}".encode())
        sent += noise.on(b"".join(request), from_machine=False)
    receiver.run(sent)
    ran = [line.split("-") for line in log.read_text().splitlines()]
    assert len(ran) > 100
    assert all(len(parts) == 2 and int(parts[1]) == int(parts[0]) * 7 for parts in ran)
    numbers = [int(parts[0]) for parts in ran]
    assert numbers == sorted(set(numbers))


@given(seeds)
@settings(max_examples=25)
def test_words_damaged_on_their_way_are_told_by_their_sums(seed):
    parts = words("0123abcd")
    noise = Noise(1e-3, 1e-3, 1e-3, 0, seed)
    typed = [
        noise.on(f"e{number}='{part}'\n".encode(), from_machine=False) for number, part in enumerate(parts)
    ]
    for number, line in enumerate(typed):
        arrived = line.removeprefix(f"e{number}='".encode()).removesuffix(b"'\n").decode("latin-1")
        if arrived != parts[number]:
            assert word_sum(number, arrived) != word_sum(number, parts[number])


def test_the_sums_of_words_that_have_arrived_are_printed_as_expected(tmp_path):
    parts = words("0123abcd")
    typed = "".join(f"e{number}='{part}'\n" for number, part in enumerate(parts))
    done = subprocess.run(
        ["sh"], input=f"{typed}{sums(list(range(len(parts))))}\n".encode(), capture_output=True, check=True
    )
    assert done.stdout.splitlines() == [word_sum(number, part) for number, part in enumerate(parts)]


def test_the_receiver_is_not_started_from_words_that_are_damaged():
    parts = words("0123abcd")
    typed = "".join(f"e{number}='{part}'\n" for number, part in enumerate(["X", *parts[1:]]))
    done = subprocess.run(
        ["sh", "-x"], input=f"{typed}{launch(parts)}\n".encode(), capture_output=True, check=False
    )
    assert b"mktemp" not in done.stderr
