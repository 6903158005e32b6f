"""The command `headrace` starts here, before click and the rest are imported: with a password among its arguments it
starts twice."""

from __future__ import annotations

import json
import os
import sys

from headrace.uri import redact

_ARGUMENTS = "_HEADRACE_ARGUMENTS"  # the descriptor of the pipe with the true arguments


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


def open_what_is_closed() -> None:
    """Who starts us with `<&-` or `>&-` gets nothing from there, as from /dev/null.

    Python has None for such a stream, and the next file or connection would get its number, which what is printed and
    each child would then take for it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free: this one
            setattr(sys, name, os.fdopen(number, mode))


def main() -> None:
    """Run the command that the arguments name, and end."""
    open_what_is_closed()
    try:
        _main()
    except KeyboardInterrupt:  # while the command was looked for
        print("headrace: Broken off.", file=sys.stderr)
        sys.exit(130)


def _main() -> None:
    serves = sys.argv[1:2] == ["serve"] and "--help" not in sys.argv
    try:
        hide_passwords()
        if serves:
            from headrace import workers

            workers.begin_first()
    except OSError as error:
        print(f"headrace: This machine starts no further process: {error}. Look at `ulimit -a`.", file=sys.stderr)
        sys.exit(1)
    try:
        _run()
    finally:
        if serves:
            workers.end_first()


def _run() -> None:
    from headrace.cli.commands import run

    run()


if __name__ == "__main__":
    main()
