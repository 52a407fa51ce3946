"""Whether the home that a deploy has taken may be taken from it."""

from __future__ import annotations

import subprocess

from edgeml_devices.install.owner import may_take, new_owner


def test_a_living_process_keeps_what_it_has():
    assert not may_take(new_owner())


def test_a_process_that_is_gone_loses_it():
    boot, _, started, random = new_owner().split(".")
    process = subprocess.Popen(["true"])
    process.wait()
    assert may_take(f"{boot}.{process.pid}.{started}.{random}")


def test_another_process_with_the_same_number_is_not_it():
    boot, pid, started, random = new_owner().split(".")
    assert may_take(f"{boot}.{pid}.{int(started) - 1}.{random}")


def test_what_another_machine_has_is_not_known_to_be_gone():
    assert not may_take("4711d5a6-0000-0000-0000-000000000000.999999.1.aa")
    assert not may_take("somebody")


def test_each_deploy_has_a_name_of_its_own():
    assert new_owner() != new_owner()
