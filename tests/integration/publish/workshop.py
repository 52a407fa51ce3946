"""A release engineer's machine: keys, bundles, the command line, and a stock TUF client as the judge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from click.testing import CliRunner, Result
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from edgeml.bundle import write_bundle
from edgeml.cli import main
from edgeml.manifest import FileEntry, Manifest, Variant
from edgeml.tensors import TensorSpec

MODEL = "variants/litert-float32/model.tflite"


class Workshop:
    def __init__(self, folder: Path, url: str, token: str, model: str = "kws") -> None:
        self.folder = folder
        self.model = model
        self.url = url
        self.token = token
        self.keys = folder / "keys"
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "EDGEML_SERVER": self.url,
            "EDGEML_TOKEN": self.token,
            "EDGEML_KEYS": str(self.keys),
            "EDGEML_KEY_PASSPHRASE": "",
            "EDGEML_CA_FILE": "",
        }

    def run(self, *arguments: str | Path | int) -> Result:
        """Run a command in this process; any exit code."""
        return CliRunner().invoke(main, [str(argument) for argument in arguments], env=self.environment)

    def do(self, *arguments: str | Path | int) -> str:
        """Run a command that must succeed; give what it printed."""
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def ask(self, *arguments: str | Path | int) -> Any:
        """Run a command with --json; give its answer."""
        return json.loads(self.do(*arguments, "--json"))

    def refused(self, *arguments: str | Path | int) -> str:
        """Run a command that must fail at its work; give what it said."""
        result = self.run(*arguments)
        assert result.exit_code == 1, result.output
        assert "this is a bug" not in result.stderr
        return result.stderr

    def start(self, *arguments: str | Path | int) -> subprocess.Popen[str]:
        """Start a command in a process of its own, to be killed."""
        command = [sys.executable, "-m", "edgeml", *(str(argument) for argument in arguments)]
        environment = os.environ | self.environment
        return subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def bundle(self, release: int, *, weights: bytes = b"weights", model: str = "") -> Path:
        """Write a bundle of which only the weights and the manifest depend on the arguments."""
        name = model or self.model
        sources = self.folder / f"sources-{name}-{release}"
        sources.mkdir(exist_ok=True)
        files = {}
        for place, (path, content) in enumerate({MODEL: weights, "labels.txt": b"yes\nno\n" * 5000}.items()):
            files[path] = sources / str(place)
            files[path].write_bytes(content)
        manifest = Manifest(
            name,
            release,
            (TensorSpec("x", (1, 4), "float32"),),
            (TensorSpec("y", (1, 2), "float32"),),
            (Variant("litert-float32", "litert", "float32", (FileEntry(MODEL, 0, ""),), ("host",)),),
            (),
            labels="labels.txt",
        )
        path = self.folder / f"{name}-{release}.edgeml"
        write_bundle(path, manifest, files)
        return path

    def listed(self) -> list[int]:
        """Give the releases of the model that the server lists."""
        return [one["release"] for one in self.ask("releases", "list", self.model)["releases"]]

    def client(self, name: str = "device") -> Updater:
        """Give a stock TUF client, which keeps what it trusts under this name."""
        folder = self.folder / name
        (folder / "targets").mkdir(parents=True, exist_ok=True)
        with urlopen(f"{self.url}/v1/repository/metadata/1.root.json") as answer:  # noqa: S310 - http, on loopback
            bootstrap = answer.read()
        return Updater(
            str(folder / "metadata"),
            f"{self.url}/v1/repository/metadata/",
            str(folder / "targets"),
            f"{self.url}/v1/repository/targets/",
            bootstrap=bootstrap,
        )

    def manifest_on_device(
        self, release: int, *, model: str = "", device: str = "device"
    ) -> dict[str, Any] | None:
        """Give the manifest that a stock client downloads; None: no such release."""
        client = self.client(device)
        target = client.get_targetinfo(f"models/{model or self.model}/{release}.json")
        return None if target is None else json.loads(Path(client.download_target(target)).read_bytes())


def other_machine(shop: Workshop, folder: Path, token: str = "", keys: tuple[str, ...] = ()) -> Workshop:
    """Give another machine that has some of the keys."""
    other = Workshop(folder, shop.url, token or shop.token, shop.model)
    other.keys.mkdir(mode=0o700)
    for name in keys:
        for file in (shop.keys / f"{name}.pem", shop.keys / f"{name}.pub"):
            (other.keys / file.name).write_bytes(file.read_bytes())
            (other.keys / file.name).chmod(0o600)
    return other


class ExportFetcher(FetcherInterface):
    """Reads an export's folder as if it were the server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _fetch(self, url: str) -> Any:
        file = self._folder / url.removeprefix("file://export/")
        if not file.is_file():
            raise DownloadHTTPError(f"no {file}", 404)
        yield file.read_bytes()
