"""What docs/ and the README have in their blocks of code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def blocks(page: Path, kind: str = "bash") -> list[str]:
    """Each block of this kind."""
    return [block for of, block in _BLOCK.findall(page.read_text()) if of == kind]


def typed(page: Path) -> list[str]:
    """The lines of its bash blocks; what a backslash continues is one."""
    return [line for block in blocks(page) for line in block.replace("\\\n", " ").splitlines()]


def prose(page: Path) -> str:
    """The page without its blocks."""
    return _BLOCK.sub("", page.read_text())
