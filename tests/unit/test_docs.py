"""docs/ beside the code: the messages of troubleshooting.md are the code's own, the site's menu has every page, and
what commands are shown exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from headrace.cli.commands import cli
from headrace.settings.resolve import resolve
from tests.support.pages import DOCS, README, ROOT, prose, typed

OTHERS = ("Retrying 1 failed chunk(s)",)  # MLflow's client says it


def messages() -> list[str]:
    """What is in quotes in the first column of each table."""
    rows = re.findall(r"^\| (.*?) \|", (DOCS / "troubleshooting.md").read_text(), re.M)
    return [message for row in rows for message in re.findall(r'"([^"]+)"', row)]


@cache
def texts() -> str:
    """Every text of the code, a line each; `\x00` where a value is put in."""
    return "\n".join(text for file in (ROOT / "src").rglob("*.py") for text in _texts_of(ast.parse(file.read_text())))


def _texts_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            value = node.value
            yield _one_line(value if isinstance(value, str) else value.decode("latin-1"))
        elif isinstance(node, ast.JoinedStr):
            parts = (str(part.value) if isinstance(part, ast.Constant) else "\x00" for part in node.values)
            yield _one_line("".join(parts))


def _one_line(text: str) -> str:
    return text.replace("\n", " ")


@pytest.mark.parametrize("message", messages())
def test_a_message_of_troubleshooting_is_one_of_the_codes(message: str) -> None:
    if message in OTHERS:
        return
    parts = filter(None, re.split(r"\s*\.\.\.\s*", message))
    said = ".*".join(map(re.escape, parts))
    assert re.search(said, texts(), re.I), "troubleshooting.md tells of a message that nothing says"


def test_the_sites_menu_has_every_page() -> None:
    menu = re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(menu) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
_SPACE = re.compile(r"\\?\n\s*")


def named(page: Path) -> list[str]:
    """What a page has in backquotes."""
    return [_SPACE.sub(" ", code) for code in re.findall(r"`([^`]+)`", prose(page))]


def words_of(lines: list[str]) -> list[list[str]]:
    """The words after `headrace`, of each line that begins with it, up to what a shell takes for none of it."""
    ours = [re.sub(r"\s(#|\||>|&&).*", "", line) for line in lines if line.startswith("headrace ")]
    return [shlex.split(line)[1:] for line in ours]


def unknown(words: list[str]) -> str:
    """The first word of a command line that is no command or no option of it; none: an empty text."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        found = command.get_command(click.Context(command), name)
        if found is None:
            return "" if name.isupper() or name == "..." else name  # a place for one
        command = found
    if command.context_settings.get("ignore_unknown_options"):  # what follows is another command's
        return ""
    options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}
    given = [word.partition("=")[0] for word in words if re.match("--?[a-z]", word)]
    return next((name for name in given if name not in options), "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_that_is_shown_exists(page: Path) -> None:
    assert [line for line in words_of(typed(page) + named(page)) if unknown(line)] == []


def test_what_is_no_command_is_found() -> None:
    assert unknown(["user", "lst"]) == "lst"
    assert unknown(["user", "add", "ada", "--rule", "editor"]) == "--rule"
    assert sum(len(words_of(typed(page) + named(page))) for page in PAGES) > 100


AWS = {"AWS_DEFAULT_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
SERVES = [words[1:] for page in PAGES for words in words_of(typed(page)) if words[0] == "serve"]


@pytest.mark.parametrize("line", SERVES, ids=" ".join)
def test_a_server_that_is_shown_would_start(line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as its settings go."""
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    serve = cli.get_command(click.Context(cli), "serve")
    assert serve is not None
    given = serve.make_context("serve", line).params
    resolve({name: str(value).lower() if value is True else value for name, value in given.items() if value}, {})
