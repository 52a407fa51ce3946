"""`edgeml devices provision` onto this machine: real wheels, no index, real virtual environments."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import edgeml
from edgeml.cli import main
from tests.conftest import REPOSITORY, require
from tests.integration.agent.fixture_server import Fleet, serving
from tests.integration.agent.tiny_repository import TinyRepository
from tests.integration.install.conftest import Deploy
from tests.integration.install.releases import is_whole, model_bundle


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout's wheels and all that edgeml-core[device] needs: what a workstation gathers once."""
    folder = tmp_path_factory.mktemp("wheels")
    stamp = f"{sys.prefix}/.installed"
    make = [
        "make",
        "-s",
        "-C",
        REPOSITORY,
        "-o",
        stamp,
        "wheels",
        f"VENV={sys.prefix}",
        f"DIST={folder / 'own'}",
    ]
    subprocess.run(make, check=True, capture_output=True)
    download = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    download += ["-c", REPOSITORY / "constraints.txt", "--find-links", folder / "own", "-d", folder / "all"]
    done = subprocess.run([*download, "edgeml-core[device]"], check=False, capture_output=True, text=True)
    require(done.returncode == 0, f"wheels of other projects cannot be fetched: {done.stderr[-200:]}")
    return folder / "all"


@pytest.fixture(scope="module")
def no_index(wheels: Path) -> Iterator[None]:
    """An index that answers nobody: what is installed came with the wheels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
        patch.setenv("PATH", f"{Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin")
        patch.delenv("VIRTUAL_ENV", raising=False)
        yield


def _provision(wheels: Path, prefix: Path, *arguments: object) -> Result:
    words = [
        "devices",
        "provision",
        "local:",
        "--wheels",
        wheels,
        "--index-free",
        "--prefix",
        prefix,
        "--json",
    ]
    return CliRunner().invoke(main, [*map(str, words), *map(str, arguments)])


@pytest.fixture(scope="module")
def provisioned(
    no_index: None, wheels: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Result]:
    """The place on a bare board that edgeml was put to, and what the command said."""
    place = tmp_path_factory.mktemp("board") / "opt edgeml"
    return place, _provision(wheels, place)


@pytest.fixture(scope="module")
def first(provisioned: tuple[Path, Result]) -> Path:
    """The place that the tests of this module provision again."""
    return provisioned[0]


def test_a_bare_board_gets_edgeml_without_an_index(wheels: Path, provisioned: tuple[Path, Result]) -> None:
    first, result = provisioned
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert (said["version"], said["was_there"], said["agent"]) == (edgeml.__version__, False, "none")
    assert said["sent_bytes"] == sum(file.stat().st_size for file in wheels.iterdir())
    shown = subprocess.run(
        [first / "bin" / "edgeml", "--version"], check=True, capture_output=True, text=True
    )
    assert edgeml.__version__ in shown.stdout


def test_the_same_again_changes_nothing(wheels: Path, first: Path) -> None:
    before = (first / "venv").readlink()
    result = _provision(wheels, first)
    said = json.loads(result.stdout)
    assert (said["was_there"], said["sent_bytes"], (first / "venv").readlink()) == (True, 0, before)


def test_a_provisioned_board_tests_what_is_deployed_to_it(
    first: Path, deploy: Deploy, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{first / 'bin'}:/usr/bin:/bin")
    code, said = deploy(model_bundle(tmp_path / "bundles", 1))
    assert (code, said["verified"], is_whole(home)) == (0, "selftest", 1)


def test_a_wheel_for_another_machine_is_found_before_anything_is_sent(
    wheels: Path, first: Path, tmp_path: Path
) -> None:
    shutil.copytree(wheels, tmp_path / "wheels")
    numpy = next((tmp_path / "wheels").glob("numpy-*.whl"))
    numpy.rename(numpy.with_name("numpy-2.4.6-cp311-cp311-manylinux2014_s390x.whl"))
    result = _provision(tmp_path / "wheels", first)
    assert result.exit_code == 2
    assert "no wheel of numpy fits the device" in result.stderr
    assert len(list((first / "venvs").iterdir())) == 1


def test_an_edgeml_that_does_not_start_does_not_take_the_place_of_one_that_does(
    wheels: Path, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # where there is one that does
    monkeypatch.setenv("PIP_NO_COMPILE", "1")  # nothing of it is ever run
    before = (first / "venv").readlink()
    shutil.copytree(wheels, tmp_path / "wheels")
    core = next((tmp_path / "wheels").glob("edgeml_core-*.whl"))
    with zipfile.ZipFile(core) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["edgeml/cli.py"] = b"raise SystemError('broken')\n"
    with zipfile.ZipFile(core, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    result = _provision(tmp_path / "wheels", first)
    assert result.exit_code == 1
    assert "does not start" in result.stderr
    assert (first / "venv").readlink() == before
    subprocess.run([first / "bin" / "edgeml", "--version"], check=True, capture_output=True)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[tuple[Fleet, str, Path]]:
    repository = TinyRepository(tmp_path / "repository", {"times": "times"})
    root = tmp_path / "1.root.json"
    root.write_bytes(repository.first_root)
    with serving(repository.folder) as (found, url):
        yield found, url, root


def test_the_board_joins_a_server_that_it_is_told_to_trust(
    wheels: Path, first: Path, home: Path, fleet: tuple[Fleet, str, Path]
) -> None:
    known, url, root = fleet
    join = ["--server", url, "--join-token", "join", "--root", root, "--home", home]
    result = _provision(wheels, first, *join)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["agent"] in {"enrolled", "service"}
    assert (home / "identity.json").stat().st_mode & 0o777 == 0o600
    assert not (home / "join").exists()
    requests = len(known.requests)
    assert _provision(wheels, first, *join).exit_code == 0
    assert len(known.requests) == requests


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--index-free"], "--index-free needs --wheels"),
        (["--server", "http://127.0.0.1:9"], "--server and --join-token go together"),
        (["--server", "http://127.0.0.1:9", "--join-token", "x"], "give --root FILE or --root-sha256 HEX"),
    ],
)
def test_wrong_calls_are_told(run: Callable[..., Result], arguments: list[str], message: str) -> None:
    result = run("devices", "provision", "local:", *arguments)
    assert (result.exit_code, message in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("python", "message"),
    [
        (None, "no Python 3.11 or newer (found: none)"),
        ('#!/bin/sh\ncase "$2" in *version_info\\[*) echo 3.9.2 ;; *) exit 1 ;; esac\n', "(found: 3.9.2)"),
        ('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\n', "apt-get install python3-venv"),
    ],
    ids=["none", "old", "without venv"],
)
def test_a_board_without_a_python_that_serves_is_told_what_to_install(
    run: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    python: str | None,
    message: str,
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "id"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    if python is not None:
        (tools / "python3").write_text(python)
        (tools / "python3").chmod(0o755)
    monkeypatch.setenv("PATH", os.fspath(tools))
    result = run("devices", "provision", "local:")
    assert result.exit_code == 1
    assert message in result.stderr
