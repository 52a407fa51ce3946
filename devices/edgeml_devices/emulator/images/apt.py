"""Debian packages for arm64, through a private state of apt: no root, and nothing of the system's is touched.

apt's own configuration holds (proxies, certificates), and so do its checks of signatures and hashes.
"""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeml.errors import EdgemlError, EngineMissingError, UsageError
from edgeml_devices.emulator import programs
from edgeml_devices.emulator.images.image import SUITE
from edgeml_devices.emulator.own_folder import own_folder

ARCHITECTURE: Final = "arm64"
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SUITES: Final = {"debian": (SUITE, f"{SUITE}-updates"), "debian-security": (f"{SUITE}-security",)}
"""By the last part of a mirror's path."""
_URI_LINE: Final = re.compile(r"'(?P<uri>[^']*)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})")
_ASK_AGAIN: Final = "If the mirror has newer versions by now: edgeml emulate build --update"
_STATUS: Final = re.compile(r"dlstatus:\d+:(?P<percent>[\d.]+):(?P<text>.*)")


@dataclass(frozen=True, slots=True)
class Deb:
    """A Debian package, of one version."""

    file: str
    """``libmd0_1.0.4-2_arm64.deb``; an epoch's colon is ``%3a``."""
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        return self.file.split("_")[0]

    @property
    def version(self) -> str:
        return urllib.parse.unquote(self.file.split("_")[1])


class Apt:
    """apt for arm64 with a state of its own in a folder. One process at a time may use it."""

    def __init__(self, folder: Path, mirrors: Sequence[str]) -> None:
        self._folder = folder
        state, archives, self._sources = folder / "state", folder / "archives", folder / "debian.sources"
        (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (archives / "partial").mkdir(parents=True, exist_ok=True)
        status = folder / "status"
        status.touch()
        self._sources.write_text(sources_text(mirrors), encoding="utf-8")
        settings = {
            "APT::Architecture": ARCHITECTURE,
            "APT::Architectures": ARCHITECTURE,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::ForceHash": "SHA256",
            "Acquire::Languages": "none",
            "Dir::Cache": folder / "cache",
            "Dir::Cache::archives": archives,
            "Dir::Etc::sourcelist": self._sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State": state,
            "Dir::State::status": status,
        }
        self._options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]

    def update(self) -> None:
        """Fetch the lists of packages.

        Raises:
            EdgemlError: the mirror cannot be reached, lacks the suite, or is not signed by Debian.
        """
        if not KEYRING.is_file():
            raise EngineMissingError(
                f"{KEYRING} is missing, and Debian's signatures cannot be checked without it. "
                "Install: sudo apt-get install debian-archive-keyring"
            )
        self._run("apt-get", "-o", "APT::Update::Error-Mode=any", "update", what="asking the Debian mirror")

    def depends(self, name: str) -> tuple[str, ...]:
        """Give what a package depends on, by name, in its own order."""
        said = self._run("apt-cache", "depends", name, what=f"looking for {name}")
        return tuple(re.findall(r"^ *Depends: ([^<>\s]+)$", said, re.MULTILINE))

    def resolve(self, names: Sequence[str]) -> tuple[Deb, ...]:
        """Give packages and all that they depend on, recommendations left out; dependencies first."""
        return self._listed("install", "--yes", *names)

    def alone(self, name: str) -> Deb:
        """Give one package, without what it depends on."""
        return self._listed("download", name)[0]

    def download(self, debs: Sequence[Deb], folder: Path, on_percent: Callable[[float, str], None]) -> None:
        """Fetch packages into a folder; those that are there, and whole, are left.

        Raises:
            EdgemlError: the mirror does not answer, or has other versions by now.
        """
        folder.mkdir(parents=True, exist_ok=True)
        wanted = [deb for deb in debs if not is_whole(folder / deb.file, deb.sha256)]
        if not wanted:
            return

        def on_line(line: str) -> None:
            found = _STATUS.match(line)
            if found:
                on_percent(float(found["percent"]), found["text"])

        with own_folder(".fetching.", folder) as scratch:
            exact = [f"{deb.name}={deb.version}" for deb in wanted]
            try:
                self._run(
                    *("apt-get", "-o", "APT::Status-Fd=1", "download", *exact),
                    what="fetching Debian packages",
                    folder=scratch,
                    on_line=on_line,
                )
            except EdgemlError as error:
                raise EdgemlError(f"{error}\n{_ASK_AGAIN}") from error
            for deb in wanted:
                fetched = scratch / deb.file
                if not is_whole(fetched, deb.sha256):
                    raise EdgemlError(f"the mirror has no {deb.file} as it was listed. {_ASK_AGAIN}")
                fetched.replace(folder / deb.file)

    def _listed(self, *command: str) -> tuple[Deb, ...]:
        with own_folder("edgeml-apt-") as empty:
            # what lies in the archives already is not printed
            said = self._run(
                *("apt-get", "-qq", "--print-uris", "-o", f"Dir::Cache::archives={empty}", *command),
                what=f"resolving {SUITE}'s packages",
            )
        return tuple(parse_uris(said))

    def _run(
        self,
        program: str,
        *arguments: str,
        what: str,
        folder: Path | None = None,
        on_line: Callable[[str], None] = lambda _: None,
    ) -> str:
        argv = [program, *self._options, *arguments]
        return programs.run(argv, what, folder=folder, on_line=on_line)


def parse_uris(text: str) -> Iterator[Deb]:
    """Read what ``apt-get --print-uris`` prints: URI, file name, size, hash."""
    for line in text.splitlines():
        found = _URI_LINE.fullmatch(line.strip())
        if found:
            yield Deb(found["file"], found["sha256"], int(found["size"]))


def sources_text(mirrors: Sequence[str]) -> str:
    """Give apt's sources for mirrors, the archive's and, where there is one, that of security updates."""
    stanzas = [
        f"Types: deb\nURIs: {mirror}\nSuites: {' '.join(suites_of(mirror))}\nComponents: main\n"
        f"Signed-By: {KEYRING}\n"
        for mirror in mirrors
    ]
    return "\n".join(stanzas)


def suites_of(mirror: str) -> tuple[str, ...]:
    """Give the suites to take from a mirror, told by its path."""
    return _SUITES["debian-security" if _last_part(mirror) == "debian-security" else "debian"]


def own_mirrors() -> tuple[str, ...]:
    """Give the Debian mirrors that this machine's apt is configured with.

    Raises:
        UsageError: it knows none of the archive, as on Ubuntu.
    """
    listed = programs.run(
        ["apt-get", "indextargets", "--format", "$(CREATED_BY) $(REPO_URI)"], "asking apt for its mirrors"
    )
    found = mirrors_of(listed)
    if not any(_last_part(mirror) == "debian" for mirror in found):
        raise UsageError(
            "apt on this machine has no mirror of Debian; give one: edgeml emulate build --mirror URL"
        )
    return found


def mirrors_of(index_targets: str) -> tuple[str, ...]:
    """Choose among lines of ``Packages URL``: the first mirror of the archive and the first of security."""
    chosen: dict[str, str] = {}
    for line in index_targets.splitlines():
        kind, _, url = line.strip().partition(" ")
        if kind == "Packages" and _last_part(url) in _SUITES:
            chosen.setdefault(_last_part(url), url)
    return tuple(chosen[part] for part in _SUITES if part in chosen)


def is_whole(path: Path, sha256: str) -> bool:
    """Say whether a file is there and has a hash."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _last_part(url: str) -> str:
    return urllib.parse.urlsplit(url).path.rstrip("/").rpartition("/")[2]
