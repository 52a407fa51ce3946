"""Whether a device can run a release, by what it says of itself: before anything is sent to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgeml import typed_json
from edgeml.choice import fitting
from edgeml.errors import EdgemlError, MessageError
from edgeml.manifest import Manifest, Variant
from edgeml.targets import target_from_json
from edgeml_devices.messages import Facts


class Fit:
    """The variants of one release that fit, remembered for each kind of facts: a fleet has few."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._found: dict[str, tuple[tuple[Variant, ...], str]] = {}

    def variants(self, facts: Mapping[str, Any] | None) -> tuple[tuple[Variant, ...], str]:
        """Give the variants that a device could run, best first, and why there are none.

        A device that has not said what it is gets the benefit of the doubt: no variants, and no reason.
        It decides for itself.
        """
        if not facts:
            return (), ""
        key = json.dumps([facts.get("target"), facts.get("engines")], sort_keys=True)
        if key not in self._found:
            self._found[key] = self._judge(facts)
        return self._found[key]

    def _judge(self, facts: Mapping[str, Any]) -> tuple[tuple[Variant, ...], str]:
        try:
            read = typed_json.read(Facts, facts, "facts")
            machine = target_from_json(read.target, "facts.target")
        except MessageError:
            return (), ""
        try:
            return tuple(choice.variant for choice in fitting(self._manifest, machine, read.engines)), ""
        except EdgemlError as error:
            return (), str(error)
