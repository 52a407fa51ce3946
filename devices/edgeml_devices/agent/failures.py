"""How a state ends when it does not end well."""

from __future__ import annotations

import errno
from typing import Final

from edgeml.errors import InstallError
from edgeml_devices.messages import Reason

DETAIL_LIMIT: Final = 4000
"""Characters of a detail (``messages.Event.detail``)."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class StepFailedError(InstallError):
    """A state could not do its part; the machine decides where that leads."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail[:DETAIL_LIMIT]


class UnreachableError(InstallError):
    """The source of a release does not answer, or not now: worth another attempt."""

    def __init__(self, detail: str, retry_after_s: float | None = None, status: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s
        self.status = status
        """HTTP's, where there was an answer."""


class StoppedError(Exception):
    """The agent is to stop: whatever waits or works ends where it stands."""


def disk_failure(error: OSError, what: str) -> StepFailedError:
    """Name what the disk did."""
    detail = f"{what}: {error.strerror or error}"
    if error.errno in _FULL:
        return StepFailedError(Reason.DISK_FULL, detail)
    if error.errno in _DENIED:
        return StepFailedError(Reason.READ_ONLY, detail)
    return StepFailedError(Reason.IO_ERROR, detail)
