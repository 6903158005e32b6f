"""What commands print that work for long: on a terminal a line that changes meanwhile, and a report at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click
import msgspec


def show_progress(text: str) -> None:
    """In the place of what was shown before; nothing where nobody looks."""
    if sys.stderr.isatty():
        click.echo(f"\r{text} ...\x1b[K", nl=False, err=True)


def end_progress() -> None:
    """Take the line away."""
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)


def print_report(report: msgspec.Struct, json: bool, lines: Iterable[str]) -> None:
    """The report as JSON for programs, or these lines of it for people."""
    end_progress()
    if json:
        click.echo(msgspec.json.encode(report).decode())
        return
    for line in lines:
        click.echo(line)
