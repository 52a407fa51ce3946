"""The server's word is kept, and bounded: a server that says nonsense must not make a device unreachable."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
from edgeml_devices.agent.desired import MODELS_LIMIT, Desired
from edgeml_devices.agent.home import Home
from edgeml_devices.agent.origins import SignedOrigin
from edgeml_devices.agent.sources import FolderSource
from edgeml_devices.agent.trust import Trust
from edgeml_devices.messages import Assignment, DesiredState


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def desired(home: Home) -> Desired:
    return Desired(home, SignedOrigin(Trust(home.trust), FolderSource(home.path), offline=True))


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        (20.0, 20.0),
        (0.0, 1.0),
        (-100.0, 1.0),
        (1e300, 3600.0),
        (math.inf, 55.0),
        (-math.inf, 55.0),
        (math.nan, 55.0),
    ],
)
def test_a_poll_waits_for_a_second_to_an_hour(
    desired: Desired, home: Home, said: float, taken: float
) -> None:
    desired.take(DesiredState(1, poll_s=said))
    assert desired.poll_s == taken
    assert Desired(home, None).poll_s == taken


@pytest.mark.parametrize(
    ("open_for_s", "is_open"),
    [(None, True), (60.0, True), (0.0, False), (-5.0, False), (math.inf, False), (math.nan, False)],
)
def test_a_window_is_open_for_a_number_of_seconds(
    desired: Desired, open_for_s: float | None, is_open: bool
) -> None:
    desired.take(DesiredState(1, {"kws": Assignment(1, open_for_s=open_for_s)}))
    wish = desired.wish("kws")
    assert wish is not None
    assert wish.is_open(desired._received_at or 0.0) is is_open


def test_no_more_models_are_taken_than_a_device_can_work_on(
    desired: Desired, home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    """What is here already comes first: its orders must still arrive."""
    home.model("z-runs-here").folder.mkdir(parents=True)
    models = {f"model-{number:04}": Assignment(1) for number in range(3000)}
    with caplog.at_level(logging.ERROR):
        desired.take(DesiredState(1, models | {"z-runs-here": Assignment(2)}))
    assert len(desired.models()) == MODELS_LIMIT
    assert desired.wish("z-runs-here") is not None
    assert Desired(home, None).models() == desired.models()
    assert "wants 3001 models of this device, which takes 200" in caplog.text
