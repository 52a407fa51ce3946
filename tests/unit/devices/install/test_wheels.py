"""Which wheels a device takes, by their names."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgeml_devices.install.wheels import read_wheels, suitable

from edgeml.errors import UsageError

PI = [
    "cp311-cp311-manylinux_2_36_aarch64",
    "cp311-cp311-manylinux2014_aarch64",
    "cp310-abi3-linux_aarch64",
    "py3-none-any",
]


def _folder(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).write_bytes(name.encode())
    return path


def test_wheels_for_this_python_and_machine_are_taken(tmp_path: Path):
    names = [
        "numpy-2.4.6-cp311-cp311-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
        "numpy-2.4.6-cp311-cp311-manylinux2014_x86_64.whl",
        "protobuf-7.36.2-cp310-abi3-linux_aarch64.whl",
        "flatbuffers-25.12.19-py2.py3-none-any.whl",
        "edgeml_core-0.1.0-1-py3-none-any.whl",
    ]
    fit = suitable(read_wheels(_folder(tmp_path, *names)), PI)
    assert [wheel.distribution for wheel in fit] == ["edgeml-core", "flatbuffers", "numpy", "protobuf"]
    assert fit[2].path.name == names[0]
    assert len({wheel.sha256 for wheel in fit}) == 4


def test_a_distribution_that_is_there_for_other_machines_only_is_told(tmp_path: Path):
    wheels = read_wheels(
        _folder(tmp_path, "numpy-2.4.6-cp311-cp311-win_amd64.whl", "rich-15.0.0-py3-none-any.whl")
    )
    with pytest.raises(
        UsageError, match=r"no wheel of numpy fits the device: .*win_amd64.*manylinux_2_36_aarch64"
    ):
        suitable(wheels, PI)


def test_a_folder_without_wheels_is_a_mistake(tmp_path: Path):
    with pytest.raises(UsageError, match="no wheels in"):
        read_wheels(_folder(tmp_path, "notes.txt"))
    with pytest.raises(UsageError, match=r"numpy\.whl is not the name of a wheel"):
        read_wheels(_folder(tmp_path, "numpy.whl"))
