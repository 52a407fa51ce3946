"""Answers have the keys that docs/reference/json.md names, and no others."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeml.reference_data import feature_reference
from edgeml.telemetry.reference import Reference, reference_to_json, with_digest
from edgeml.telemetry.report import Sample
from tests.conftest import REPOSITORY
from tests.integration.server import signed_repository as sr
from tests.integration.server.devices import enrol
from tests.integration.telemetry.windows import Telemetry, model_window, post

pytestmark = pytest.mark.anyio
OF_THE_COMMAND = {"judged", "saved"}
VALUES = {"up", "down", "wider", "narrower", "other"}


def documented(command: str) -> set[str]:
    text = (REPOSITORY / "docs" / "reference" / "json.md").read_text()
    (row,) = re.findall(rf"^\| `{command}` \| (.+) \|$", text, re.MULTILINE)
    return set(re.findall(r"`([a-z_]+)`", row)) - OF_THE_COMMAND - VALUES


def keys(answer: Any) -> Iterator[str]:
    if isinstance(answer, dict):
        for key, value in answer.items():
            yield key
            yield from keys(value)
    elif isinstance(answer, list):
        for one in answer:
            yield from keys(one)


@pytest.fixture
async def told(client) -> None:
    """A device that ran a release whose inputs have moved, for two days."""
    feature = feature_reference("x", np.random.default_rng(1).normal(size=2000))
    assert feature is not None
    reference = with_digest(Reference(2000, (feature,), classes={"class_00": 90, "class_01": 10}))
    await sr.publish(client, await sr.init(client), "kws", 1, reference_to_json(reference))
    device = await enrol(client, "pi")
    chance = random.Random(1)  # noqa: S311 - made-up data
    telemetry, now = Telemetry(chance), time.time()
    moved = {"x": feature.count(np.random.default_rng(2).normal(2, size=500).tolist())}
    window = replace(model_window(chance), features=moved, reference=reference.digest)
    kept = (Sample(now, "unsure", 0.1, "class_00", 0.5),)
    reports = [
        telemetry.next(now - 3600 * (48 - hour), models=(replace(window, samples=kept),))
        for hour in range(48)
    ]
    telemetry.seq += 2
    reports.append(telemetry.next(now - 1))
    answer = await post(client, device.token, telemetry.batch(reports, now))
    assert answer.status_code == 200, answer.text


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(
    ("command", "query"),
    [
        ("edgeml telemetry rate", {}),
        ("edgeml telemetry drift", {}),
        ("edgeml telemetry drift --slow", {"slow": True}),
        ("edgeml telemetry coverage", {}),
        ("edgeml telemetry samples", {}),
    ],
)
async def test_answers_have_the_keys_that_are_documented(client, command, query) -> None:
    question = command.split()[2]
    answer = await client.get(f"/v1/telemetry/{question}", params={"since": 0, **query})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["answers"], "an answer of nothing proves nothing"
    assert set(keys(found)) == documented(command)
