"""Lines about a rollout."""

from __future__ import annotations

from edgeml_devices.operator.rollout_tables import describe_gate


def test_a_gate_says_its_value_its_limit_and_why_if_there_is_a_why() -> None:
    passed = {"gate": "alert Slow", "state": "PASSED", "value": 0, "limit": 0, "detail": ""}
    assert describe_gate(passed) == "gate alert Slow: PASSED, 0, at most 0"
    missing = {**passed, "state": "MISSING", "value": None, "detail": "no such rule"}
    assert describe_gate(missing) == "gate alert Slow: MISSING, –, at most 0 (no such rule)"
