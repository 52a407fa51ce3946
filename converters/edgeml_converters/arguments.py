"""What callers of ``convert`` may pass, made what a request holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from edgeml import plugins
from edgeml.data import DataDeclaration, parse_postprocess, parse_preprocess
from edgeml.errors import UsageError
from edgeml.health import HealthPolicy, declared_health
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.targets import HOST, Target, target
from edgeml.words import SCHEMES, Scheme
from edgeml_converters.evaluate.latency import HERE
from edgeml_converters.variants.request import ALL, AUTO, SEARCHED

DataArgument = DataDeclaration | str | Path | object | None
"""A declaration, a source as ``open_data`` takes it, an array [N,…], or a pair of samples and labels."""
Declared = Mapping[str, Any] | Sequence[str] | str
"""``"scale=1/255 layout=nchw"``, a list of such, or a dict."""

Word = TypeVar("Word", bound=str)

FORMS: Final = (
    "give a source as edgeml.data.open_data takes it (a path, data.npz:x,y or module:function), "
    "a DataDeclaration, an array [N,…], or a pair (samples, labels)"
)


def read_targets(given: str | Target | Sequence[str | Target]) -> tuple[Target, ...]:
    """Give each target once.

    Raises:
        UsageError: no such target, or no name at all.
    """
    several = [given] if isinstance(given, (str, Target)) else list(given)
    if not several:
        raise UsageError("no target was given; name one, or leave targets out for this machine")
    found = [one if isinstance(one, Target) else target(one) for one in several]
    return tuple({one.name: one for one in found}.values())


def read_names(
    what: str, given: str | Sequence[str], known: Sequence[str], also: Sequence[str] = ()
) -> tuple[Any, ...]:
    """Give names that are known, each once; ``all`` stands for every one; a message names ``also``, too.

    Raises:
        UsageError: an unknown name.
    """
    several = (given,) if isinstance(given, str) else given
    if ALL in several:
        return tuple(known)
    for one in several:
        if one not in known:
            raise UsageError(f"no {what} {one!r}; {what}s are: {', '.join([*known, ALL, *also])}")
    return tuple(dict.fromkeys(several))


def read_threads(given: int | Sequence[int]) -> tuple[int, ...]:
    """Give numbers of engine threads.

    Raises:
        UsageError: none, or one below 1.
    """
    several = (given,) if isinstance(given, int) else tuple(given)
    if not several or not all(isinstance(one, int) and one > 0 for one in several):
        raise UsageError(f"threads {given!r}: give whole numbers from 1, as in 2 or (1, 2, 4)")
    return several


def read_word(what: str, given: Word, known: Iterable[Word]) -> Word:
    """Give one of several words, which callers without a type checker may have misspelt.

    Raises:
        UsageError: an unknown one.
    """
    words = tuple(known)
    if given not in words:
        raise UsageError(f"no {what} {given!r}; {what}s are: {', '.join(words)}")
    return given


def read_schemes(given: str | Sequence[str]) -> tuple[Scheme, ...]:
    """Give schemes that are known; ``auto`` stands for what may be best, ``all`` for every one.

    Raises:
        UsageError: an unknown name, or others beside ``auto``.
    """
    several = (given,) if isinstance(given, str) else tuple(given)
    if AUTO not in several:
        return read_names("scheme", several, SCHEMES, (AUTO,))
    if len(several) > 1:
        raise UsageError(f"scheme {AUTO} stands for {', '.join(SEARCHED)}; leave the others out")
    return SEARCHED


def read_place(given: bool | str) -> str:
    """Give the URL of the machine that measures: this one for ``True`` and ``host``.

    Raises:
        UsageError: no transport goes there.
    """
    if isinstance(given, bool) or given == HOST:
        return HERE
    plugins.transport(given)
    return given


def read_compiler_place(given: bool | str) -> str | None:
    """Give the URL of the machine that compiles for the Edge TPU; ``None``: this one.

    Raises:
        UsageError: no transport goes there.
    """
    if isinstance(given, bool):
        return None
    plugins.transport(given)
    return given


def read_preprocess(given: Preprocess | Declared | None) -> Preprocess:
    """Give a declaration that was written in any of its forms; raises as ``parse_preprocess``."""
    return given if isinstance(given, Preprocess) else parse_preprocess(_declared("preprocess", given))


def read_health(given: HealthPolicy | Mapping[str, Any] | None) -> HealthPolicy:
    """Give a health policy that was written in any of its forms; raises as ``declared_health``."""
    return given if isinstance(given, HealthPolicy) else declared_health(given or {}, "health")


def read_postprocess(given: Postprocess | Declared | None) -> Postprocess:
    """Give a declaration that was written in any of its forms; raises as ``parse_postprocess``."""
    return given if isinstance(given, Postprocess) else parse_postprocess(_declared("postprocess", given))


def read_data(role: str, given: DataArgument, scratch: Path) -> DataDeclaration | None:
    """Give a declaration; arrays are written to the scratch folder and read like files.

    Raises:
        UsageError: something else than data, or labels of another number than the samples.
    """
    if given is None or isinstance(given, DataDeclaration):
        return given
    if isinstance(given, (str, Path)):
        return DataDeclaration(str(given))
    path = scratch / f"{role}.npz"
    if isinstance(given, tuple) and len(given) == 2:  # noqa: PLR2004 - samples and labels
        samples, labels = (_array(role, one) for one in given)
        if len(samples) != len(labels):
            raise UsageError(
                f"{role}: {len(labels)} labels for {len(samples)} samples; there must be one for each"
            )
        np.savez(path, allow_pickle=False, x=samples, y=labels)
        return DataDeclaration(f"{path}:x,y")
    np.savez(path, allow_pickle=False, x=_array(role, given))
    return DataDeclaration(f"{path}:x")


def _array(role: str, given: object) -> np.ndarray[Any, Any]:
    if not hasattr(given, "__array__"):
        raise UsageError(f"{role}: cannot read samples from a {type(given).__name__}; {FORMS}")
    array = np.asarray(given)
    if array.dtype.kind not in "biufUS" or array.ndim == 0:
        raise UsageError(
            f"{role}: an array of {array.dtype} and shape {array.shape} holds no samples; {FORMS}"
        )
    return array


def _declared(what: str, given: Declared | None) -> Declared:
    texts = isinstance(given, Sequence) and all(isinstance(one, str) for one in given)
    if given is None or texts or isinstance(given, Mapping):
        return given or {}
    raise UsageError(
        f"{what}: cannot be read from a {type(given).__name__}; give {what.capitalize()}(…), a text "
        'such as "key=value key=value", or a dict'
    )
