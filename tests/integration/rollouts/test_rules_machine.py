"""Random operators and devices against a rollout in a real database, held to a simple model of the rules.

The model knows what each device was asked and what it said, and nothing of the engine: it counts by itself.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from edgeml_devices.messages import State
from edgeml_devices.server.database import Database
from edgeml_devices.server.migrate import migrate
from edgeml_devices.server.refusals import RefusalError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.integration.rollouts.fleet import Fleet

GOING = ("WAITING", "HELD", "ASSIGNED")
SITES = ("berlin", "lagos")
MARGIN = 1e-6


class RolloutMachine(RuleBasedStateMachine):
    """One rollout of at most a dozen devices."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.rollout = ""
        self.asked: dict[tuple[str, int], str] = {}
        """(device, attempt) to its outcome as the model has it; "" while there is none."""
        self.by_hand: set[str] = set()
        self.forgiven: set[tuple[str, int]] = set()
        self.state = ""
        self.wave = 0

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        if self.rollout:
            self.run(self.fleet.database.close())
        self.loop.close()
        shutil.rmtree(self.folder)

    @initialize(
        berlin=st.integers(1, 6),
        lagos=st.integers(0, 5),
        waves=st.sampled_from(
            [
                [{"percent": 100}],
                [{"count": 1}, {"percent": 50}, {"percent": 100}],
                [{"selector": "site=lagos"}, {"percent": 100}],
                [{"percent": 10}, {"percent": 20}, {"percent": 100}],
            ]
        ),
        threshold=st.sampled_from([0.3, 0.5, 0.9, 1.0]),
        failed_share=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
        sample=st.integers(1, 5),
        at_once=st.one_of(st.none(), st.integers(1, 4)),
        budget=st.one_of(st.none(), st.integers(1, 2)),
        on_error=st.sampled_from(["pause", "abort"]),
    )
    def begin(
        self,
        berlin: int,
        lagos: int,
        waves: list[dict[str, Any]],
        threshold: float,
        failed_share: float,
        sample: int,
        at_once: int | None,
        budget: int | None,
        on_error: str,
    ) -> None:
        self.policy: dict[str, Any] = {
            "waves": waves,
            "success_threshold": threshold,
            "max_failed_share": failed_share,
            "min_sample": sample,
            "on_error": on_error,
            "penalty": {"failures": 100},
        }
        self.policy |= {} if at_once is None else {"max_concurrent": at_once}
        self.policy |= {} if budget is None else {"budget": {"group_by": "site", "max_unavailable": budget}}
        self.site: dict[str, str] = {}

        async def make() -> None:
            database = await Database.open(f"sqlite:///{self.folder / 'machine.db'}")
            await migrate(database)
            self.fleet = Fleet(database)
            await self.fleet.publish(1, 2, 3)
            for site, number in zip(SITES, (berlin, lagos), strict=True):
                if number:
                    ids = await self.fleet.add(number, labels={"site": site})
                    self.site |= dict.fromkeys(ids, site)
            self.rollout = await self.fleet.start(**self.policy)

        self.run(make())
        self.look(ticked=False)
        self.tick(1)

    # --- what the model sees

    def look(self, *, ticked: bool, advanced: bool = False) -> None:
        """Read the rows, and hold every change to the rules."""
        before_state, before_wave = self.state, self.wave
        found = self.run(self.fleet.rollout(self.rollout))
        self.state, self.wave = found.state, found.wave
        self.rows = self.run(self.fleet.rows(self.rollout))
        started = [
            (one, row.attempt)
            for one, row in self.rows.items()
            if row.attempt is not None and (one, row.attempt) not in self.asked
        ]
        assert not started or (ticked and before_state == "RUNNING"), "only a running rollout starts devices"
        for device, attempt in started:
            assert attempt == 1 + max((a for d, a in self.asked if d == device), default=0)
            assert self.rows[device].wave <= self.wave, "no device of a wave that was not released"
            self.asked[device, attempt] = ""
        if ticked and self.wave > before_wave:
            assert self.wave == before_wave + 1
            self.check_advance(before_wave)
        if not ticked and not advanced:
            assert self.wave in {before_wave, 1}

    def counting(self, wave: int, *, rows_alone: bool = False) -> Counter[str]:
        """Count a wave from the model: what each device said of the attempt that it was asked last.

        With ``rows_alone`` only what a tick has seen; who spoke since then counts as going.
        """
        counts: Counter[str] = Counter()
        for device, row in self.rows.items():
            if row.wave != wave or row.state in {"SKIPPED", "CANCELLED"}:
                continue
            attempt = max((a for d, a in self.asked if d == device), default=0)
            said = self.asked.get((device, attempt), "")
            if (device, attempt) in self.forgiven and row.state == "FAILED":
                continue
            going = row.state in GOING or (rows_alone and row.state == "SUCCEEDED" and said == "bad")
            counts["going" if going else said] += 1
        return counts

    def check_advance(self, wave: int) -> None:
        counts = self.counting(wave)
        if counts.total():
            assert counts["good"] >= self.policy["success_threshold"] * counts.total() - MARGIN

    # --- what happens

    @rule(seconds=st.sampled_from([1, 1, 1, 6]))
    def tick(self, seconds: int) -> None:
        was = self.state
        self.run(self.fleet.tick(seconds))
        # a tick may do several things in a row; the model looks at the end of all
        wave = self.wave
        found = self.run(self.fleet.rollout(self.rollout))
        if found.wave > wave + 1:
            self.wave = found.wave - 1
        self.look(ticked=True)
        if was in {"RUNNING", "PAUSED"}:
            self.check_outcomes()
        if was == "RUNNING" and self.state != "RUNNING":
            self.check_stop()

    def check_stop(self) -> None:
        """A rollout that stopped by itself had a reason that the model sees, too."""
        if self.state == "FINISHED":
            counts = self.counting(len(self.policy["waves"]))
            assert counts["good"] >= self.policy["success_threshold"] * counts.total() - MARGIN
            return
        for wave in range(1, self.wave + 1):
            counts = self.counting(wave)
            if self.has_too_many_failures(counts):
                return
        assert self.state == "PAUSED"
        counts = self.counting(self.wave)
        needed = self.policy["success_threshold"] * counts.total()
        assert counts.total() == 0 or counts.total() - counts["bad"] < needed

    def has_too_many_failures(self, counts: Counter[str]) -> bool:
        ended = counts["good"] + counts["bad"]
        sample = max(1, min(self.policy["min_sample"], counts.total()))
        return ended >= sample and counts["bad"] > self.policy["max_failed_share"] * ended + MARGIN

    def check_outcomes(self) -> None:
        for device, row in self.rows.items():
            if row.attempt is None or row.state in {"WAITING", "SKIPPED", "CANCELLED"}:
                continue
            said = self.asked[device, row.attempt]
            if device in self.by_hand and not said:
                continue
            expected = {"": "ASSIGNED", "good": "SUCCEEDED", "bad": "FAILED"}[said]
            assert row.state == expected, (device, said)

    def under_way(self) -> list[str]:
        return sorted(
            one for one, row in self.rows.items() if row.state == "ASSIGNED" and one not in self.by_hand
        )

    def pick(self, devices: list[str], place: int) -> tuple[str, int]:
        device = devices[place % len(devices)]
        return device, self.rows[device].attempt

    @precondition(lambda self: self.rollout and [one for one in self.under_way() if not self.said(one)])
    @rule(place=st.integers(0, 11), state=st.sampled_from([State.FETCHING, State.PROBATION]))
    def get_on(self, place: int, state: State) -> None:
        device, _ = self.pick([one for one in self.under_way() if not self.said(one)], place)
        self.run(self.fleet.at(state, device))

    def said(self, device: str) -> str:
        return self.asked[device, self.rows[device].attempt]

    @precondition(lambda self: self.rollout and [one for one in self.under_way() if not self.said(one)])
    @rule(ends=st.lists(st.sampled_from(["good", "good", "good", "bad", ""]), min_size=1, max_size=12))
    def end(self, ends: list[str]) -> None:
        """Have devices under way come to an end, and tick."""
        devices = [one for one in self.under_way() if not self.said(one)]
        for device, said in zip(devices, ends, strict=False):
            if said:
                self.run(self.fleet.commit(device) if said == "good" else self.fleet.fail(device))
                self.asked[device, self.rows[device].attempt] = said
        self.tick(1)

    @precondition(lambda self: self.rollout and self.committed())
    @rule(place=st.integers(0, 11))
    def fall_back(self, place: int) -> None:
        key = self.pick(self.committed(), place)
        self.run(self.fleet.say(key[0], State.IDLE, running=1, target=2, attempt=key[1]))
        self.asked[key] = "bad"
        self.tick(1)

    def committed(self) -> list[str]:
        return sorted(
            one
            for one, row in self.rows.items()
            if row.state == "SUCCEEDED" and one not in self.by_hand and self.said(one) == "good"
        )

    @precondition(lambda self: self.rollout and len(self.site) < 12)
    @rule(site=st.sampled_from(SITES))
    def enter(self, site: str) -> None:
        (device,) = self.run(self.fleet.add(1, labels={"site": site}))
        self.site[device] = site

    @precondition(lambda self: self.rollout and self.under_way())
    @rule(place=st.integers(0, 11))
    def assign_by_hand(self, place: int) -> None:
        device, _ = self.pick(self.under_way(), place)
        self.run(self.fleet.assign_by_hand(device, 3))
        self.by_hand.add(device)

    @rule(
        verb=st.sampled_from(["resume", "resume", "pause", "advance", "retry", "abort"]),
        sure=st.integers(0, 5),
    )
    def operate(self, verb: str, sure: int) -> None:
        if verb == "abort" and sure:
            return  # rare, or no rollout gets far
        more = {"pause": [""], "abort": [""], "retry": [[]]}.get(verb, [])
        failed = {
            (one, row.attempt) for one, row in self.rows.items() if row.state == "FAILED" and row.attempt
        }
        allowed = {
            "pause": {"RUNNING"},
            "resume": {"PAUSED"},
            "abort": {"RUNNING", "PAUSED"},
        }.get(verb, {"RUNNING", "PAUSED"})
        try:
            self.run(self.fleet.act(verb, self.rollout, *more))
        except RefusalError:
            assert self.state not in allowed
            return
        assert self.state in allowed
        if verb in {"resume", "advance"}:
            self.forgiven |= failed
        self.look(ticked=False, advanced=verb == "advance")

    # --- what always holds

    @invariant()
    def never_too_many_are_under_way(self) -> None:
        if not self.rollout:
            return
        going = [one for one, row in self.rows.items() if row.state == "ASSIGNED"]
        assert len(going) <= self.policy.get("max_concurrent", 99)
        if "budget" in self.policy:
            by_site = Counter(self.site[one] for one in going)
            assert all(number <= self.policy["budget"]["max_unavailable"] for number in by_site.values())

    @invariant()
    def it_is_finished_only_when_every_device_has_an_outcome(self) -> None:
        if self.state in {"FINISHED", "ABORTED"}:
            assert not [one for one, row in self.rows.items() if row.state in GOING]

    @invariant()
    def a_running_rollout_has_no_wave_with_too_many_failures_that_were_seen(self) -> None:
        if self.state != "RUNNING":
            return
        for wave in range(1, self.wave + 1):
            seen = self.counting(wave, rows_alone=True)
            assert not self.has_too_many_failures(seen)

    @invariant()
    def every_wave_began_once_and_in_order(self) -> None:
        if self.rollout:
            log = self.run(self.fleet.log("rollout.wave"))
            assert [row.detail["wave"] for row in log] == list(range(1, self.wave + 1))

    @invariant()
    def what_was_cancelled_is_assigned_no_more(self) -> None:
        if self.state == "ABORTED":
            assigned = self.run(self.fleet.assigned())
            for one, row in self.rows.items():
                if row.state == "CANCELLED" and row.reason == "aborted" and one in assigned:
                    assert assigned[one].rollout_id != self.rollout


SETTINGS = settings(
    max_examples=15,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestRollouts = RolloutMachine.TestCase
TestRollouts.settings = SETTINGS


@pytest.mark.soak
class TestManyRollouts(RolloutMachine.TestCase):  # type: ignore[misc,name-defined]
    settings = settings(SETTINGS, max_examples=200)
