from __future__ import annotations

from pathlib import Path

import pytest
from edgeml_devices.emulator.images.kernel import find_modules, load_order, module_depends

from edgeml.errors import EdgemlError


def _module(folder: Path, file: str, depends: str) -> None:
    content = b"\x7fELF\0\0license=GPL\0depends=" + depends.encode() + b"\0intree=Y\0name=x\0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(content)


@pytest.fixture
def modules(tmp_path: Path) -> dict[str, Path]:
    drivers = tmp_path / "6.1.0-56/kernel/drivers"
    _module(drivers / "net", "virtio_net.ko", "net_failover,virtio_ring,virtio")
    _module(drivers / "net", "net_failover.ko", "failover")
    _module(drivers / "net", "failover.ko", "")
    _module(drivers / "virtio", "virtio_ring.ko", "virtio")
    _module(drivers / "virtio", "virtio.ko", "")
    _module(drivers / "char", "virtio-rng.ko", "virtio_ring,virtio")
    return find_modules(tmp_path)


def test_each_module_stands_behind_those_it_depends_on(modules: dict[str, Path]) -> None:
    order = load_order(modules, ["virtio_net", "virtio_rng"])
    assert order == ("failover", "net_failover", "virtio", "virtio_ring", "virtio_net", "virtio_rng")


def test_a_module_s_file_may_have_dashes_where_its_name_has_none(modules: dict[str, Path]) -> None:
    assert modules["virtio_rng"].name == "virtio-rng.ko"


def test_dependencies_are_read_from_the_module(modules: dict[str, Path]) -> None:
    assert module_depends(modules["virtio_net"].read_bytes()) == ("net_failover", "virtio_ring", "virtio")
    assert module_depends(modules["virtio"].read_bytes()) == ()


def test_a_missing_module_is_named_with_the_one_that_needs_it(modules: dict[str, Path]) -> None:
    del modules["failover"]
    with pytest.raises(EdgemlError, match="no module failover, which net_failover needs"):
        load_order(modules, ["virtio_net"])
