"""A device with a valid token that means harm, and an operator who looks at the fleet all the same."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterator
from http.cookiejar import CookieJar
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener

import msgspec

from tests.integration.server_process import ServerProcess

MSGPACK = "application/vnd.edgeml.reports+msgpack"


def histogram(**fields: Any) -> dict[str, Any]:
    """Ten calls of about 10 ms, as a device writes them."""
    return {
        "offset": -213,
        "counts": [10],
        "zero": 0,
        "sum_nano": 100_000_000,
        "min": 0.01,
        "max": 0.01,
        "scale": 5,
    } | fields


def window(**fields: Any) -> dict[str, Any]:
    """Ten calls of release 1 of ``kws``."""
    return {
        "model": "kws",
        "release": 1,
        "variant": "int8",
        "runtime": "litert",
        "calls": 10,
        "latency": {"total": histogram()},
    } | fields


class Attacker:
    """An enrolled device that says what it likes."""

    def __init__(self, server: ServerProcess, name: str) -> None:
        self.server, self.name = server, name
        self.token, self.epoch = secrets.token_urlsafe(32), secrets.token_hex(16)
        self._numbers, self._link = itertools.count(), ""
        _, join = server.call("POST", "/v1/join-tokens", {})
        body = {"join_token": join["token"], "device_token": self.token, "name": name}
        status, answer = server.call("POST", "/v1/enrol", body)
        assert status == 201, answer
        self.id: str = answer["device_id"]

    def report(self, *windows: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """Give the next report."""
        number, before, self._link = next(self._numbers), self._link, secrets.token_hex(8)
        return {
            "seq": number,
            "link": self._link,
            "prev": before,
            "boot_id": "b",
            "start_s": 60.0 * number,
            "end_s": 60.0 * number + 60,
            "at": time.time() - 1,
            "clock": "synced",
            "models": windows,
        } | fields

    def batch(self, *reports: dict[str, Any]) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "boot_id": "b",
            "now_s": reports[-1]["end_s"] + 1,
            "at": time.time(),
            "reports": reports,
        }

    def send(self, *reports: dict[str, Any]) -> tuple[int, Any]:
        return self.send_bytes(msgspec.msgpack.encode(self.batch(*reports)))

    def send_bytes(self, body: bytes, **headers: str) -> tuple[int, Any]:
        told = {"Content-Type": MSGPACK} | {name.replace("_", "-"): text for name, text in headers.items()}
        return self.server.call("POST", "/v1/reports", body, token=self.token, headers=told)

    def start_again(self) -> None:
        """Begin a new epoch: the last report was refused."""
        self.epoch, self._link, self._numbers = secrets.token_hex(16), "", itertools.count()


class Operator:
    """Looks at every page and asks every question."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self._browser = build_opener(HTTPCookieProcessor(CookieJar()))
        form = urlencode({"token": server.admin_token, "next": "/console"}).encode()
        sign_in = Request(f"{server.url}/console/sign-in", form, {"Origin": server.url})  # noqa: S310 - http
        self._browser.open(sign_in, timeout=30)

    def page(self, path: str) -> tuple[int, str]:
        try:
            with self._browser.open(f"{self.server.url}{path}", timeout=60) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def failures(self, device: str, model: str = "kws", release: int = 1) -> list[str]:
        """Give what is not answered with success."""
        found = []
        for path in self._pages(device, model, release):
            status, _ = self.page(path)
            if status != 200:
                found.append(f"{path}: {status}")
        for path in self._questions(device, model, release):
            status, said = self.server.call("GET", path)
            if status != 200:
                found.append(f"{path}: {status} {said!s:.200}")
        return found

    @staticmethod
    def _pages(device: str, model: str, release: int) -> Iterator[str]:
        yield "/console"
        yield "/console/telemetry"
        yield f"/console/devices/{quote(device, safe='')}"
        for span in ("24h", "7d", "30d"):
            yield f"/console/release?model={quote(model, safe='')}&release={release}&span={span}"

    @staticmethod
    def _questions(device: str, model: str, release: int) -> Iterator[str]:
        yield "/metrics"
        everything = "/v1/telemetry"
        for metric in ("total", "run", "confidence"):
            yield f"{everything}/quantile?by=device,model,release,hour&metric={metric}"
            yield f"{everything}/quantile?device={device}&metric={metric}"
        for since in ("", f"&since={time.time() - 3600:.0f}"):
            yield f"{everything}/rate?by=model,day{since}"
            yield f"{everything}/rate?device={device}{since}"
        yield f"{everything}/compare?model={quote(model, safe='')}&release={release}&against={release + 1}"
        for by in ("device", "target", "release", "fleet"):
            yield f"{everything}/drift?by={by}"
        yield f"{everything}/machine?by=device,hour"
        yield f"{everything}/coverage"
        yield f"{everything}/coverage?since=0"
        yield f"{everything}/samples?limit=1000"
        yield f"{everything}/export"
        yield "/v1/alerts"
