"""What a seed says of a fleet, and scenario files that cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from edgeml_devices.simulator.plan import foresee, plan
from edgeml_devices.simulator.scenario import Group, Rollout, Scenario, Telemetry, read_scenario

from edgeml.errors import UsageError

MIXED = Scenario(
    devices=200,
    duration_s=30.0,
    seed=7,
    telemetry=Telemetry(window_s=5.0, calls=(10, 20)),
    groups=(
        Group("sound", 0.75),
        Group("odd", 0.25, selftest_fails=0.5, cloned=0.5, cloned_at_s=(5, 20), dies=0.2, dies_at_s=(1, 29)),
    ),
    rollouts=(Rollout("digits", 2),),
)


def test_the_same_seed_gives_the_same_fleet_and_another_one_another() -> None:
    assert foresee(MIXED, plan(MIXED)) == foresee(MIXED, plan(MIXED))
    other = replace(MIXED, seed=8)
    assert foresee(MIXED, plan(MIXED)) != foresee(other, plan(other))


def test_groups_have_their_shares_and_results_add_up_to_all_devices() -> None:
    devices = plan(MIXED)
    foreseen = foresee(MIXED, devices)
    assert sum(one.group.name == "odd" for one in devices) == 50
    assert foreseen.present == sum(one.gone_at(30.0) is None for one in devices) < 200
    assert sum(foreseen.results[0].values()) == 200
    assert foreseen.results[0]["FAILED_NO_STATE_CHANGE"] > 5


def test_a_copy_adds_the_windows_after_it_was_made() -> None:
    one = Scenario(devices=1, telemetry=Telemetry(window_s=5.0), groups=(Group(cloned=1.0),))
    alone = replace(one, groups=(Group(),))
    assert foresee(one, plan(one)).windows == 2 * foresee(alone, plan(alone)).windows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("device = 5", "unknown key 'device'"),
        ("devices = 0", "devices: must be 1 to"),
        ("devices = 'x'", "devices: must be a whole number"),
        ("[[groups]]\nshare = 0.5", "their shares must be 1 together, they are 0.5"),
        ("[[groups]]\nsize = 1", "unknown key 'size'"),
        ("[[groups]]\ndies = 2", "dies: must be 0 to 1, got 2"),
        ("[[rollouts]]\nrelease = 1", "model: missing"),
        ("[telemetry]\nwindow_s = 1e-9", "window_s: 1e-09 makes more than 10000000 windows"),
        ("[[rollouts]]\nmodel = 'm'\nrelease = 99999999999999999999", "release: must be 1 to"),
        ("[[rollouts]]\nmodel = 'm'\nstarts_s = nan", "starts_s: must be 0 or more, got nan"),
        ("[[rollouts]]\nmodel = 'm'\nexpect = 'finished'", "expect: .*FINISHED, got 'finished'"),
        ("[[rollouts]]\nmodel = 'm'\n[rollouts.rules]\ngroup = 'g'", "group is the simulator's to set"),
    ],
)
def test_a_scenario_that_cannot_be_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_scenario(file)
