"""Which image serves who names none."""

from __future__ import annotations

from itertools import combinations

from edgeml.errors import EngineMissingError
from edgeml.words import RUNTIMES
from edgeml_devices.emulator.images.build import find_image, images
from edgeml_devices.emulator.images.image import FLAVOURS, Image, ImageRequest


def fullest_image() -> Image:
    """Give the image with the most engines, of those that hold edgeml as it is now.

    Raises:
        EngineMissingError: none was built.
    """
    for count in range(len(RUNTIMES), 0, -1):
        for engines in combinations(RUNTIMES, count):
            for flavour in FLAVOURS:
                found = find_image(ImageRequest(engines, flavour))
                if found is not None:
                    return found
    raise EngineMissingError(
        "no image was built for edgeml as it is now; build one, with the engines that you need: "
        f"edgeml emulate build {' '.join(f'--engine {name}' for name in RUNTIMES)}"
    )


def request_as_before() -> ImageRequest:
    """Give what the fullest image holds, whatever edgeml is in it; LiteRT alone where none was built."""
    built = images()
    if not built:
        return ImageRequest()
    fullest = max(built, key=lambda image: (len(image.engines), -FLAVOURS.index(image.flavour)))
    return ImageRequest(fullest.engines, fullest.flavour)
