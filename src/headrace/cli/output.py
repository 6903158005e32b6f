"""What commands print that work for long: on a terminal a line that changes meanwhile, a report at the end, or what
became of it where Ctrl-C ended it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import click
import msgspec

from headrace.errors import BrokenOff

BROKEN_OFF = "Broken off."
GOES_ON = "Start the same command again: it goes on where it was."


def show_progress(text: str) -> None:
    """In the place of what was shown before; nothing where nobody looks."""
    if sys.stderr.isatty():
        click.echo(f"\r{text} ...\x1b[K", nl=False, err=True)


def end_progress() -> None:
    """Take the line away."""
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)


@contextmanager
def if_broken_off(text: str) -> Iterator[None]:
    """Say this where Ctrl-C ends what is done within, or the function that this decorates."""
    try:
        yield
    except KeyboardInterrupt:
        end_progress()
        raise BrokenOff(f"{BROKEN_OFF} {text}") from None


def print_report(report: msgspec.Struct, json: bool, lines: Iterable[str]) -> None:
    """The report as JSON for programs, or these lines of it for people."""
    end_progress()
    if json:
        click.echo(msgspec.json.encode(report).decode())
        return
    for line in lines:
        click.echo(line)
