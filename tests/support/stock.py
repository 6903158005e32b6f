"""`mlflow server` in one process: `python -m tests.support.stock server ...`.

MLflow's own command reads its options, and then starts uvicorn as a process of its own, which imports all of MLflow
again, 5 s of processor time. Here uvicorn runs in the command's process, with what the command would start it with;
that process is a fork of one that has imported it already, where it can be (fork_server.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import uvicorn

from headrace.child import importing
from tests.support.fork_server import become_new_unless_as_found, is_fork

# A connection that a client comes back to after uvicorn's own 5 s may end just when the next request is sent.
KEEP_ALIVE_SECONDS = 600


def run_here(command: Sequence[str], extra_env: Mapping[str, str], **_: Any) -> NoReturn:
    """Instead of MLflow's `_exec_cmd`: `python -m uvicorn ...` with this environment."""
    if is_fork():
        become_new_unless_as_found(os.environ | extra_env)
    else:  # its server looks at the environment when it is imported, which the command has done before
        for name in [name for name in sys.modules if f"{name}.".startswith("mlflow.server.")]:
            del sys.modules[name]
    os.environ.update(extra_env)
    interpreter, option, module, *arguments = command
    assert (interpreter, option, module) == (sys.executable, "-m", "uvicorn")
    with importing():
        import mlflow.server.fastapi_app  # noqa: F401
    uvicorn.main(["--timeout-keep-alive", str(KEEP_ALIVE_SECONDS), *arguments])
    raise AssertionError("uvicorn's command ends the process")


def main() -> None:
    """Run MLflow's command."""
    with importing():
        import mlflow.server
        from mlflow.cli import cli

    vars(mlflow.server)["_exec_cmd"] = run_here
    cli()


if __name__ == "__main__":
    main()
