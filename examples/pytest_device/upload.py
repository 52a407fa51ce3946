"""Sends the count to a server, again until it is there."""

import time
import urllib.request
from http.client import HTTPException


def send(url: str, count: int, attempts: int = 5, wait_s: float = 0.05) -> int:
    """Send a count; gives how many attempts it took.

    Raises:
        OSError: the last attempt failed, too.
    """
    for attempt in range(1, attempts + 1):
        try:
            with urllib.request.urlopen(url, str(count).encode(), timeout=2) as answer:  # noqa: S310 - our server
                answer.read()
        except (OSError, HTTPException) as error:
            if attempt == attempts:
                raise OSError(f"{url} does not take the count") from error
            time.sleep(wait_s)
        else:
            return attempt
    return attempts
