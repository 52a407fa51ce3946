"""Connections to one server: proxies, certificates, and what is sent again."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import Retry, make_headers
from urllib3.util.ssl_ import create_urllib3_context

from edgeml.errors import UsageError

RETRIES: Final = 6
BUSY: Final = frozenset({429, 502, 503, 504})
"""Answers that pass: 502 and 504 are a proxy's whose server restarts."""
LONGEST_WAIT_S: Final = 30.0


class _Backoff(Retry):
    """Waits as long as the server says, within reason."""

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        wait_s = super().get_retry_after(response)
        return None if wait_s is None else min(wait_s, LONGEST_WAIT_S)


def retry_policy(*, again: bool = True, connect: int = 2) -> Retry:
    """Give the policy: what was surely not done is sent again, and the rest if that changes nothing."""
    return _Backoff(
        total=RETRIES,
        connect=connect,
        read=RETRIES if again else 0,
        other=0,
        redirect=0,
        allowed_methods=None,
        status_forcelist=BUSY if again else {429, 503},
        backoff_factor=0.5,
        backoff_max=LONGEST_WAIT_S,
        raise_on_status=False,
    )


def open_pool(scheme: str, host: str, ca_file: Path | None) -> urllib3.PoolManager:
    """Give the connections to a host, through the proxy that the environment names for it.

    Raises:
        UsageError: the proxy's address cannot be used.
    """
    options: dict[str, Any] = {"cert_reqs": "CERT_REQUIRED", "maxsize": 4}
    if ca_file is not None:
        options["ca_certs"] = str(ca_file)
    elif scheme == "https":
        # one for all connections: the system's authorities are 2 MB
        context = options["ssl_context"] = create_urllib3_context()
        context.load_default_certs()
    proxy = getproxies().get(scheme)
    if not proxy or proxy_bypass(host):
        return urllib3.PoolManager(**options)
    address = proxy if "://" in proxy else f"http://{proxy}"
    user = urlsplit(address)
    if user.username:
        login = f"{unquote(user.username)}:{unquote(user.password or '')}"
        options["proxy_headers"] = make_headers(proxy_basic_auth=login)
    try:
        return urllib3.ProxyManager(address, **options)
    except (HTTPError, LocationParseError) as error:
        raise UsageError(f"the proxy {proxy!r} of {scheme.upper()}_PROXY cannot be used: {error}") from error
