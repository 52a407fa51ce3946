"""The server as the agent sees it: a long-poll, reports, and bytes that may come in pieces."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import urllib3
from tuf.api.exceptions import DownloadError, DownloadHTTPError
from urllib3.exceptions import HTTPError, SSLError
from urllib3.util import Timeout

import edgeml
from edgeml import typed_json
from edgeml.errors import MessageError, ServerError, UsageError
from edgeml.manifest import FileEntry
from edgeml.telemetry.sender import Reply
from edgeml_devices.agent.failures import UnreachableError
from edgeml_devices.agent.sources import CHUNK_BYTES, BlobStream
from edgeml_devices.api_client import endpoint
from edgeml_devices.http_pool import open_pool
from edgeml_devices.messages import Accepted, DesiredState, Enrolled, EnrolRequest, Report

T = TypeVar("T")
_CONNECT_S: Final = 10.0
_READ_S: Final = 30.0
"""A connection without a byte for so long is given up."""
_ANSWER_S: Final = 300.0
"""From its headers on: JSON or metadata that take longer only keep the agent busy."""
_ANSWER_LIMIT_BYTES: Final = 4 * 1024 * 1024
_LONGEST_RETRY_AFTER_S: Final = 3600.0
_OK: Final = 200
_CREATED: Final = 201
_PARTIAL: Final = 206
_NOT_MODIFIED: Final = 304
_NOT_FOUND: Final = 404
_SIZE: Final = re.compile(r"[0-9]{1,19}")
_RANGE: Final = re.compile(r"bytes (\d{1,19})-\d+/(?:\d+|\*)")


class ServerClient:
    """One server, as one device. Safe to use from several threads."""

    def __init__(
        self,
        server_url: str,
        token: str = "",
        ca_file: Path | None = None,
        clock: Callable[[], float] = time.time,
        answer_s: float = _ANSWER_S,
    ) -> None:
        """Open no connection yet.

        Args:
            server_url: of the server.
            token: of the device; empty: none yet.
            ca_file: PEM file of the authorities to trust.
            clock: of this device, Unix seconds.
            answer_s: how long an answer may take from its headers to its end, where it is no blob.

        Raises:
            UsageError: no URL of a server, or the proxy in the environment cannot be used.
        """
        parts = urlsplit(server_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(
                f"{server_url!r} is not a server's address: write https://HOST or http://HOST:PORT"
            )
        self.server_url = server_url.rstrip("/")
        self.clock_offset_s: float | None = None
        """How far this device's clock was ahead of the server's at the last answer."""
        self.reached_at: float | None = None
        """When the server last answered as an edgeml server does, by the monotonic clock."""
        self._clock = clock
        self._ca_file = ca_file
        self._answer_s = answer_s
        self._headers = {"User-Agent": f"edgeml-agent/{edgeml.__version__}", "Accept-Encoding": "identity"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._pool = open_pool(parts.scheme, parts.hostname, ca_file)

    def poll(self, generation: int | None, wait_s: float) -> DesiredState | None:
        """Wait for another desired state than ``generation``; ``None``: there is none so far.

        Raises:
            UnreachableError: no answer, or none of an edgeml server.
        """
        headers = {} if generation is None else {"If-None-Match": f'"{generation}"'}
        path = f"/v1/agent/state?wait={wait_s:g}"
        with self._open("GET", path, headers, read_s=wait_s + _READ_S) as response:
            if response.status == _NOT_MODIFIED:
                if generation is None:
                    raise UnreachableError(
                        f"{self.server_url}: HTTP 304 to a poll that names no state; is a cache in between?"
                    )
                self.reached_at = time.monotonic()
                return None
            return self._answer(DesiredState, response, path)

    def report(self, report: Report) -> Accepted:
        """Hand over what happened; the server has stored what the answer names.

        Raises:
            UnreachableError: no answer, or none of an edgeml server.
        """
        return self._post(Accepted, "/v1/agent/reports", report)

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Post telemetry; give the answer whatever its status.

        Raises:
            ServerError: there was none.
        """
        try:
            with self._open("POST", path, headers, body) as response:
                return Reply(response.status, self._limited(response), _retry_after(response))
        except UnreachableError as error:
            raise ServerError(str(error)) from error

    def enrol(self, request: EnrolRequest) -> Enrolled:
        """Join; the same device token again gives the same device.

        Raises:
            UnreachableError: no answer, or a refusal.
        """
        return self._post(Enrolled, "/v1/enrol", request)

    def first_root(self) -> bytes:
        """Give the repository's first root metadata.

        Raises:
            UnreachableError: no answer, or none of an edgeml server.
        """
        with self._open("GET", endpoint("repository", "metadata", "1.root.json")) as response:
            self._require(response, _OK)
            return self._limited(response)

    @contextmanager
    def stream(
        self, path: str, start: int = 0, *, size_bytes: int | None = None, etag: str = ""
    ) -> Iterator[BlobStream]:
        """Open what a path gives, from byte ``start`` on where the server can do that.

        Args:
            path: of the call.
            start: of the first byte that is wanted.
            size_bytes: of the whole, where it is known: an answer of another size is not the server's.
            etag: what the answer's must be, where it has one.

        Raises:
            UnreachableError: no answer, or a refusal; also from the stream's iterator.
        """
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._open("GET", path, headers) as response:
            self._require(response, _OK, _PARTIAL)
            begins = start if response.status == _PARTIAL else 0
            self._check_identity(response, path, begins, size_bytes, etag)
            # a blob has a slowest rate instead
            within_s = self._answer_s if size_bytes is None else None
            yield BlobStream(begins, _chunks(response, f"{self.server_url}{path}", within_s))

    def _check_identity(
        self, response: urllib3.BaseHTTPResponse, path: str, begins: int, size_bytes: int | None, etag: str
    ) -> None:
        """Refuse what a proxy or a hotel's log-in page answers in the server's place: it must not be kept."""
        said, length = response.headers.get("ETag", ""), response.headers.get("Content-Length")
        ranges = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status == _PARTIAL and (ranges is None or int(ranges[1]) != begins):
            raise UnreachableError(f"{self.server_url}{path}: another range than asked for came")
        wrong_etag = etag and said and said.removeprefix("W/").strip('"') != etag
        is_size = length is None or _SIZE.fullmatch(length) is not None
        wrong_size = not is_size or (
            size_bytes is not None and length is not None and int(length) < size_bytes - begins
        )
        if wrong_etag or wrong_size or response.headers.get("Content-Encoding", "identity") != "identity":
            raise UnreachableError(f"{self.server_url}{path}: another file than asked for came")

    # --- one request

    def _post(self, kind: type[T], path: str, document: object) -> T:
        text = json.dumps(typed_json.write(document), ensure_ascii=False)
        body = text.encode("utf-8", "replace")  # an error's text may hold a path that is not UTF-8
        with self._open("POST", path, {"Content-Type": "application/json"}, body) as response:
            return self._answer(kind, response, path)

    @contextmanager
    def _open(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        read_s: float = _READ_S,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        url = f"{self.server_url}{path}"
        try:
            response = self._pool.request(
                method,
                url,
                headers=self._headers | dict(headers or {}),
                body=body,
                timeout=Timeout(connect=_CONNECT_S, read=read_s),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except HTTPError as error:
            raise UnreachableError(self._unreachable(error)) from error
        self._note_clock(response)
        whole = False
        try:
            yield response
            whole = response.length_remaining == 0
        finally:
            # a connection with bytes left in it is of no use to the next request
            if not whole:
                response.close()
            response.release_conn()

    def _answer(self, kind: type[T], response: urllib3.BaseHTTPResponse, path: str) -> T:
        self._require(response, _OK, _CREATED)
        where = f"{self.server_url}{path}"
        try:
            answer = typed_json.read(kind, typed_json.parse(self._limited(response), where), where)
        except MessageError as error:
            raise UnreachableError(f"{error}; is this the address of an edgeml server?") from error
        self.reached_at = time.monotonic()
        return answer

    def _require(self, response: urllib3.BaseHTTPResponse, *wanted: int) -> None:
        if response.status in wanted:
            return
        said = self._error_message(response)
        if said is not None:
            self.reached_at = time.monotonic()  # it refuses, but it is there
        detail = f"{self.server_url}: HTTP {response.status}" + (f": {said}" if said else "")
        raise UnreachableError(detail, _retry_after(response), response.status)

    def _limited(self, response: urllib3.BaseHTTPResponse) -> bytes:
        content = bytearray()
        for chunk in _chunks(response, "the answer", self._answer_s):
            content += chunk
            if len(content) > _ANSWER_LIMIT_BYTES:
                raise UnreachableError(f"the answer is longer than {_ANSWER_LIMIT_BYTES} bytes; given up")
        return bytes(content)

    def _error_message(self, response: urllib3.BaseHTTPResponse) -> str | None:
        """Give the message of an edgeml server's refusal; ``None`` for that of anybody else."""
        try:
            document: Any = json.loads(self._limited(response))
            return str(document["error"]["message"])
        except (UnreachableError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _note_clock(self, response: urllib3.BaseHTTPResponse) -> None:
        try:
            date = parsedate_to_datetime(response.headers.get("Date", ""))
        except (TypeError, ValueError):
            return
        self.clock_offset_s = self._clock() - date.timestamp()

    def _unreachable(self, error: HTTPError) -> str:
        text = str(error).rpartition("object at 0x")[2].partition(": ")[2] or str(error)
        if self._ca_file is not None and not self._ca_file.is_file():
            return f"{self.server_url}: no such CA file: {self._ca_file}; copy it there"
        if isinstance(error, SSLError) and "not yet valid" in text:
            now = time.strftime("%Y-%m-%d", time.gmtime(self._clock()))
            return f"{self.server_url}: its certificate is not valid yet: the clock here says {now}; set it"
        if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in text:
            return (
                f"{self.server_url}: its certificate is not trusted: {text}; "
                "enrol with the authority that signed it (--ca-file, EDGEML_CA_FILE)"
            )
        return f"{self.server_url} cannot be reached: {text}"


class ServerSource:
    """The server as a source of releases."""

    patient = True

    def __init__(self, client: ServerClient) -> None:
        self._client = client

    @property
    def clock_offset_s(self) -> float | None:
        return self._client.clock_offset_s

    def metadata(self, name: str) -> Iterator[bytes]:
        try:
            with self._client.stream(endpoint("repository", "metadata", name)) as stream:
                yield from stream.chunks
        except UnreachableError as error:
            if error.status == _NOT_FOUND:
                raise DownloadHTTPError(str(error), _NOT_FOUND) from error
            raise DownloadError(str(error)) from error

    def manifest(self, model: str, release: int, sha256: str) -> Iterator[bytes]:
        path = f"/v1/repository/targets/models/{quote(model)}/{sha256}.{release}.json"
        with self._client.stream(path) as stream:
            yield from stream.chunks

    @contextmanager
    def blob(self, entry: FileEntry, start: int) -> Iterator[BlobStream]:
        path = endpoint("blobs", "sha256", entry.sha256)
        with self._client.stream(path, start, size_bytes=entry.size_bytes, etag=entry.sha256) as stream:
            yield stream


def _chunks(response: urllib3.BaseHTTPResponse, where: str, within_s: float | None = None) -> Iterator[bytes]:
    began = time.monotonic()
    try:
        # read1 gives what has come, so that slow bytes are kept, too
        while chunk := response.read1(CHUNK_BYTES):
            yield chunk
            if within_s is not None and time.monotonic() - began > within_s:
                raise UnreachableError(f"{where}: not whole within {within_s:g} s; given up")
        if response.length_remaining:
            raise UnreachableError(f"{where}: cut off, {response.length_remaining} bytes before the end")
    except HTTPError as error:
        raise UnreachableError(f"{where}: {error}") from error


def _retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    text = response.headers.get("Retry-After", "")
    return min(float(text), _LONGEST_RETRY_AFTER_S) if text.isdecimal() else None
