"""Files of rules and receivers: what is taken, and what is refused by name."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from edgeml_devices.server.alerts.expressions import METRICS, parse, span_s
from edgeml_devices.server.alerts.receivers import read_receivers
from edgeml_devices.server.alerts.rules import read_rules, rendered

from edgeml.errors import UsageError

RULES = """
groups:
  - name: models
    rules:
      - alert: SlowModel
        expr: latency_seconds{model="kws", by="release", q="0.99", window="1h"} > 0.05
        for: 10m
        labels: {severity: page}
        annotations: {summary: "the model is slow"}
      - alert: Failing
        expr: error_rate > 1e-2
"""


def test_rules_as_prometheus_has_them(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(RULES)
    slow, failing = read_rules(tmp_path / "rules.yml")
    assert (slow.name, slow.for_s, slow.labels) == ("SlowModel", 600, {"severity": "page"})
    assert (slow.expression.by, slow.expression.share, slow.expression.window_s) == (("release",), 0.99, 3600)
    assert (failing.expression.limit, failing.for_s) == (0.01, 0)


@pytest.mark.parametrize(
    ("operator", "value", "holds"),
    [
        (">", 1.0, False),
        (">=", 1.0, True),
        ("<", 0.5, True),
        ("<=", 1.5, False),
        ("==", 1.0, True),
        ("!=", 1.0, False),
    ],
)
def test_comparisons(operator: str, value: float, holds: bool) -> None:
    assert parse(f"error_rate {operator} 1").holds(value) is holds


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("", "cannot read"),
        ("error_rate", "cannot read"),
        ("sum(error_rate) > 1", "cannot read"),
        ("up > 1", "there is no 'up'"),
        ("error_rate > abc", "compared with a number"),
        ("error_rate > nan", "compared with a number"),
        ('error_rate{q="0.5"} > 1', "error_rate has no 'q'"),
        ('error_rate{model=~"a.*"} > 1', "cannot read"),
        ('error_rate{model="a", model="b"} > 1', "stands twice"),
        ('error_rate{by="site"} > 1', "cannot group by 'site'"),
        ('error_rate{window="soon"} > 1', "no span of time"),
        ('latency_seconds{q="95"} > 1', "a share from 0 to 1"),
        ('latency_ratio{model="a", release="2"} > 1', "needs against"),
        ('error_rate{bound="middle"} > 1', "bound is one of"),
        ('error_rate{release="new"} > 1', "release is a whole number"),
        ("machine > 1", "needs quantity"),
    ],
)
def test_a_slip_in_an_expression_is_told_when_it_is_read(expression: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse(expression)


def test_quotes_in_labels() -> None:
    assert (
        parse(r'error_rate{selector="site in (a, \"b\"),!spare"} > 1').labels["selector"]
        == 'site in (a, "b"),!spare'
    )


def test_every_metric_takes_a_window_but_silence() -> None:
    assert [name for name, labels in METRICS.items() if "window" not in labels] == ["silent_seconds"]


def test_spans() -> None:
    assert [span_s(text) for text in ("30s", "5m", "1h30m", "7d")] == [30, 300, 5400, 604800]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "not valid YAML"),
        ("[]", "must be a table"),
        ("groups: {a: 1}", "must be a list"),
        ("groups: [{name: g, rules: [{record: a, expr: b}]}]", "'record' is not known here"),
        ("groups: [{name: g, limit: 3}]", "'limit' is not known"),
        ("groups: [{name: g, rules: [{alert: A}]}]", r"rule 1 \(A\): expr is missing"),
        ("groups: [{name: g, rules: [{alert: 'a b', expr: 'error_rate > 1'}]}]", "needs a name"),
        ("groups: [{name: g, rules: [{alert: A, expr: 'up > 1'}]}]", r"rule 1 \(A\): there is no 'up'"),
        (
            "groups: [{name: g, rules: [&a {alert: A, expr: 'error_rate > 1'}, *a]}]",
            "A stands twice",
        ),
        ("groups: &a [*a]", "must be a table"),
        (
            "groups: [{rules: [{alert: A, expr: 'error_rate > 1', annotations: {s: '{{ $value | f }}'}}]}]",
            r"annotation s: {{ \$value \| f }} is not known here",
        ),
        (
            "groups: [{name: g, rules: [{alert: A, expr: 'error_rate > 1', labels: {s: '{{ $value }}'}}]}]",
            "label s: templates are for annotations",
        ),
    ],
)
def test_a_file_that_is_no_rules_says_where(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(text)
    with pytest.raises(UsageError, match=says):
        read_rules(file)


def test_annotations_name_what_fires() -> None:
    text = "{{ $labels.model }}/{{$labels.release}} at {{ $value }}{{ $labels.nothing }}"
    assert rendered(text, {"model": "kws", "release": "8"}, 0.0512345678) == "kws/8 at 0.0512346"
    assert rendered("50 % {plain}", {}, 1.0) == "50 % {plain}"


RECEIVERS = """
repeat_s = 3600
[[receivers]]
name = "ops"
webhook = "https://hooks.example/edgeml"
match = { severity = "page" }
[[receivers]]
name = "mail"
email = { to = ["ops@example.org"], sender = "edgeml@example.org", server = "smtp://mail.example:587" }
"""


def test_receivers(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECEIVERS)
    (tmp_path / "rules.yml").write_text(RULES)
    found = read_receivers(tmp_path / "r.toml")
    slow, failing = read_rules(tmp_path / "rules.yml")
    assert [one.wants(slow) for one in found.receivers] == [True, True]
    assert [one.wants(failing) for one in found.receivers] == [False, True]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("receivers = [{name = 'a'}]", "needs one of webhook, email and command"),
        ("receivers = [{name = 'a', webhook = 'http://x', command = ['x']}]", "needs one of"),
        ("receivers = [{name = 'a', webhook = 'ftp://x'}]", "no address of http"),
        ("receivers = [{name = 'a', slack = 'x'}]", "slack"),
        ("receivers = [{name = 'a', command = ['x'], timeout_s = 0}]", "timeout_s is from 1 to 20"),
        ("receivers = [{name = 'a', command = ['x'], timeout_s = 21}]", "timeout_s is from 1 to 20"),
        (
            "receivers = [{name = 'a', email = {to = ['x'], sender = 'a@b', server = 'smtp://h'}}]",
            "addresses",
        ),
        (
            "receivers = [{name = 'a', email = {to = ['x@y'], sender = 'a@b', server = 'h:25'}}]",
            "smtp://HOST",
        ),
        ("repeat_s = 1", "from 60"),
        ("receivers = [{name = 'a', command = ['x']}, {name = 'a', command = ['x']}]", "stands twice"),
    ],
)
def test_a_receiver_that_is_not_whole_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "r.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=says):
        read_receivers(file)


@pytest.mark.parametrize(
    "expression",
    [
        "a" + " " * 200_000 + "b",
        "error_rate" + "{" * 100_000,
        "error_rate{" + 'by="' + "\\" * 100_001 + '"} > 1',
        "(" * 100_000 + "error_rate" + ")" * 100_000 + " > 1",
        "error_rate > " + "9" * 100_000,
        'error_rate{window="' + "9w" * 50_000 + '"} > 1',
    ],
)
def test_no_expression_takes_long_to_refuse(expression: str) -> None:
    begun = time.process_time()
    with pytest.raises(UsageError) as caught:
        parse(expression)
    assert time.process_time() - begun < 0.5
    assert len(str(caught.value)) < 400
