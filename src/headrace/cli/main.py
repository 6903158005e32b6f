"""The command `headrace`."""

from __future__ import annotations

import json
import os
import sys

import click

from headrace import log
from headrace.cli.audit import audit
from headrace.cli.db import db
from headrace.cli.env_file import env_file
from headrace.cli.gc import gc
from headrace.cli.serve import serve
from headrace.cli.token import token
from headrace.cli.user import user
from headrace.errors import AwsError, ConfigurationError, HeadraceError, SchemaOutOfDate
from headrace.uri import redact

_ARGUMENTS = "_HEADRACE_ARGUMENTS"  # the descriptor of the pipe with the true arguments
EXIT_CODES: dict[type[HeadraceError], int] = {ConfigurationError: 2, SchemaOutOfDate: 3, AwsError: 4}


class _Commands(click.Group):
    """`headrace aws` is imported when it is asked for: the server's start does not wait for it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "aws"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "aws":
            return super().get_command(ctx, cmd_name)
        from headrace.cli.aws import aws

        return aws


@click.group(cls=_Commands, context_settings={"help_option_names": ["--help"], "max_content_width": 110})
@env_file
@click.version_option(package_name="headrace", prog_name="headrace")
def cli() -> None:
    """A drop-in MLflow tracking server: much faster, much smaller."""


cli.add_command(serve)
cli.add_command(db)
cli.add_command(gc)
cli.add_command(user)
cli.add_command(token)
cli.add_command(audit)


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
