"""What leaves the house: four wheels of one version, and a device install that stays light."""

from __future__ import annotations

import email
import json
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY

ROOMS = {
    "edgeml-core": (REPOSITORY, "edgeml"),
    "edgeml-runtimes": (REPOSITORY / "runtimes", "edgeml_runtimes"),
    "edgeml-converters": (REPOSITORY / "converters", "edgeml_converters"),
    "edgeml-devices": (REPOSITORY / "devices", "edgeml_devices"),
}
NEVER_ON_A_DEVICE = set(
    """ai-edge-quantizer django edgeml-converters fastapi flask jax jinja2 keras matplotlib nncf onnx onnxslim
    scikit-learn scipy skl2onnx starlette tensorflow tensorflow-cpu tf-keras tornado torch uvicorn""".split()
)
PERMISSIVE = re.compile(
    r"apache|bsd|mit\b|isc|psf|python|mpl|mozilla|hpnd|zlib|unlicense|public domain|cnri", re.IGNORECASE
)
COPYLEFT = re.compile(r"(?<!l)gpl|gnu general public|agpl|affero", re.IGNORECASE)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The four wheels, as `make wheels` builds them: offline, with the backend of this environment."""
    folder = tmp_path_factory.mktemp("wheels")
    stamp = f"{sys.prefix}/.installed"  # -o: this environment is as good as a new one
    _run("make", "-s", "-C", REPOSITORY, "-o", stamp, "wheels", f"VENV={sys.prefix}", f"DIST={folder}")
    found = {canonicalize_name(wheel.name.partition("-")[0]): wheel for wheel in folder.glob("*.whl")}
    assert set(found) == set(ROOMS)
    return found


@pytest.fixture(scope="module")
def device(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with edgeml-core[device] from the wheels; its Python."""
    folder = tmp_path_factory.mktemp("device")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    constraints = REPOSITORY / "constraints.txt"
    _run(
        python, "-m", "pip", "install", "-qq", "--no-compile", "--disable-pip-version-check",
        "-c", constraints, "--find-links", wheels["edgeml-core"].parent, "edgeml-core[device]",
    )  # fmt: skip
    return python


@pytest.mark.parametrize(
    ("extra", "rooms", "brought", "left_out"),
    [
        ("device", ("./runtimes", "./devices"), {"ai-edge-litert", "pillow"}, NEVER_ON_A_DEVICE),
        (
            "workstation",
            ("./runtimes", "./converters", "./devices"),
            {"ai-edge-litert", "nncf", "onnx", "onnxruntime", "openvino", "skl2onnx"},
            {"tensorflow", "torch"},
        ),
    ],
)
def test_a_clone_can_be_installed_as_the_readme_says(
    tmp_path: Path, extra: str, rooms: tuple[str, ...], brought: set[str], left_out: set[str]
) -> None:
    command = f'pip install -c constraints.txt ".[{extra}]" {" ".join(rooms)}'
    assert command in (REPOSITORY / "README.md").read_text()
    report = tmp_path / "report.json"
    _run(
        sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed",
        "--no-build-isolation", "--report", report, "-c", "constraints.txt", f".[{extra}]", *rooms,
        cwd=REPOSITORY,
    )  # fmt: skip
    would = {canonicalize_name(one["metadata"]["name"]) for one in json.loads(report.read_text())["install"]}
    assert brought | {"edgeml-core", "edgeml-runtimes", "edgeml-devices"} <= would
    assert not would & left_out


def test_the_four_distributions_have_one_version() -> None:
    assert len({_version_in_source(room, package) for room, package in ROOMS.values()}) == 1


def test_the_wheels_say_that_version(wheels: dict[str, Path]) -> None:
    expected = _version_in_source(*ROOMS["edgeml-core"])
    assert {_metadata(wheel)["Version"] for wheel in wheels.values()} == {expected}


def test_each_wheel_holds_its_own_package_and_its_types(wheels: dict[str, Path]) -> None:
    for name, (_, package) in ROOMS.items():
        names = zipfile.ZipFile(wheels[name]).namelist()
        assert {entry.partition("/")[0] for entry in names if ".dist-info/" not in entry} == {package}
        assert f"{package}/py.typed" in names


def test_each_wheel_carries_the_licence(wheels: dict[str, Path]) -> None:
    for wheel in wheels.values():
        names = zipfile.ZipFile(wheel).namelist()
        assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")], wheel.name
        assert _metadata(wheel)["License-Expression"] == "Apache-2.0"


def test_the_core_wheel_holds_every_target_profile(wheels: dict[str, Path]) -> None:
    inside = {name for name in zipfile.ZipFile(wheels["edgeml-core"]).namelist() if name.endswith(".toml")}
    source = {
        str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "edgeml" / "targets").glob("**/*.toml")
    }
    assert inside == source
    assert "edgeml/targets/raspberry-pi-4.toml" in inside


def test_a_wheel_holds_every_file_of_its_package(wheels: dict[str, Path]) -> None:
    for name, (room, package) in ROOMS.items():
        inside = set(zipfile.ZipFile(wheels[name]).namelist())
        source = {
            str(path.relative_to(room))
            for path in (room / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert source <= inside


def test_no_room_depends_on_the_stranger_named_edgeml(wheels: dict[str, Path]) -> None:
    for wheel in wheels.values():
        for line in _metadata(wheel).get_all("Requires-Dist") or ():
            assert canonicalize_name(Requirement(line).name) != "edgeml"


def test_a_device_gets_no_converter_no_framework_and_no_web_server(device: Path) -> None:
    installed = {canonicalize_name(name) for name in _distributions(device)}
    assert {"edgeml-core", "edgeml-runtimes", "edgeml-devices", "ai-edge-litert", "numpy"} <= installed
    assert not installed & NEVER_ON_A_DEVICE


def test_converters_cannot_be_imported_on_a_device(device: Path) -> None:
    found = _run(
        device,
        "-c",
        "from importlib.util import find_spec as f; print(f('edgeml_converters'), f('tensorflow'))",
    )
    assert found.split() == ["None", "None"]


def test_the_command_line_of_a_device_offers_what_works_there(device: Path) -> None:
    edgeml = device.parent / "edgeml"
    shown = _run(edgeml, "--help")
    for command in ("bench", "bundle", "doctor", "run", "targets"):
        assert re.search(rf"^  {command}\b", shown, re.MULTILINE), command
    assert not re.search(r"^  convert\b", shown, re.MULTILINE)
    assert _version_in_source(*ROOMS["edgeml-core"]) in _run(edgeml, "--version")
    assert "raspberry-pi-4" in _run(edgeml, "targets")


def test_three_lines_of_python_run_a_model_on_a_device(device: Path, tmp_path: Path) -> None:
    model = REPOSITORY / "examples" / "digits" / "digits.tflite"
    program = (
        "import edgeml, numpy as np\n"
        f"model = edgeml.load({str(model)!r})\n"
        "print(model(np.zeros((1, 8, 8, 1), np.float32)).shape)\n"
    )
    assert _run(device, "-c", program, cwd=tmp_path).strip() == "(1, 10)"


def test_constraints_are_plain_names_and_versions() -> None:
    lines = [line for line in _constraints() if not line.startswith("#")]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []


def test_constraints_cover_all_that_the_distributions_ask_for() -> None:
    pinned = {canonicalize_name(line.partition("==")[0]) for line in _constraints()}
    asked = set()
    for room, _ in ROOMS.values():
        project = tomllib.loads((room / "pyproject.toml").read_text())["project"]
        extras = project.get("optional-dependencies", {}).values()
        lines = [*project.get("dependencies", ()), *(line for extra in extras for line in extra)]
        asked |= {canonicalize_name(Requirement(line).name) for line in lines}
    assert {name for name in asked if not name.startswith("edgeml-")} <= pinned


def test_what_edgeml_depends_on_is_permissive_or_copyleft_by_file_at_most() -> None:
    suspects = {}
    for name in _closure("edgeml-core", "edgeml-runtimes", "edgeml-converters", "edgeml-devices"):
        licence = _licence(name)
        if COPYLEFT.search(licence) or not PERMISSIVE.search(licence):
            suspects[name] = licence
    assert suspects == {}


def _closure(*roots: str) -> set[str]:
    """All installed distributions that the roots need, with every extra of the roots."""
    seen: set[str] = set()
    todo = list(roots)
    while todo:
        name = canonicalize_name(todo.pop())
        if name in seen:
            continue
        seen.add(name)
        for line in metadata.distribution(name).requires or ():
            need = Requirement(line)
            extras = need.marker and "extra" in str(need.marker)
            if extras and name not in roots:
                continue
            try:
                metadata.distribution(need.name)
            except metadata.PackageNotFoundError:
                continue
            todo.append(need.name)
    return seen - set(roots)


def _licence(name: str) -> str:
    data = metadata.metadata(name)
    classifiers = [line for line in data.get_all("Classifier") or () if line.startswith("License ::")]
    text = data.get("License-Expression") or " ".join(classifiers) or (data.get("License") or "")
    return text[:200]


def _distributions(python: Path) -> list[str]:
    program = "from importlib.metadata import distributions as d; print(*(x.name for x in d()), sep='\\n')"
    return _run(python, "-c", program).split()


def _constraints() -> list[str]:
    return (REPOSITORY / "constraints.txt").read_text().splitlines()


def _version_in_source(room: Path, package: str) -> str:
    match = re.search(r'^__version__ = "(.+)"$', (room / package / "__init__.py").read_text(), re.MULTILINE)
    assert match, room
    return match[1]


def _metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def _run(*argv: object, cwd: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in argv], capture_output=True, text=True, check=False, cwd=cwd, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
