"""The command `headrace`: its commands, and what an error ends with."""

from __future__ import annotations

import errno
import logging
import sys
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from headrace import log
from headrace.cli.env_file import env_file
from headrace.cli.output import BROKEN_OFF, end_progress
from headrace.errors import AwsError, BrokenOff, ConfigurationError, HeadraceError, SchemaOutOfDate

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
EXIT_CODES: dict[type[HeadraceError], int] = {ConfigurationError: 2, SchemaOutOfDate: 3, AwsError: 4, BrokenOff: 130}


class _Commands(click.Group):
    """A command is its module's function of that name, imported when asked for: a start waits for no other."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["audit", "aws", "copy", "db", "events", "gc", "runs", "serve", "token", "usage", "user"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = getattr(import_module(f"headrace.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Of a name that is none the nearest is told; click knows no names of commands that it has not imported."""
        names = self.list_commands(ctx)
        if args[0] not in names and (near := get_close_matches(args[0], names, 1)):
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{near[0]}'?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Click would say nothing of Ctrl-C."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise BrokenOff(BROKEN_OFF) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["--help"], "max_content_width": 110})
@env_file
@click.version_option(package_name="headrace", prog_name="headrace")
def cli() -> None:
    """A drop-in MLflow tracking server: much faster, much smaller."""


class _Told(logging.Handler):
    """What our modules log while a command works."""

    def emit(self, record: logging.LogRecord) -> None:
        _tell(self.format(record), record.levelname)


def _tell(text: str, level: str) -> None:
    if log.is_json():  # a server's, which a program reads
        log.say(text, level)
    else:
        end_progress()
        print(f"headrace: {text}", file=sys.stderr)


def run() -> NoReturn:
    """Run the command; an error of ours is one text and an exit code, never a traceback."""
    logging.getLogger("headrace").addHandler(_Told())
    try:
        _look_at_folder()
        code = cli.main(standalone_mode=False)
    except HeadraceError as error:
        _tell(_said(error), "ERROR")
        code = EXIT_CODES.get(type(error), 1)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:  # a question that was not answered with yes
        print(f"headrace: {BROKEN_OFF}", file=sys.stderr)
        code = EXIT_CODES[BrokenOff]
    except OSError as error:
        print(f"headrace: {_of_the_machine(error)}", file=sys.stderr)
        code = 1
    sys.exit(code)


def _said(error: HeadraceError) -> str:
    from headrace.db.database import TableChanged

    if not isinstance(error, TableChanged):
        return str(error)
    return (
        f"The database has not got what this command asks for ({error}): it is of another MLflow, or damaged. An older "
        "one becomes the installed MLflow's by `headrace db upgrade`."
    )


def _of_the_machine(error: OSError) -> str:
    """What a file, a folder or a pipe refused, which one it was, and what to do."""
    if error.errno in NO_ROOM:
        return f"{error.filename or 'what its output goes to'} takes no more: {error.strerror}."
    if error.filename is None or error.strerror is None:
        raise error
    return f"{error.filename} can't be used: {error.strerror}. Look at who may use it, and at the folders above it."


def _look_at_folder() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise ConfigurationError(
            f"The folder that you are in can't be used: {error.strerror}. Go to another one."
        ) from None
