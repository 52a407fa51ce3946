"""Debian packages, unpacked into a folder as an ordinary user; no script of theirs is run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from edgeml.errors import EdgemlError
from edgeml_devices.emulator import tools
from edgeml_devices.emulator.images.cache import remove_tree

_MERGED: Final = ("bin", "sbin", "lib")
"""Links into ``usr``, as on every Debian since 12."""
_UNREAD: Final = (
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/lib/udev/hwdb.d",
    "var/cache/apt",
    "var/lib/apt",
)
_KEPT_DOCUMENT: Final = "copyright"
_AT_ONCE: Final = 2


def unpack_all(debs: Sequence[Path], root: Path, on_unpacked: Callable[[int], None]) -> None:
    """Unpack packages into an empty folder; manuals and translations are left out, licences are kept.

    Args:
        debs: package files, checked.
        root: where to.
        on_unpacked: called with the number of packages that are done.

    Raises:
        EdgemlError: one is damaged, or the disk is full.
    """
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            for number, _ in enumerate(pool.map(lambda deb: _unpack(deb, root), debs), start=1):
                on_unpacked(number)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _drop_documents(root)


def _unpack(deb: Path, root: Path) -> None:
    with subprocess.Popen(
        [tools.find(tools.DPKG_DEB), "--fsys-tarfile", deb], stdout=subprocess.PIPE
    ) as reader:
        # a link to a folder, such as /lib, stays although packages hold the folder
        done = subprocess.run(
            [tools.find(tools.TAR), "-x", "-p", "--no-same-owner", "--keep-directory-symlink", "-C", root],
            stdin=reader.stdout,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0 or reader.returncode != 0:
        raise EdgemlError(f"{deb.name} cannot be unpacked: {done.stderr.strip() or 'the package is damaged'}")


def _drop_documents(root: Path) -> None:
    for name in _UNREAD:
        remove_tree(root / name)
    documents = root / "usr/share/doc"
    for path in sorted(documents.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.name != _KEPT_DOCUMENT and not path.is_symlink():
            path.unlink()
