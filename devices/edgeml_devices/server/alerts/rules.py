"""Rules in a file, as Prometheus has them: groups of alerts with ``expr``, ``for``, labels and annotations.

What Prometheus knows and this server does not is refused by name, so that no rule is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from edgeml.errors import UsageError
from edgeml_devices.server.alerts.expressions import Expression, parse, span_s

MOST_RULES: Final = 500
_LONGEST_FILE_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_TEMPLATE: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_LABEL: Final = re.compile(r"\$labels\.([A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert."""

    name: str
    group: str
    expression: Expression
    for_s: float = 0.0
    """So long it must hold before it fires."""
    keep_firing_s: float = 0.0
    """So long it goes on after it held last."""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


def rendered(text: str, labels: Mapping[str, str], value: float) -> str:
    """Give an annotation of one alert; a label that it has not is empty."""

    def of(found: re.Match[str]) -> str:
        name = _LABEL.fullmatch(found[1].strip())
        return f"{value:.6g}" if name is None else labels.get(name[1], "")

    return _TEMPLATE.sub(of, text)


def read_rules(path: Path) -> tuple[Rule, ...]:
    """Read a file of rules.

    Raises:
        UsageError: it cannot be read, or what stands there is no rule; its place is named.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot read the alert rules: {error.strerror}") from error
    if len(text) > _LONGEST_FILE_BYTES:
        raise UsageError(f"{path}: {len(text)} bytes of alert rules, at most {_LONGEST_FILE_BYTES} are read")
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{path} is not valid YAML: {error}") from error
    return _rules(found, str(path))


def _rules(found: Any, where: str) -> tuple[Rule, ...]:
    groups = _table(found, where, {"groups"}).get("groups") or []
    rules: list[Rule] = []
    for group in _list(groups, f"{where}: groups"):
        table = _table(group, f"{where}: a group", {"name", "rules", "interval"})
        name = str(table.get("name", ""))
        for place, one in enumerate(_list(table.get("rules") or [], f"{where}: {name}: rules")):
            rules.append(_rule(one, name, f"{where}: group {name!r}, rule {place + 1}"))
    if len(rules) > MOST_RULES:
        raise UsageError(f"{where}: {len(rules)} rules, at most {MOST_RULES} are taken")
    names = [rule.name for rule in rules]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{where}: {twice[0]} stands twice; a rule's name must be its own")
    return tuple(rules)


def _rule(found: Any, group: str, where: str) -> Rule:
    table = _table(found, where, {"alert", "expr", "for", "keep_firing_for", "labels", "annotations"})
    name = table.get("alert")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"{where}: alert needs a name of letters, digits and _, got {name!r:.40}")
    where = f"{where} ({name})"
    expression = table.get("expr")
    if not isinstance(expression, str):
        raise UsageError(f"{where}: expr is missing")
    try:
        return Rule(
            name,
            group,
            parse(expression),
            span_s(str(table.get("for", "0s"))),
            span_s(str(table.get("keep_firing_for", "0s"))),
            _no_templates(_texts(table.get("labels") or {}, f"{where}: labels")),
            _known_templates(_texts(table.get("annotations") or {}, f"{where}: annotations")),
        )
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _table(found: Any, where: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise UsageError(f"{where}: must be a table with {', '.join(sorted(known))}")
    for key in found:
        if key not in known:
            raise UsageError(f"{where}: {key!r:.40} is not known here; there are: {', '.join(sorted(known))}")
    return found


def _list(found: Any, where: str) -> list[Any]:
    if not isinstance(found, list):
        raise UsageError(f"{where}: must be a list")
    return found


def _texts(found: Any, where: str) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(one, (str, int, float)) for one in found.values()):
        raise UsageError(f"{where}: must be names with texts")
    return {str(key): str(value) for key, value in found.items()}


def _no_templates(texts: dict[str, str]) -> dict[str, str]:
    for name, text in texts.items():
        if "{{" in text:
            raise UsageError(f"label {name}: templates are for annotations, got {text!r:.60}")
    return texts


def _known_templates(texts: dict[str, str]) -> dict[str, str]:
    for name, text in texts.items():
        for found in _TEMPLATE.findall(text):
            inner = found.strip()
            if inner != "$value" and not _LABEL.fullmatch(inner):
                raise UsageError(
                    f"annotation {name}: {{{{ {inner[:40]} }}}} is not known here; there are: "
                    "{{ $value }}, {{ $labels.NAME }}"
                )
    return texts
