"""docs/ beside the code: the messages of troubleshooting.md are the code's own, and the site's menu has every page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
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
