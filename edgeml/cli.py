"""The command line: finds commands by entry point, turns errors into one message and an exit code.

Exit codes: 0 done, 1 the work failed, 2 wrong usage, 3 a gate was not met, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import errno
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn, TextIO

import click

import edgeml
from edgeml import plugins
from edgeml.commands.json_output import note_json, print_json_error
from edgeml.errors import EdgemlError
from edgeml.signals import unwinding
from edgeml.terminal import printable_lines

INTERRUPTED: Final = 130
_ON_A_WORKSTATION: Final = (
    "check", "compare", "convert", "coral", "inspect", "plan", "reproduce", "sensitivity", "workers",
)  # fmt: skip
"""Commands that a device install lacks on purpose."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)


class Commands(click.Group):
    """A group whose commands are entry points; one that cannot be imported is listed with the reason."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*plugins.names(plugins.COMMAND_GROUP), *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in plugins.names(plugins.COMMAND_GROUP):
            return own
        try:
            command = plugins.load(plugins.COMMAND_GROUP, cmd_name)
        except Exception as error:  # noqa: BLE001 - a broken plug-in must not break the others
            return _unavailable(cmd_name, error)
        if not isinstance(command, click.Command):
            return _unavailable(cmd_name, TypeError(f"its entry point is {command!r}, not a click command"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            if args[0] in _ON_A_WORKSTATION:
                raise click.UsageError(
                    f"{args[0]} belongs to the workstation's install: pip install 'edgeml-core[workstation]'",
                    ctx,
                ) from error
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not close:
                raise
            raise click.UsageError(f"no command {args[0]!r}; did you mean {close[0]!r}?", ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        debug = bool(ctx.params.get("debug"))
        note_json(ctx)
        with _plain_warnings(), unwinding() as ends:
            try:
                result = super().invoke(ctx)
                sys.stdout.flush()
            except click.UsageError as error:
                print_json_error(ctx, "UsageError", error.format_message())
                raise
            except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
                raise
            except (KeyboardInterrupt, click.Abort):
                click.echo("interrupted", err=True)
                ctx.exit(INTERRUPTED)
            except Exception as error:  # noqa: BLE001 - the outermost edge of the program
                if ends.import_broken:
                    click.echo("interrupted", err=True)
                    ctx.exit(INTERRUPTED)
                _fail(ctx, error, debug)
        return result


def _fail(ctx: click.Context, error: Exception, debug: bool) -> NoReturn:
    """Print one message for an error and leave with its exit code."""
    if debug:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    if isinstance(error, EdgemlError):
        message, code = str(error), error.exit_code
    elif isinstance(error, MemoryError):
        message, code = "out of memory: close other programs, or use a smaller model or fewer samples", 1
    elif isinstance(error, OSError):
        message, code = _os_message(error), 1
    else:
        text = " ".join(str(error).split())
        trace = "" if debug else "; run again with `edgeml --debug …` or EDGEML_DEBUG=1 to see the trace"
        message, code = f"this is a bug in edgeml: {type(error).__name__}: {text}{trace}", 1
    print_json_error(ctx, type(error).__name__, message)
    click.echo(f"{click.style('error:', fg='red', bold=True)} {printable_lines(message)}", err=True)
    ctx.exit(code)


def _os_message(error: OSError) -> str:
    where = "" if error.filename is None else f": {_file(error.filename)}"
    if error.errno in _FULL:
        return f"disk full, or a size limit was reached{where}; free some space and run the command again"
    if error.errno in _DENIED:
        return f"no permission{where}; choose another place or change its permissions"
    if isinstance(error, FileNotFoundError):
        return f"no such file{where}"
    return f"{error.strerror or error}{where}"


def _file(name: str | bytes | int) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _unavailable(name: str, error: Exception) -> click.Command:
    """Stand in for a command whose module cannot be imported."""
    reason = str(error) if isinstance(error, EdgemlError) else f"{type(error).__name__}: {error}"

    def refuse(**_: object) -> NoReturn:
        raise EdgemlError(f"the command {name!r} cannot be loaded: {reason}") from error

    return click.Command(
        name,
        callback=refuse,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
        short_help=f"(cannot be loaded: {reason})",
    )


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show edgeml's own warnings as one line; those of others as Python shows them."""
    shown = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if category.__module__.partition(".")[0].startswith("edgeml"):
            click.echo(f"{click.style('warning:', fg='yellow', bold=True)} {message}", err=True)
        else:
            shown(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done, 1 the work failed, 2 wrong usage, 3 a gate was not met.",
)
@click.version_option(edgeml.__version__, prog_name="edgeml")
@click.option("--debug", is_flag=True, envvar="EDGEML_DEBUG", help="Show the trace of every error.")
def main(debug: bool) -> None:
    """From a trained model to a measured bundle that runs on every device of a mixed fleet.

    \b
    Examples:
      edgeml convert model.onnx --target raspberry-pi-5 --calibration data/ --evaluate test.npz
      edgeml bench model.tflite
    """  # noqa: D301 - \b is click's mark for text that keeps its lines


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands in a shell.

    Beside commands and options it completes targets, runtimes, schemes and workers.

    \b
    Examples:
      edgeml completion bash > ~/.local/share/bash-completion/completions/edgeml
      edgeml completion fish > ~/.config/fish/completions/edgeml.fish
    """  # noqa: D301 - as above
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click has no completion for {shell}")
    click.echo(kind(main, {}, "edgeml", "_EDGEML_COMPLETE").source())
