"""Where edgeml keeps its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeml.errors import SettingsError
from edgeml.settings import origin, settings
from edgeml.telemetry.folder import ring_folder
from edgeml.telemetry.settings import telemetry_settings


def test_defaults_follow_xdg(tmp_path: Path) -> None:
    found = settings(tmp_path, {"XDG_DATA_HOME": "/data", "XDG_CACHE_HOME": "relative/is/ignored"})
    assert found.home == Path("/data/edgeml")
    assert found.workers_dir == Path("/data/edgeml/workers")
    assert found.cache_dir == Path.home() / ".cache" / "edgeml"


def test_the_nearest_file_upward_counts_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "edgeml.toml").write_text('home = "state"\n')
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert settings(inner, {}).home == tmp_path / "state"
    assert settings(inner, {}).workers_dir == tmp_path / "state" / "workers"


def test_a_variable_overrides_the_file_and_an_empty_one_does_not(tmp_path: Path) -> None:
    (tmp_path / "edgeml.toml").write_text('home = "state"\ncache_dir = "cache"\n')
    found = settings(tmp_path, {"EDGEML_HOME": "/elsewhere", "EDGEML_CACHE_DIR": ""})
    assert found.home == Path("/elsewhere")
    assert found.cache_dir == tmp_path / "cache"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hom = 'x'", "unknown key 'hom'; known: home, cache_dir, workers_dir"),
        ("home = 3", "home must be a path in quotes, got 3"),
        ("home = ", "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_path(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "edgeml.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"edgeml\.toml") as caught:
        settings(tmp_path, {})
    assert said in str(caught.value)


def test_where_a_setting_comes_from_can_be_told(tmp_path: Path) -> None:
    assert origin("workers_dir", tmp_path, {}) == "the default"
    assert origin("workers_dir", tmp_path, {"EDGEML_HOME": "/x"}) == "workers in home, set by EDGEML_HOME"
    (tmp_path / "edgeml.toml").write_text('workers_dir = "w"\n')
    assert origin("workers_dir", tmp_path, {}) == f"set in {tmp_path / 'edgeml.toml'}"
    assert origin("workers_dir", tmp_path, {"EDGEML_WORKERS_DIR": "/x"}) == "set by EDGEML_WORKERS_DIR"


def test_telemetry_is_set_in_the_file_and_by_variables(tmp_path: Path) -> None:
    home = {"EDGEML_HOME": str(tmp_path / "home")}
    found = telemetry_settings(tmp_path, home)
    assert (found.record, found.samples, found.slots) == ("on", "metadata", 16384)
    assert Path(found.folder) == ring_folder(tmp_path / "home")
    (tmp_path / "edgeml.toml").write_text('home = "h"\n[telemetry]\nrecord = "off"\nslots = 1024\n')
    assert settings(tmp_path, {}).home == tmp_path / "h"
    found = telemetry_settings(tmp_path, home | {"EDGEML_TELEMETRY_SAMPLES": "raw"})
    assert (found.record, found.samples, found.slots) == ("off", "raw", 1024)
    found = telemetry_settings(tmp_path, {"EDGEML_TELEMETRY": "on", "EDGEML_TELEMETRY_FOLDER": "/rings"})
    assert (found.record, found.folder) == ("on", "/rings")


@pytest.mark.parametrize(
    ("text", "variable", "said"),
    [
        ("telemetry = 3", "", "telemetry must be a table"),
        ("[telemetry]\nslot = 3", "", "unknown key 'slot'; known: record"),
        ("[telemetry]\nslots = 1000", "", "a power of 2 from 64"),
        ("[telemetry]\nraw_budget_bytes = -1", "", "must be 0 or more"),
        ("", "maybe", "EDGEML_TELEMETRY: record: must be one of"),
    ],
)
def test_wrong_telemetry_settings_are_refused(tmp_path: Path, text: str, variable: str, said: str) -> None:
    (tmp_path / "edgeml.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        telemetry_settings(tmp_path, {"EDGEML_TELEMETRY": variable})
    assert said in str(caught.value)
