"""From a request to an image: resolve, download, unpack, put together; each part made once and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgeml_devices.emulator.images.image import Image, ImageRequest


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one step of a build is."""

    step: str
    """``packages``, ``root``, ``kernel``, ``wheels``, ``site``, ``disk``."""
    fraction: float | None
    """0 to 1; ``None`` where nobody knows."""
    text: str = ""


Report = Callable[[Progress], None]


def find_image(request: ImageRequest) -> Image | None:
    """Give the image of a request if it was built, for edgeml as it is now. Quick, without a network."""
    raise NotImplementedError


def build_image(request: ImageRequest, report: Report = lambda _: None, *, update: bool = False) -> Image:
    """Give the image of a request; builds what of it is not there yet, as an ordinary user.

    A build that was interrupted goes on from the parts that were done. The same request gives the same
    packages until ``update``.

    Args:
        request: what it is to hold.
        report: called with the progress, from this thread.
        update: ask mirror and index again for what is newest.

    Raises:
        EngineMissingError: programs are missing on this machine; names each and its package.
        UsageError: no mirror is known, or it lacks the suite.
        EdgemlError: a step failed; holds the last lines of the program that did.
    """
    raise NotImplementedError


def images() -> tuple[Image, ...]:
    """Give every image in the cache, the newest first."""
    raise NotImplementedError
