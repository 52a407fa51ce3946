"""What a report may hold: what every database can store and every page can show."""

from __future__ import annotations

import json
import math
from typing import Final

from edgeml.errors import MessageError
from edgeml.health import MOST_CALLS
from edgeml.histogram import Histogram
from edgeml_devices.messages import Facts, ModelStatus, Report, Tested
from edgeml_devices.server.fleet.columns import to_json

_MODELS, _EVENTS = 200, 2000
_FACTS_BYTES: Final = 64 * 1024
_INT: Final = 2**63 - 1
_MOST_ATTEMPTS: Final = 1_000_000
"""The next attempt, too, must fit into the database's integer."""
_FURTHEST_S: Final = 6e10
"""From 1970, either way: beyond it a time is no date that can be shown."""


def check(report: Report) -> None:
    """Refuse what no database could store.

    Raises:
        MessageError: names the field.
    """
    _check_text("epoch", report.epoch, 32)
    _check_count("seq", report.seq)
    _check_count("generation", report.generation)
    _check_number("at", report.at)
    check_facts(report.facts)
    if len(report.models) > _MODELS or len(report.events) > _EVENTS or len(report.health) > _EVENTS:
        raise MessageError(
            f"the body: at most {_MODELS} models and {_EVENTS} events and windows of health in one report"
        )
    for model, status in report.models.items():
        _check_status(f"models.{model[:40]}", model, status)
    for index, event in enumerate(report.events):
        place = f"events[{index}]"
        _check_text(f"{place}.model", event.model, 128)
        _check_text(f"{place}.rollout", event.rollout or "", 32)
        _check_text(f"{place}.variant", event.variant or "", 128)
        _check_number(f"{place}.at", event.at)
        for name in ("seq", "release", "attempt"):
            _check_count(f"{place}.{name}", getattr(event, name))
    for index, window in enumerate(report.health):
        place = f"health[{index}]"
        _check_text(f"{place}.model", window.model, 128)
        _check_text(f"{place}.variant", window.variant, 128)
        _check_number(f"{place}.at", window.at)
        _check_number(f"{place}.duration_s", window.duration_s)
        for name in ("seq", "release", "processes", "calls", "errors"):
            _check_count(f"{place}.{name}", getattr(window, name))
        if not window.errors <= window.calls <= MOST_CALLS:
            raise MessageError(f"the body: {place}: {window.errors} errors in {window.calls} calls cannot be")
        if Histogram.from_json(window.latency_counts).total > window.calls:
            raise MessageError(f"the body: {place}.latency_counts: more than calls")


def check_facts(facts: Facts | None) -> None:
    """Refuse facts that would make every list of devices long.

    Raises:
        MessageError: they are too long.
    """
    size_bytes = 0 if facts is None else len(json.dumps(to_json(facts)))
    if size_bytes > _FACTS_BYTES:
        raise MessageError(f"the body: facts: {size_bytes} bytes, at most {_FACTS_BYTES} are taken")


def _check_status(place: str, model: str, status: ModelStatus) -> None:
    _check_text(place, model, 128)
    _check_text(f"{place}.rollout", status.rollout or "", 32)
    _check_text(f"{place}.variant", status.variant or "", 128)
    _check_text(f"{place}.manifest_sha256", status.manifest_sha256 or "", 64)
    for name in ("running", "target", "attempt"):
        _check_count(f"{place}.{name}", getattr(status, name))
    for variant, tested in status.selftest.items():
        _check_tested(f"{place}.selftest.{variant[:40]}", tested)


def _check_tested(place: str, tested: Tested) -> None:
    for name in ("p50_ms", "p95_ms", "p99_ms", "load_ms"):
        value = getattr(tested, name)
        if value is not None and not 0 <= value < math.inf:
            raise MessageError(f"the body: {place}.{name}: {value} is no number of milliseconds")
    _check_count(f"{place}.peak_memory_bytes", tested.peak_memory_bytes)


def _check_text(place: str, text: str, longest: int) -> None:
    if len(text) > longest:
        raise MessageError(f"the body: {place}: {len(text)} characters, at most {longest} are taken")


def _check_count(place: str, value: int | None) -> None:
    narrow = place.endswith((".attempt", ".processes"))
    if value is not None and not 0 <= value <= (_MOST_ATTEMPTS if narrow else _INT):
        raise MessageError(f"the body: {place}: {value} is no count")


def _check_number(place: str, value: float) -> None:
    if not abs(value) <= _FURTHEST_S:
        raise MessageError(f"the body: {place}: {value} is no number of seconds")
