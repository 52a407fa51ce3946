"""From what holds to what fires: on time, not twice, and not for ever."""

from __future__ import annotations

from edgeml_devices.server.alerts.expressions import parse
from edgeml_devices.server.alerts.receivers import MOST_IN_MESSAGE, as_text, message
from edgeml_devices.server.alerts.rules import Rule
from edgeml_devices.server.alerts.states import FORGET_AFTER_S, Alert, AlertState, Key, advance, is_news
from hypothesis import given
from hypothesis import strategies as st

ONE: Key = (("device", "pi-1"),)
TWO: Key = (("device", "pi-2"),)


def rule(for_s: float = 60, keep_firing_s: float = 0) -> Rule:
    return Rule("Slow", "g", parse("error_rate > 0.1"), for_s, keep_firing_s, {"severity": "page"})


def after(of: Rule, *moments: tuple[float, dict[Key, float]]) -> dict[Key, Alert]:
    found: dict[Key, Alert] = {}
    for at, values in moments:
        found = advance(of, found, values, at)
    return found


def test_it_fires_once_it_has_held_for_as_long_as_the_rule_says() -> None:
    assert after(rule(), (0, {ONE: 1}), (59, {ONE: 2}))[ONE].state is AlertState.PENDING
    fired = after(rule(), (0, {ONE: 1}), (60, {ONE: 3}))[ONE]
    assert (fired.state, fired.value, fired.since, fired.fired_at) == (AlertState.FIRING, 3, 0, 60)


def test_a_pause_begins_the_time_anew() -> None:
    found = after(rule(), (0, {ONE: 1}), (50, {}), (55, {ONE: 1}), (100, {ONE: 1}))
    assert found[ONE].state is AlertState.PENDING


def test_without_a_time_it_fires_at_once() -> None:
    assert after(rule(0), (0, {ONE: 1}))[ONE].state is AlertState.FIRING


def test_it_ends_when_it_holds_no_more_and_is_forgotten_after_a_day() -> None:
    ended = after(rule(0), (0, {ONE: 1}), (10, {}))
    assert (ended[ONE].state, ended[ONE].resolved_at) == (AlertState.RESOLVED, 10)
    assert advance(rule(0), ended, {}, 10 + FORGET_AFTER_S) == {}


def test_it_may_go_on_firing_over_a_short_pause() -> None:
    flapping = rule(0, keep_firing_s=100)
    assert after(flapping, (0, {ONE: 1}), (99, {}))[ONE].state is AlertState.FIRING
    assert after(flapping, (0, {ONE: 1}), (100, {}))[ONE].state is AlertState.RESOLVED


def test_news_are_what_begins_and_what_ends() -> None:
    of, nothing = rule(0), dict[Key, Alert]()
    fires = advance(of, nothing, {ONE: 1}, 0)
    assert is_news(nothing, fires)
    assert not is_news(fires, advance(of, fires, {ONE: 5}, 30))
    more = advance(of, fires, {ONE: 1, TWO: 1}, 30)
    assert is_news(fires, more)
    ended = advance(of, fires, {}, 60)
    assert is_news(fires, ended)
    assert not is_news(ended, advance(of, ended, {}, 90))
    assert not is_news(nothing, advance(rule(60), nothing, {ONE: 1}, 0))
    assert is_news(ended, advance(of, ended, {ONE: 1}, 90))


@given(st.lists(st.sets(st.sampled_from([ONE, TWO])), max_size=30), st.sampled_from([0.0, 30.0, 90.0]))
def test_an_alert_fires_only_after_it_held_without_a_pause(held: list[set[Key]], for_s: float) -> None:
    found: dict[Key, Alert] = {}
    began: dict[Key, float] = {}
    for place, keys in enumerate(held):
        now = 30.0 * place
        began = {key: began.get(key, now) for key in keys}
        found = advance(rule(for_s), found, dict.fromkeys(keys, 1.0), now)
        firing = {key for key, one in found.items() if one.state is AlertState.FIRING}
        assert firing == {key for key in keys if now - began[key] >= for_s}


def test_one_message_names_all_of_a_group_firing_ones_first() -> None:
    found = after(rule(0), (0, {ONE: 0.5, TWO: 0.7}), (60, {TWO: 0.8}))
    body = message(rule(0), "ops", found.values())
    assert body["status"] == "firing"
    assert [one["labels"]["device"] for one in body["alerts"]] == ["pi-2", "pi-1"]
    assert [one["status"] for one in body["alerts"]] == ["firing", "resolved"]
    assert body["alerts"][0]["startsAt"] == "1970-01-01T00:00:00Z"
    subject, text = as_text(body)
    assert subject == "[FIRING:1] Slow"
    assert "firing: device=pi-2: 0.8" in text


def test_a_message_about_a_thousand_devices_stays_short() -> None:
    many: dict[Key, float] = {(("device", str(n)),): 1.0 for n in range(1000)}
    body = message(rule(0), "ops", after(rule(0), (0, many)).values())
    assert len(body["alerts"]) == MOST_IN_MESSAGE
    assert body["truncatedAlerts"] == 1000 - MOST_IN_MESSAGE
    assert "and 900 more" in as_text(body)[1]
