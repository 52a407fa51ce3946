"""Publishing is killed at every stage and run again: nothing half-published, nothing sent twice."""

from __future__ import annotations

import signal

import pytest

from edgeml.testing.networks import BadNetwork

WEIGHTS = bytes(range(256)) * 8000
AROUND_BYTES = 60_000
"""More than all requests of one run but the files' content."""


@pytest.fixture
def whole(shop):
    """How many bytes a run sends that nothing disturbs, where the server has the labels already."""
    with BadNetwork(shop.url) as line:
        direct, shop.url = shop.url, line.url
        shop.do("publish", shop.bundle(100))
        before = line.sent_bytes
        shop.do("publish", shop.bundle(101, weights=WEIGHTS[::-1]))
        shop.url = direct
    return line.sent_bytes - before


def kill_at(shop, line, at_bytes, bundle):
    """Run ``publish`` and kill -9 it when so many bytes went up; say whether it was killed."""
    process = shop.start("publish", bundle)  # sends nothing before Python has started
    line.break_after(at_bytes, lambda: process.send_signal(signal.SIGKILL))
    output, _ = process.communicate(timeout=180)
    assert process.returncode in {0, -signal.SIGKILL}, output
    return process.returncode != 0


def test_killed_anywhere_it_goes_on(shop, whole):
    """From the first request through the upload to the last answer."""
    stages = [
        100,
        3000,
        whole // 2,
        whole - 4000,
        whole - 2500,
        whole - 1500,
        whole - 800,
        whole - 300,
        whole - 1,
    ]
    killed = 0
    with BadNetwork(shop.url) as line:
        direct, shop.url = shop.url, line.url
        for number, at_bytes in enumerate(stages, 1):
            bundle = shop.bundle(number, weights=WEIGHTS + bytes([number]))
            before = line.sent_bytes
            killed += kill_at(shop, line, at_bytes, bundle)
            listed = shop.listed()
            signed = shop.manifest_on_device(number)
            assert number not in listed or signed is not None
            again = shop.ask("publish", bundle)
            assert again["release"] == number
            assert shop.manifest_on_device(number, device=f"device-{number}")["release"] == number
            assert number in shop.listed()
            # the second run sent what the first had not: resumed within a few kB of requests
            assert line.sent_bytes - before < len(WEIGHTS) + 2 * AROUND_BYTES
        shop.url = direct
    assert killed >= len(stages) - 1


def test_a_run_that_lost_its_line_goes_on_by_itself(shop, whole):
    with BadNetwork(shop.url) as line:
        shop.url = line.url
        cuts = []
        line.break_after(
            whole // 3, lambda: line.break_after(whole // 3, lambda: cuts.append(2)) or cuts.append(1)
        )
        published = shop.ask("publish", shop.bundle(1, weights=WEIGHTS))
    assert published["status"] == "published"
    assert cuts == [1, 2]
    assert line.sent_bytes < len(WEIGHTS) + AROUND_BYTES


def test_a_server_that_is_killed_in_the_middle_finds_nothing_half_published(own, process):
    port = int(process.url.rpartition(":")[2])
    bundle = own.bundle(1, weights=WEIGHTS)
    with BadNetwork(own.url) as line:
        direct, own.url = own.url, line.url
        running = own.start("publish", bundle)
        line.break_after(len(WEIGHTS) // 2, lambda: (process.kill(), running.kill()))
        running.communicate(timeout=180)
        own.url = direct
    process.start(port=port)
    assert own.manifest_on_device(1) is None
    assert own.listed() == []
    own.do("publish", bundle)
    assert own.manifest_on_device(1) is not None
