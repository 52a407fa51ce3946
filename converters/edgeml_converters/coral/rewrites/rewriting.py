"""All rewrites in their order: what each does to a file, and the check that results stay the same."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeml.errors import ModelFileError, ParityError
from edgeml.findings import Finding
from edgeml.words import IoDtype
from edgeml_converters.coral.draft import Draft, content, parsed, read_draft
from edgeml_converters.coral.parity import require_same
from edgeml_converters.coral.rewrites.activations import unfuse_activations
from edgeml_converters.coral.rewrites.groups import expand_groups
from edgeml_converters.coral.rewrites.means import means_before_transpositions
from edgeml_converters.coral.rewrites.ports import integer_ports
from edgeml_converters.coral.rewrites.shapes import fix_shapes
from edgeml_converters.coral.rewrites.versions import lower_versions

DAMAGE: Final = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError, struct.error)
"""What a graph raises whose operators lack what their kind has."""
_SHOWN: Final = 4
"""Changes that a finding tells one by one."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One kind of change."""

    name: str
    why: str
    """Why the Edge TPU compiler needs it, the end of a sentence."""
    apply: Callable[[Draft, IoDtype], tuple[str, ...]]
    """Changes a draft in place; gives what was changed, a sentence each."""
    rounds: bool = False
    """Another kernel rounds the same numbers otherwise, by one step: results are as close, not equal."""


REWRITES: Final = (
    Rewrite(
        "shapes",
        "the Edge TPU compiler stops at shapes that are computed",
        lambda draft, _: fix_shapes(draft),
    ),
    Rewrite(
        "means",
        "the Edge TPU reduces y and x, and channels only in fours",
        lambda draft, _: means_before_transpositions(draft),
        rounds=True,
    ),
    Rewrite(
        "groups",
        "they are newer than the Edge TPU compiler",
        lambda draft, _: expand_groups(draft),
    ),
    Rewrite(
        "activations",
        "the Edge TPU compiler takes none inside these operators",
        lambda draft, _: unfuse_activations(draft),
    ),
    Rewrite(
        "versions",
        "the Edge TPU compiler is of 2021 and knows no newer ones",
        lambda draft, _: lower_versions(draft),
    ),
    Rewrite(
        "ports",
        "the CPU would convert them at every inference",
        lambda draft, dtype: integer_ports(draft, dtype) if dtype != "float32" else (),
    ),
)


@dataclass(frozen=True, slots=True)
class Change:
    """What one rewrite changed."""

    rewrite: Rewrite
    changed: tuple[str, ...]

    @property
    def text(self) -> str:
        """All that was changed, the first in full."""
        rest = len(self.changed) - _SHOWN
        return "; ".join(self.changed[:_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")

    def to_json(self) -> dict[str, Any]:
        """Give what ``--json`` prints of it."""
        return {"name": self.rewrite.name, "why": self.rewrite.why, "changed": list(self.changed)}

    def finding(self, subject: str) -> Finding:
        """Give the change as what a person is told."""
        return Finding(
            "edge-tpu-rewrite",
            "info",
            subject,
            f"{self.rewrite.name}: {self.text}: {self.rewrite.why}",
            "nothing to do: both were run on the CPU, and results are "
            + ("as close as another rounding leaves them" if self.rewrite.rounds else "the same"),
        )


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A file's content after rewrites; the same as before where ``changes`` is empty."""

    content: bytes
    changes: tuple[Change, ...]
    left_out: tuple[str, ...] = ()
    """Rewrites that would have changed the results, each with what it changed."""


def apply(rewrite: Rewrite, path: Path, before: bytes, io_dtype: IoDtype) -> Rewritten:
    """Do one rewrite, unchecked.

    Raises:
        ModelFileError: the content does not parse; ``path`` is named.
        EngineMissingError: LiteRT is not installed.
    """
    return _applied(rewrite, path, parsed(path, before), before, io_dtype)


def _applied(rewrite: Rewrite, path: Path, draft: Draft, before: bytes, io_dtype: IoDtype) -> Rewritten:
    """Do one rewrite of a draft of ``before``, which stays as it is where nothing is changed."""
    try:
        changed = rewrite.apply(draft, io_dtype)
        if not changed:
            return Rewritten(before, ())
        draft.tidy()
        return Rewritten(content(draft), (Change(rewrite, changed),))
    except DAMAGE as error:
        raise ModelFileError(
            f"{path}: damaged: {rewrite.name} found an operator that is not whole; copy it again"
        ) from error


def rewritten(path: Path, io_dtype: IoDtype, *, checked: bool = True) -> Rewritten:
    """Do all rewrites that a TFLite file needs; one that changes the results is left out.

    Args:
        path: is not changed.
        io_dtype: what float inputs and outputs are made; ``float32`` leaves them.
        checked: run the model before and after each rewrite; without, nothing is run.

    Raises:
        ModelFileError: missing, truncated, damaged, no TFLite file.
        UnsafeFileError: it unpacks to far more than it holds.
        EngineMissingError: LiteRT is not installed.
        ConversionError: the model cannot be run here, so that nothing can be checked.
    """
    draft = read_draft(path)
    current = path.read_bytes()
    changes: list[Change] = []
    left_out: list[str] = []
    for rewrite in REWRITES:
        made = _applied(rewrite, path, draft, current, io_dtype)
        if not made.changes:
            continue
        try:
            if checked:
                require_same(rewrite.name, current, made.content, rounds=rewrite.rounds)
        except ParityError as error:
            left_out.append(str(error))
        else:
            current = made.content
            changes += made.changes
        draft = parsed(path, current)
    return Rewritten(current, tuple(changes), tuple(left_out))
