"""Small packages and trees through the real programs: dpkg-deb, tar, mke2fs, qemu-img."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from edgeml_devices.emulator import tools
from edgeml_devices.emulator.images.disk import link_tree, make_disk
from edgeml_devices.emulator.images.kernel import initrd_of
from edgeml_devices.emulator.images.recipe import recipe_bytes, recipe_hash
from edgeml_devices.emulator.images.rootfs import packages_of
from edgeml_devices.emulator.images.unpack import unpack_all

from edgeml.errors import EdgemlError
from tests.conftest import require

SCRIPTS = ("initrd-init", "minimal-init", "board", "shell", "edgeml", "has-line", "wait-ssh", "power")


def _deb(folder: Path, name: str, files: dict[str, str]) -> Path:
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\n"
        "Maintainer: nobody <nobody@example>\nDescription: x\n"
    )
    for path, content in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
    subprocess.run(["dpkg-deb", "-b", "--root-owner-group", tree], check=True, capture_output=True)
    return folder / f"{name}.deb"


@pytest.fixture
def debs(tmp_path: Path) -> list[Path]:
    require(not tools.missing([tools.DPKG_DEB, tools.TAR]), "dpkg-deb and tar are not installed")
    return [
        _deb(tmp_path, "tool", {"bin/tool": "#!", "usr/share/man/man1/tool.1": "x"}),
        _deb(
            tmp_path,
            "library",
            {"lib/a.so": "x", "usr/share/doc/library/copyright": "MIT", "usr/share/doc/library/README": "x"},
        ),
    ]


def test_packages_of_before_the_merged_usr_land_in_usr(debs: list[Path], tmp_path: Path) -> None:
    root, counted = tmp_path / "root", []
    root.mkdir()
    unpack_all(debs, root, counted.append)
    assert (root / "bin").readlink() == Path("usr/bin")
    assert (root / "usr/bin/tool").read_text() == "#!"
    assert (root / "usr/lib/a.so").is_file()
    assert counted == [1, 2]


def test_licences_stay_and_manuals_go(debs: list[Path], tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    unpack_all(debs, root, lambda _: None)
    assert (root / "usr/share/doc/library/copyright").read_text() == "MIT"
    assert not (root / "usr/share/doc/library/README").exists()
    assert not (root / "usr/share/man").exists()


def test_a_damaged_package_is_named(debs: list[Path], tmp_path: Path) -> None:
    debs[1].write_bytes(debs[1].read_bytes()[:-40])
    (tmp_path / "root").mkdir()
    with pytest.raises(EdgemlError, match=r"library\.deb cannot be unpacked"):
        unpack_all(debs, tmp_path / "root", lambda _: None)


def test_a_linked_tree_has_the_same_files_and_folders_of_its_own(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "private").mkdir(parents=True)
    (source / "private/file").write_text("x")
    (source / "link").symlink_to("private")
    (source / "private").chmod(0o700)
    link_tree(source, tmp_path / "target")
    assert (tmp_path / "target/private/file").samefile(source / "private/file")
    assert (tmp_path / "target/link").readlink() == Path("private")
    assert (tmp_path / "target/private").stat().st_mode & 0o777 == 0o700
    (tmp_path / "target/private/new").touch()
    assert not (source / "private/new").exists()


def _debugfs(raw: Path, request: str) -> str:
    debugfs = shutil.which("debugfs", path="/usr/sbin:/sbin:/usr/bin")
    assert debugfs
    return subprocess.run([debugfs, "-R", request, raw], capture_output=True, text=True, check=True).stdout


def test_files_of_the_disk_are_root_s_and_the_agent_s_are_the_agent_s(tmp_path: Path) -> None:
    lacking = tools.missing([tools.FAKEROOT, tools.MKE2FS, tools.QEMU_IMG])
    require(not lacking, f"not installed: {', '.join(tool.program for tool in lacking)}")
    root, site, disk = tmp_path / "root", tmp_path / "site", tmp_path / "image/disk.qcow2"
    for place in (root / "var/lib/edgeml", site / "engine", disk.parent):
        place.mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    (root / "etc/hostname").write_text("of the root")
    (site / "engine/__init__.py").write_text("x")
    used_bytes = make_disk(root, site, [("etc/hostname", b"of the image", 0o640)], disk)
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk, raw], check=True)
    assert "User:     0   Group:     0" in _debugfs(raw, "stat /etc/hostname")
    assert "Mode:  0640" in _debugfs(raw, "stat /etc/hostname")
    assert "User:   990   Group:   990" in _debugfs(raw, "stat /var/lib/edgeml")
    assert "Mode:  01777" in _debugfs(raw, "stat /tmp")
    assert _debugfs(raw, "cat /etc/hostname") == "of the image"
    assert _debugfs(raw, "cat /usr/local/lib/python3.11/dist-packages/engine/__init__.py") == "x"
    assert "metadata_csum" not in _debugfs(raw, "features"), "a torn commit block would end its boot"
    assert 0 < used_bytes < 80_000_000, "journal and inode tables, and two small files"
    assert (root / "etc/hostname").read_text() == "of the root", "the root is shared, and never written"
    assert [path.name for path in disk.parent.iterdir()] == ["disk.qcow2"]


def test_the_first_root_has_modules_in_load_order_and_an_init(tmp_path: Path) -> None:
    names = ("virtio.ko", "virtio_ring.ko", "busybox")
    for name in names:
        (tmp_path / name).write_text("x")
    archive = initrd_of([tmp_path / "virtio_ring.ko", tmp_path / "virtio.ko"], tmp_path / "busybox")
    listed = subprocess.run(["busybox", "cpio", "-t"], input=archive, capture_output=True, check=True)
    found = listed.stdout.decode().split()
    assert [name for name in found if name.startswith("modules/")] == [
        *("modules/00-virtio_ring.ko", "modules/01-virtio.ko")
    ]
    assert {"init", "bin/busybox", "bin/sh", "dev/console", "dev/null"} <= set(found)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_posix_shell(name: str) -> None:
    done = subprocess.run(["dash", "-n"], input=recipe_bytes(f"{name}.sh"), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_no_host_of_a_mirror_or_index_stands_in_the_recipe() -> None:
    folder = Path(recipe_hash.__code__.co_filename).parent
    for path in folder.rglob("*"):
        if path.suffix in {".py", ".sh", ".service", ".path", ".network"}:
            assert "://" not in path.read_text(), path


def test_systemd_is_an_addition() -> None:
    assert set(packages_of("minimal")) < set(packages_of("systemd"))


def test_power_commands_leave_process_1_alone_where_it_is_not_the_board_s(tmp_path: Path) -> None:
    script = tmp_path / "reboot"
    script.write_bytes(recipe_bytes("power.sh"))
    done = subprocess.run(["sh", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "reboot: this is no machine of its own: its process 1 is another's\n",
    )
