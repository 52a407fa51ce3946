"""What is written is true: commands have help with an example, shown commands exist, links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from tests.conftest import REPOSITORY

PAGES = sorted(
    path
    for folder in (
        REPOSITORY,
        *(REPOSITORY / room for room in ("docs", "examples", "runtimes", "converters", "devices")),
    )
    for path in (folder.glob("*.md") if folder == REPOSITORY else folder.rglob("*.md"))
    if not any(part.startswith(".") for part in path.relative_to(REPOSITORY).parts)
)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"^(?:```|~~~)(?P<language>\w*)\n(?P<text>.*?)^(?:```|~~~)$", re.MULTILINE | re.DOTALL)


def _commands() -> Iterator[tuple[str, click.Command]]:
    def walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield path, command
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=path)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None, f"{path} {name} is listed and cannot be loaded"
                yield from walk(f"{path} {name}", found)

    yield from walk("edgeml", import_module("edgeml.cli").main)


@pytest.fixture(scope="module")
def commands() -> dict[str, click.Command]:
    return dict(_commands())


def test_every_command_is_registered(commands: dict[str, click.Command]) -> None:
    expected = """agent audit bench bundle compare convert deploy devices doctor groups inspect keys plan
    publish releases repo rollout run selftest server targets tokens workers"""
    assert {f"edgeml {name}" for name in expected.split()} <= set(commands)


def test_every_command_has_help_with_an_example(commands: dict[str, click.Command]) -> None:
    silent = [
        path
        for path, command in commands.items()
        if not isinstance(command, click.Group) and not _examples(path, command)
    ]
    assert silent == []


def test_the_list_of_commands_fits_eighty_columns(commands: dict[str, click.Command]) -> None:
    groups = [(path, group) for path, group in commands.items() if isinstance(group, click.Group)]
    for path, group in groups:
        with click.Context(group, info_name=path, terminal_width=80) as context:
            assert "..." not in group.get_help(context).partition("Commands:")[2], path


def test_every_option_is_explained(commands: dict[str, click.Command]) -> None:
    silent = [
        f"{path} {option.opts[-1]}"
        for path, command in commands.items()
        for option in command.params
        if isinstance(option, click.Option) and not option.help and not option.hidden
    ]
    assert silent == []


def test_examples_in_help_use_commands_and_options_that_exist(commands: dict[str, click.Command]) -> None:
    wrong = [
        f"{path}: {example}: {fault}"
        for path, command in commands.items()
        for example in _examples(path, command)
        if (fault := _fault(example, commands))
    ]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_to_a_file_of_the_repository(page: Path) -> None:
    broken = []
    for match in LINK.finditer(FENCE.sub("", page.read_text())):
        target = match["target"]
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands_shown_in_the_docs_exist_with_their_options(
    page: Path, commands: dict[str, click.Command]
) -> None:
    wrong = [f"{line}: {fault}" for line in _shown(page) if (fault := _fault(line, commands))]
    assert wrong == []


def test_commands_that_the_demo_suggests_exist(commands: dict[str, click.Command]) -> None:
    demo = (REPOSITORY / "examples" / "digits" / "demo.py").read_text()
    shown = re.findall(r"^  (edgeml .+)$", demo.partition("Try next:")[2], re.MULTILINE)
    assert shown
    assert [f"{line}: {fault}" for line in shown if (fault := _fault(line, commands))] == []


def test_the_json_of_every_question_about_telemetry_is_described(commands: dict[str, click.Command]) -> None:
    text = (REPOSITORY / "docs" / "reference" / "json.md").read_text()
    asked = [
        path
        for path, command in commands.items()
        if path.startswith("edgeml telemetry ") and any("--json" in one.opts for one in command.params)
    ]
    assert len(asked) > 5
    assert [path for path in asked if f"`{path}`" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_python_shown_in_the_docs_compiles(page: Path) -> None:
    for match in FENCE.finditer(page.read_text()):
        if match["language"] == "python":
            compile(match["text"], str(page), "exec")


def test_readme_and_tutorial_show_the_table_of_one_run() -> None:
    tables = [
        re.findall(
            r"^(?:variant .*status|(?:litert|onnxruntime|openvino)-.*ok)$",
            (REPOSITORY / page).read_text(),
            re.MULTILINE,
        )
        for page in ("README.md", "docs/tutorial.md")
    ]
    readme, tutorial = tables
    assert len(tutorial) > 8
    assert readme[: len(tutorial)] == tutorial  # a search's table follows in the README


def test_every_finding_is_explained() -> None:
    """Codes are the first argument of ``Finding`` wherever the packages make one."""
    codes = set()
    for package in ("edgeml", "converters", "runtimes", "devices"):
        for path in (REPOSITORY / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and node.func.id == "Finding"
                ):
                    codes |= {one.value for one in node.args[:1] if isinstance(one, ast.Constant)}
    table = (REPOSITORY / "docs" / "how-to" / "convert.md").read_text().partition("| finding |")[2]
    listed = set(re.findall(r"`([a-z-]+)`", "".join(re.findall(r"^\|([^|]+)\|", table, re.MULTILINE))))
    assert len(codes) > 10
    assert sorted(codes - listed) == []
    assert sorted(listed - codes) == []


def test_the_changelog_names_this_version() -> None:
    version = import_module("edgeml").__version__
    text = (REPOSITORY / "CHANGELOG.md").read_text()
    assert f"## [{version}]" in text or "## [Unreleased]" in text


def test_the_index_lists_every_page_once() -> None:
    folder = REPOSITORY / "docs"
    linked = [match["target"] for match in LINK.finditer((folder / "index.md").read_text())]
    pages = {str(path.relative_to(folder)) for path in folder.rglob("*.md")} - {"index.md"}
    assert sorted(linked) == sorted(set(linked))
    assert {page for page in pages if not page.startswith("adr/")} | {"adr/README.md"} <= set(linked)


@pytest.mark.parametrize(
    ("heading", "package"),
    [
        ("### In `edgeml`", "edgeml"),
        ("### In `edgeml_converters`", "converters/edgeml_converters"),
        ("### In `edgeml_devices`", "devices/edgeml_devices"),
    ],
)
def test_the_architecture_names_every_module_and_no_other(heading: str, package: str) -> None:
    text = (REPOSITORY / "docs" / "reference" / "architecture.md").read_text()
    table = text.partition(heading + "\n")[2].partition("\n#")[0]
    named = {
        name
        for cell in re.findall(r"^\|([^|]+)\|", table, re.MULTILINE)
        for name in re.findall(r"`([\w/]+)`", cell)
    }
    found = {
        path.stem if path.is_file() else f"{path.name}/"
        for path in (REPOSITORY / package).iterdir()
        if not path.name.startswith("__") and (path.suffix == ".py" or (path / "__init__.py").is_file())
    }
    assert named == found


def test_every_decision_record_is_listed() -> None:
    folder = REPOSITORY / "docs" / "adr"
    index = (folder / "README.md").read_text()
    records = [path.name for path in sorted(folder.glob("[0-9]*.md"))]
    assert records
    assert [name for name in records if f"({name})" not in index] == []
    assert len({name[:4] for name in records}) == len(records)


def test_edgeml_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgeml", "--version"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _examples(path: str, command: click.Command) -> list[str]:
    """The lines of a command's help that call it, continuation lines joined."""
    text = (command.help or "").replace("\\\n", " ") + "\n" + (command.epilog or "").replace("\\\n", " ")
    lines = (line.strip().removeprefix("$ ") for line in text.splitlines())
    return [line for line in lines if line.startswith(f"{path} ")]


def _shown(page: Path) -> list[str]:
    lines = []
    for match in FENCE.finditer(page.read_text()):
        if match["language"] in {"bash", "sh", "console"}:
            for line in match["text"].replace("\\\n", " ").splitlines():
                command = line.strip().removeprefix("$ ")
                if command.startswith("edgeml "):
                    lines.append(command)
    return lines


def _fault(line: str, commands: dict[str, click.Command]) -> str | None:
    """Say what is wrong with a shown command line, or None."""
    line = re.sub(r"\s+#.*$", "", line)
    words = shlex.split(re.split(r"\s[|>]\s?", line)[0])
    path = words.pop(0)
    while words and f"{path} {words[0]}" in commands:
        path = f"{path} {words.pop(0)}"
    command = commands[path]
    if isinstance(command, click.Group) and words and not words[0].startswith("-"):
        return f"no command {words[0]!r}"
    known = {"--help"} | {
        name for option in command.params for name in (*option.opts, *option.secondary_opts)
    }
    for word in words:
        name = word.partition("=")[0]
        if re.match(r"--?[a-z]", name) and name not in known:
            return f"no option {name}"
    return None


def _anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", file.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
