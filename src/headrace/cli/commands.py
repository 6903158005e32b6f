"""The command `headrace`: its commands, and what an error ends with."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import NoReturn

import click

from headrace import log
from headrace.cli.env_file import env_file
from headrace.errors import AwsError, ConfigurationError, HeadraceError, SchemaOutOfDate

EXIT_CODES: dict[type[HeadraceError], int] = {ConfigurationError: 2, SchemaOutOfDate: 3, AwsError: 4}


class _Commands(click.Group):
    """A command is its module's function of that name, imported when asked for: a start waits for no other."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["audit", "aws", "copy", "db", "events", "gc", "runs", "serve", "token", "usage", "user"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = getattr(import_module(f"headrace.cli.{cmd_name}"), cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["--help"], "max_content_width": 110})
@env_file
@click.version_option(package_name="headrace", prog_name="headrace")
def cli() -> None:
    """A drop-in MLflow tracking server: much faster, much smaller."""


def run() -> NoReturn:
    """Run the command; an error of ours is one text and an exit code, never a traceback."""
    try:
        code = cli.main(standalone_mode=False)
    except HeadraceError as error:
        if log.is_json():  # a server's, which a program reads
            log.say(str(error), "ERROR")
        else:
            print(f"headrace: {error}", file=sys.stderr)
        code = EXIT_CODES.get(type(error), 1)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    sys.exit(code)
