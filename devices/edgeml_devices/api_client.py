"""The server's HTTP interface for people and tools: JSON in and out, retries, resumable uploads.

docs/reference/fleet.md has the calls. Proxies come from the environment (``HTTPS_PROXY``, ``NO_PROXY``);
certificates are always checked, against the system's authorities or a file.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, Self
from urllib.parse import quote, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError
from urllib3.util import Retry, Timeout

import edgeml
from edgeml.atomic import replacing_file
from edgeml.errors import ServerError, UsageError
from edgeml_devices.api_answers import Answer, RefusedError, cause, parsed, require_success, unreachable
from edgeml_devices.http_pool import BUSY, LONGEST_WAIT_S, RETRIES, open_pool, retry_policy

Progress = Callable[[int], None]
"""Called with the number of bytes that are done."""

_TIMEOUT: Final = Timeout(connect=10, read=60)
_SLOW: Final = Timeout(connect=10, read=600)
"""For answers that the server has to make first."""
_FAILURES: Final = 8
"""In a row, without a byte that arrived, before a blob is given up (about 2 minutes)."""
_PIECE_BYTES: Final = 8 * 1024 * 1024
_READ_BYTES: Final = 64 * 1024
_BODY_LIMIT_BYTES: Final = 64 * 1024 * 1024
"""More than any document: a page of devices has some hundred kB, a manifest at most 16 MiB."""
_RANGE: Final = re.compile(r"bytes=0-(\d+)")


def endpoint(*parts: str | int) -> str:
    """Give the path of a call from its parts, each escaped: ``endpoint("devices", "line 4")``."""
    return "/v1/" + "/".join(quote(str(part), safe="") for part in parts)


class ApiClient:
    """One server, as one user. Safe to use from several threads; ``with`` closes the connections.

    Every call raises ServerError where the server cannot be reached, and its kind RefusedError where it
    answers no; the message says what to do next.
    """

    def __init__(self, server_url: str, token: str = "", ca_file: Path | None = None) -> None:
        """Open no connection yet.

        Args:
            server_url: ``https://HOST[:PORT][/PREFIX]``.
            token: of an admin, operator or viewer, or of a device; empty for what anyone may read.
            ca_file: PEM file of the authorities to trust instead of the system's.

        Raises:
            UsageError: no URL of a server, or no such CA file.
        """
        parts = urlsplit(server_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(
                f"{server_url!r} is not a server's address: write https://HOST or http://HOST:PORT"
            )
        if ca_file is not None and not ca_file.is_file():
            raise UsageError(f"no such CA file: {ca_file}")
        self.server_url = server_url.rstrip("/")
        self._headers = {"User-Agent": f"edgeml/{edgeml.__version__}", "Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._pool = open_pool(parts.scheme, parts.hostname, ca_file)

    def close(self) -> None:
        self._pool.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- JSON

    def get(self, path: str, query: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        return self._json("GET", path, query=query)

    def pages(self, path: str, name: str, query: Mapping[str, str | int] | None = None) -> Iterator[Any]:
        """Give what a list holds under ``name``, one after another, page by page."""
        asked = dict(query or {})
        while True:
            page = self.get(path, asked)
            if not isinstance(page[name], list):
                raise ServerError(f"{self.server_url}{path} answered with {name!r} that are no list")
            yield from page[name]
            if page.get("next") is None:
                return
            asked["after"] = page["next"]

    def post(self, path: str, body: Any = None, *, idempotent: bool = False) -> dict[str, Any]:
        """Post a JSON body.

        Args:
            path: of the call.
            body: what ``json`` can write.
            idempotent: the call may be sent again when its answer was lost.
        """
        return self._json("POST", path, body=body, again=idempotent)

    def put(self, path: str, body: Any = None) -> dict[str, Any]:
        return self._json("PUT", path, body=body)

    def patch(self, path: str, body: Any = None) -> dict[str, Any]:
        return self._json("PATCH", path, body=body)

    def delete(self, path: str) -> Any:
        """Delete what is there; gives what the server says to it, ``None`` if nothing."""
        answer = self._checked("DELETE", path)
        return parsed(answer, self.server_url + path) if answer.body else None

    # --- bytes

    def get_bytes(self, path: str) -> bytes:
        """Give an answer's body as it stands: signed metadata, a manifest."""
        return self._checked("GET", path).body

    def find_bytes(self, path: str) -> bytes | None:
        """Give what :meth:`get_bytes` gives, or ``None`` where the server has no such thing."""
        answer = self._send("GET", path, {}, None, retry_policy())
        if answer.status == 404:  # noqa: PLR2004 - HTTP's
            return None
        self._require_success(answer, "GET", path)
        return answer.body

    def exists(self, path: str) -> bool:
        """Say whether a blob is there, by ``HEAD``."""
        answer = self._send("HEAD", path, {}, None, retry_policy())
        if answer.status == 404:  # noqa: PLR2004 - HTTP's
            return False
        self._require_success(answer, "HEAD", path)
        return True

    def put_bytes(self, path: str, content: bytes) -> None:
        """Put signed metadata, byte for byte."""
        headers = {"Content-Type": "application/json"}
        self._checked("PUT", path, headers=headers, body=content)

    def save(self, path: str, query: Mapping[str, str | int], file: Path) -> int:
        """Write an answer of any length to a file, whole or not at all; give its bytes."""
        asked = _with_query(path, query)
        try:
            response = self._request("GET", asked, self._headers, None, retry_policy(), _SLOW)
            try:
                if response.status != 200:  # noqa: PLR2004 - HTTP's
                    body = response.read(_BODY_LIMIT_BYTES)
                    self._require_success(Answer(response.status, response.headers, body), "GET", path)
                with replacing_file(file) as scratch, scratch.open("wb") as target:
                    for chunk in response.stream(_READ_BYTES):
                        target.write(chunk)
                    return target.tell()
            finally:
                response.release_conn()
        except HTTPError as error:
            raise ServerError(unreachable(self.server_url, error)) from error

    def upload(self, path: str, file: Path, *, progress: Progress | None = None) -> None:
        """Put a file's content in pieces; what arrived before, in this run or another, is not sent again.

        Args:
            path: of the blob.
            file: what to send.
            progress: called with the bytes that the server has or that were sent.
        """
        size_bytes, failures = file.stat().st_size, 0
        report: Progress = progress or (lambda _: None)
        with file.open("rb") as content:
            offset = self._offset(path, size_bytes)
            while offset is not None:
                report(offset)
                before = offset
                try:
                    offset, reason = self._send_piece(path, content, offset, size_bytes, report), None
                except ServerError as error:
                    if _is_final(error, before, size_bytes):
                        raise
                    offset, reason = self._offset(path, size_bytes), error
                failures = 0 if offset is None or offset > before else failures + 1
                if failures >= _FAILURES:
                    raise ServerError(
                        f"{self.server_url}: nothing of {path} arrives behind byte {before}: "
                        f"{reason or 'the server takes no more'}; run the command again to go on from there"
                    ) from reason
                if failures:
                    time.sleep(min(LONGEST_WAIT_S, 0.5 * 2**failures))
        report(size_bytes)

    def download(self, path: str, file: Path, size_bytes: int, *, progress: Progress | None = None) -> None:
        """Fetch a blob; what ``file`` holds already is not fetched again. Its hash is the caller's to check.

        Args:
            path: of the blob.
            file: what comes is appended to it.
            size_bytes: of the whole blob; more is not taken.
            progress: called with the bytes that are there.
        """
        report: Progress = progress or (lambda _: None)
        failures = 0
        with file.open("ab") as target:
            while (before := target.tell()) < size_bytes:
                reason = self._append(path, target, size_bytes, report)
                failures = 0 if target.tell() > before else failures + 1
                if reason is not None and failures >= _FAILURES:
                    raise ServerError(f"{self.server_url}: {path} breaks off at byte {before}: {reason}")
                if failures:
                    time.sleep(min(LONGEST_WAIT_S, 0.5 * 2**failures))

    def _append(self, path: str, target: BinaryIO, size_bytes: int, report: Progress) -> str | None:
        """Fetch the rest of a blob as far as the connection holds; give the reason why it broke off."""
        offset = target.tell()
        headers = self._headers | {"Range": f"bytes={offset}-{size_bytes - 1}"}
        try:
            response = self._request("GET", path, headers, None, retry_policy(connect=RETRIES))
        except HTTPError as error:
            raise ServerError(unreachable(self.server_url, error)) from error
        try:
            resumed = response.status == 206  # noqa: PLR2004 - HTTP's
            if not resumed and (response.status != 200 or offset):  # noqa: PLR2004 - HTTP's
                body = response.read(_BODY_LIMIT_BYTES, decode_content=False)
                self._require_success(Answer(response.status, response.headers, body), "GET", path)
                return "the server does not resume"
            if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                return "the server sent another part than was asked for"
            while target.tell() < size_bytes:
                chunk = response.read(min(_READ_BYTES, size_bytes - target.tell()), decode_content=False)
                if not chunk:
                    return "it ends early"
                target.write(chunk)
                report(target.tell())
        except HTTPError as error:
            return cause(error)
        finally:
            response.close()
        return None

    def _offset(self, path: str, size_bytes: int) -> int | None:
        """Ask how much of an upload is there; ``None``: it is whole."""
        headers = {"Content-Range": f"bytes */{size_bytes}"}
        return self._arrived(self._send("PUT", path, headers, b"", retry_policy(connect=RETRIES)), path)

    def _send_piece(
        self, path: str, content: BinaryIO, offset: int, size_bytes: int, report: Progress
    ) -> int | None:
        """Send one piece; give how much is there now, as :meth:`_offset`."""
        end = min(offset + _PIECE_BYTES, size_bytes)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - offset),
            "Content-Range": f"bytes {offset}-{end - 1}/{size_bytes}",
        }
        body = _piece(content, offset, end, report)
        return self._arrived(self._send("PUT", path, headers, body, retries=False), path)

    def _arrived(self, response: Answer, path: str) -> int | None:
        if response.status != 308:  # noqa: PLR2004 - HTTP's
            self._require_success(response, "PUT", path)
            return None
        found = _RANGE.fullmatch(response.headers.get("Range", ""))
        return int(found[1]) + 1 if found else 0

    # --- one request

    def _require_success(self, answer: Answer, method: str, path: str) -> None:
        is_known = "Authorization" in self._headers
        require_success(answer, self.server_url, f"{method} {path}", is_known=is_known)

    def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Any = None,
        again: bool = True,
    ) -> dict[str, Any]:
        if query:
            path = _with_query(path, query)
        headers, content = {}, None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        answer = self._checked(method, path, headers=headers, body=content, again=again)
        return parsed(answer, self.server_url + path)

    def _checked(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        again: bool = True,
    ) -> Answer:
        answer = self._send(method, path, headers or {}, body, retry_policy(again=again))
        self._require_success(answer, method, path)
        return answer

    def _send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | Iterator[bytes] | None,
        retries: Retry | Literal[False],
    ) -> Answer:
        tries = RETRIES if retries and retries.read else 1
        while True:
            tries -= 1
            try:
                response = self._request(method, path, self._headers | dict(headers), body, retries)
                try:
                    content = response.read(_BODY_LIMIT_BYTES + 1, decode_content=False)
                finally:
                    response.release_conn()
            except HTTPError as error:
                # urllib3 tries again by itself until the body begins
                if tries > 0 and not isinstance(error, MaxRetryError):
                    continue
                raise ServerError(unreachable(self.server_url, error)) from error
            if len(content) > _BODY_LIMIT_BYTES:
                response.close()
                raise ServerError(
                    f"{self.server_url}{path}: the answer does not end; is this an edgeml server?"
                )
            return Answer(response.status, response.headers, content)

    def _request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | Iterator[bytes] | None,
        retries: Retry | Literal[False],
        timeout: Timeout = _TIMEOUT,
    ) -> urllib3.BaseHTTPResponse:
        return self._pool.request(
            method,
            f"{self.server_url}{path}",
            headers=headers,
            body=body,
            redirect=False,
            timeout=timeout,
            retries=retries,
            preload_content=False,
        )


def _with_query(path: str, query: Mapping[str, str | int]) -> str:
    return path + "?" + "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())


def _piece(content: BinaryIO, offset: int, end: int, report: Progress) -> Iterator[bytes]:
    content.seek(offset)
    while offset < end:
        chunk = content.read(min(_READ_BYTES, end - offset))
        if not chunk:
            raise ServerError("the file became shorter while it was sent; leave it alone and run again")
        yield chunk
        offset += len(chunk)
        report(offset)


def _is_final(error: ServerError, sent_from: int, size_bytes: int) -> bool:
    """Say whether a refusal stands: all but a server that is busy, or at another offset than expected."""
    if not isinstance(error, RefusedError):
        return False
    ends = sent_from + _PIECE_BYTES >= size_bytes
    # at the end of a blob, 409 says that its hash is another
    return error.status not in BUSY and (error.status != 409 or ends)  # noqa: PLR2004 - HTTP's
