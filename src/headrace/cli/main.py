"""The command `headrace`."""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module

import click

from headrace import log
from headrace.cli.env_file import env_file
from headrace.errors import AwsError, ConfigurationError, HeadraceError, SchemaOutOfDate
from headrace.uri import redact

_ARGUMENTS = "_HEADRACE_ARGUMENTS"  # the descriptor of the pipe with the true arguments
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


def hide_passwords() -> None:
    """Keep passwords among the arguments out of `ps`: start again with them masked, the true ones in a pipe.

    It costs the start 30 ms, and they show until then; an environment variable never shows them. The process's
    own environment can't be read by other users.
    """
    if (pipe := os.environ.pop(_ARGUMENTS, None)) is not None:
        with os.fdopen(int(pipe)) as true_arguments:
            sys.argv[1:] = json.load(true_arguments)
        return
    arguments = sys.argv[1:]
    masked = [redact(text) for text in arguments]
    if masked != arguments:
        reader, writer = os.pipe()
        os.set_inheritable(reader, True)
        with os.fdopen(writer, "w") as true_arguments:
            json.dump(arguments, true_arguments)
        os.environ[_ARGUMENTS] = str(reader)
        os.execv(sys.executable, sys.orig_argv[: -len(arguments)] + masked)  # noqa: S606 - no shell is wanted


def main() -> None:
    """Run the command; an error of ours is one text and an exit code, never a traceback."""
    hide_passwords()
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


if __name__ == "__main__":
    main()
