"""What a shell offers for the values of options. Light to import: every command line imports this."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click


def runtimes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    """Offer the runtimes that have a driver here."""
    from edgeml import plugins

    return _beginning(plugins.names(plugins.RUNTIME_GROUP), incomplete)


def targets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - as above
    """Offer the names of targets, the user's own among them; nothing if a file of theirs is wrong."""
    from edgeml.errors import EdgemlError
    from edgeml.targets import HOST
    from edgeml.targets import targets as all_targets

    try:
        names = [HOST, *(target.name for target in all_targets())]
    except EdgemlError:
        return []
    return _beginning(names, incomplete)


def schemes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - as above
    """Offer the schemes, and the word for all of them."""
    from edgeml.words import SCHEMES

    return _beginning([*SCHEMES, "all"], incomplete)


def goals(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - as above
    """Offer runtimes; behind the colon their schemes."""
    from edgeml.words import RUNTIMES, SCHEMES

    if ":" not in incomplete:
        return _beginning(RUNTIMES, incomplete)
    return _beginning([f"{runtime}:{scheme}" for runtime in RUNTIMES for scheme in SCHEMES], incomplete)


def _beginning(names: tuple[str, ...] | list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
