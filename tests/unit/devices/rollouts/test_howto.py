"""The file in docs/how-to/rollouts.md has every key, with its default, and is taken as it stands."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

from edgeml_devices.server.rollouts.policy import Budget, Gates, Penalty, Policy, Wave, Window, read_policy


def test_the_file_of_the_howto_holds_every_key_and_its_default(repository: Path) -> None:
    page = (repository / "docs" / "how-to" / "rollouts.md").read_text()
    found = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert found is not None
    data = tomllib.loads(found[1])
    policy = read_policy(data)
    for field in fields(Policy):
        if field.name in data and field.type in {"float", "int", "bool", "str"} and field.name != "release":
            assert field.name == "model" or data[field.name] == field.default, field.name
    shown = set(tomllib.loads(re.sub(r"^#(?=\w)", "", found[1], flags=re.MULTILINE)))
    assert shown == {field.name for field in fields(Policy)} - {"selector"}
    assert set(data["gates"]) == {field.name for field in fields(Gates)}
    assert set(data["windows"][0]) == {field.name for field in fields(Window)}
    assert set(data["budget"]) == {field.name for field in fields(Budget)}
    assert policy.penalty == Penalty()
    assert {name for wave in data["waves"] for name in wave} == {field.name for field in fields(Wave)}
