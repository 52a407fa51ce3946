"""`edgeml simulate --plan`: what a server should hold, without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from edgeml_devices.simulator.cli import simulate

from edgeml.errors import ServerError, UsageError
from tests.conftest import REPOSITORY

SCENARIOS = sorted((REPOSITORY / "examples" / "simulate").glob("*.toml"))


def planned(scenario: Path, *options: str) -> dict[str, Any]:
    done = CliRunner().invoke(simulate, [str(scenario), "--plan", "--json", *options], catch_exceptions=False)
    assert done.exit_code == 0
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.stem)
def test_each_example_can_be_planned_without_a_server(scenario: Path) -> None:
    found = planned(scenario, "--devices", "200")
    assert found["devices"] == 200
    assert found["windows"] > 0
    assert all(sum(one["results"].values()) == 200 for one in found["rollouts"])


def test_the_seed_of_the_command_line_gives_another_fleet() -> None:
    first, again, other = (planned(SCENARIOS[0], "--seed", seed) for seed in ("1", "1", "2"))
    assert first == again
    assert first["inferences"] != other["inferences"]


def test_the_plan_is_a_table_without_json() -> None:
    done = CliRunner().invoke(simulate, [str(SCENARIOS[0]), "--plan"], catch_exceptions=False)
    assert "FAILED_ROLLBACK_COMPLETE" in done.stdout


def test_more_devices_than_can_be_are_refused() -> None:
    with pytest.raises(UsageError, match="devices: must be 1 to"):
        CliRunner().invoke(simulate, [str(SCENARIOS[0]), "--devices", "1000000"], catch_exceptions=False)


def test_a_server_that_is_not_there_is_said_at_once_with_a_join_token_too() -> None:
    with pytest.raises(ServerError, match="cannot be reached"):
        CliRunner().invoke(
            simulate,
            [str(SCENARIOS[-2]), "--server", "http://127.0.0.1:1", "--token", "t", "--join-token", "j"],
            catch_exceptions=False,
        )
