"""aarch64 wheels for the guest's Python, through pip as the user configured it; and edgeml's own."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import edgeml
from edgeml.words import RuntimeName
from edgeml_devices.emulator import programs
from edgeml_devices.emulator.images.cache import Cache
from edgeml_devices.emulator.images.image import PYTHON
from edgeml_devices.emulator.own_folder import own_folder

Say = Callable[[str], None]
GLIBC: Final = 36
"""Minor version of Debian 12's glibc 2.36."""
OLDEST_GLIBC: Final = 17
OWN: Final = ("edgeml-core", "edgeml-runtimes", "edgeml-devices")
"""In the order of :data:`_ROOMS`."""
_ROOMS: Final = (".", "runtimes", "devices")
_SOURCES: Final = ("edgeml", "runtimes/edgeml_runtimes", "devices/edgeml_devices")
_ENGINES: Final[dict[RuntimeName, str]] = {
    "litert": "ai-edge-litert",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}
_TOLD: Final = ("Collecting ", "Downloading ", "Processing ", "Saved ", "Building ")
_BACKEND: Final = "hatchling"
_PIP: Final = ("-P", "-m", "pip", "--disable-pip-version-check", "--no-input")


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel in the cache."""

    file: str
    sha256: str

    @property
    def name(self) -> str:
        """Normalised name of the distribution."""
        return re.sub(r"[-_.]+", "-", self.file.split("-")[0]).lower()

    @property
    def version(self) -> str:
        return self.file.split("-")[1]


def platform_options() -> tuple[str, ...]:
    """Give pip's options for the guest: every platform tag, as pip does not go on to older ones by itself."""
    short = PYTHON.replace(".", "")
    tags = [f"manylinux_2_{minor}_aarch64" for minor in range(GLIBC, OLDEST_GLIBC - 1, -1)]
    return (
        *("--only-binary=:all:", "--python-version", short, "--implementation", "cp"),
        *(part for abi in (f"cp{short}", "abi3", "none") for part in ("--abi", abi)),
        *(part for tag in (*tags, "manylinux2014_aarch64") for part in ("--platform", tag)),
    )


# --- edgeml's own


def checkout() -> Path | None:
    """Give the source tree that edgeml runs from; ``None`` if it was installed from wheels."""
    root = Path(edgeml.__file__).resolve().parent.parent
    has_rooms = all((root / room / "pyproject.toml").is_file() for room in _ROOMS)
    return root if has_rooms else None


def own_key() -> str:
    """Give the hash of edgeml's sources, or its version where it was installed from wheels."""
    root = checkout()
    if root is None:
        return f"release-{edgeml.__version__}"
    digest = hashlib.sha256()
    for path in _source_files(root):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _source_files(root: Path) -> Iterable[Path]:
    yield from (root / room / "pyproject.toml" for room in _ROOMS)
    for folder in _SOURCES:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def build_own(cache: Cache, key: str, say: Say) -> tuple[Path, ...]:
    """Give edgeml's wheels, built from the checkout; none where there is no checkout.

    Args:
        cache: keeps them.
        key: of the sources as they are, see :func:`own_key`.
        say: called with a line now and then.

    Raises:
        EdgemlError: the build failed.
    """
    root = checkout()
    if root is None:
        return ()

    def fill(folder: Path) -> None:
        options = ["--no-build-isolation", "--no-index"] if importlib.util.find_spec(_BACKEND) else []
        rooms = [root / room for room in _ROOMS]
        _pip("wheel", "--no-deps", *options, "-w", folder, *rooms, what="building edgeml's wheels", say=say)

    folder = cache.made("edgeml", key, fill)
    return tuple(next(folder.glob(f"{name.replace('-', '_')}-*.whl")) for name in OWN)


# --- what it depends on


def requirements(engines: Sequence[RuntimeName], own: Sequence[Path]) -> tuple[str, ...]:
    """Give what pip is asked for: edgeml's wheels, or its version, with extras."""
    extras = ("images", ",".join(engines), "agent")
    if own:
        return tuple(
            f"{path}[{extra}]" if extra else str(path) for path, extra in zip(own, extras, strict=True)
        )
    return tuple(f"{name}[{extra}]=={edgeml.__version__}" for name, extra in zip(OWN, extras, strict=True))


def pins(engines: Sequence[RuntimeName]) -> str:
    """Give the constraints: those of the checkout, or else the engines' versions on this machine."""
    root = checkout()
    if root is not None and (root / "constraints.txt").is_file():
        return (root / "constraints.txt").read_text(encoding="utf-8")
    lines = []
    for engine in engines:
        try:
            lines.append(f"{_ENGINES[engine]}=={metadata.version(_ENGINES[engine])}\n")
        except metadata.PackageNotFoundError:
            continue
    return "".join(lines)


def declared(engines: Sequence[RuntimeName]) -> str:
    """Give all that decides which wheels are fetched, as text for a key."""
    root = checkout()
    rooms = [] if root is None else [(root / room / "pyproject.toml").read_text("utf-8") for room in _ROOMS]
    return "\0".join([edgeml.__version__, *platform_options(), *engines, pins(engines), *rooms])


def download(
    cache: Cache, engines: Sequence[RuntimeName], own: Sequence[Path], say: Say
) -> tuple[Wheel, ...]:
    """Fetch wheels that edgeml and the engines need; edgeml's own are among them where they were fetched.

    Raises:
        EdgemlError: pip failed; holds its last lines.
    """
    folder = cache.folder / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    with own_folder(".fetching.", folder) as scratch:
        (scratch / "pins.txt").write_text(pins(engines), encoding="utf-8")
        (scratch / "new").mkdir()
        _pip(
            *("download", "-d", scratch / "new", "-c", scratch / "pins.txt", "--progress-bar=off"),
            *(*platform_options(), *requirements(engines, own)),
            what="fetching wheels for aarch64",
            say=say,
        )
        mine = {path.name for path in own}
        fetched = [path for path in sorted((scratch / "new").glob("*.whl")) if path.name not in mine]
        found = tuple(wheel_at(path) for path in fetched)
        for path in fetched:
            path.replace(folder / path.name)
    return found


def install(wheels: Sequence[Path], folder: Path, say: Say) -> None:
    """Unpack wheels into a folder, as pip does for another platform. Their commands are left out.

    Raises:
        EdgemlError: pip failed.
    """
    options: tuple[str | Path, ...] = ("--no-index", "--no-deps", "--no-compile", "--target", folder)
    _pip("install", *options, *platform_options(), *wheels, what="unpacking wheels", say=say)
    shutil.rmtree(folder / "bin", ignore_errors=True)
    for record in folder.glob("*.dist-info/direct_url.json"):
        record.unlink()  # a path on this machine


def _pip(*arguments: str | Path, what: str, say: Say) -> None:
    def on_line(line: str) -> None:
        if line.strip().startswith(_TOLD):
            say(line.strip()[:100])

    programs.run([sys.executable, *_PIP, *arguments], what, on_line=on_line)


def wheel_at(path: Path) -> Wheel:
    """Describe a wheel that is here."""
    with path.open("rb") as file:
        return Wheel(path.name, hashlib.file_digest(file, "sha256").hexdigest())
