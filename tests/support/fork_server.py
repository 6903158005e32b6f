"""Stock's servers, their jobs, MLflow's clients and `headrace aws` as forks of a process that has imported the same.

Who wants one starts the same command as ever, with `environment()` of its kind. Before that command
Python imports forks/sitecustomize.py: it hands the arguments, the environment, the folder and the streams to the fork
server, and stands in for the fork until that ends: it passes signals on, and ends as the fork ends. The fork goes on as
a new interpreter would after its imports. Where these would now find another value of a variable than they have found,
there is no fork: who wants one is the new interpreter. That saves 5, 3 and 0.5 s of processor time.

All of pytest-xdist's workers use the same fork servers: who wants one first starts it, and it ends with them.
"""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, NoReturn

import psutil

from headrace.child import importing
from tests.support.processes import clean_environment, one_at_a_time

ROOT = Path(__file__).parents[2]
PLACE = "TESTS_FORK_SERVERS"  # the variable: in which folder which kinds of fork servers are to be used
NEW = "TESTS_NEW_INTERPRETER"  # the variable: this process is not to be a fork, those that it starts may be
NO_FORK = {PLACE: ""}  # in a server's environment: for who stops its stock, or looks into it
STAND_IN = Path(__file__).with_name("forks")  # has sitecustomize.py
# A variable that is another one for each test; the imports look whether it is set.
TEST = "PYTEST_CURRENT_TEST"
# By `mlflow server` as by Headrace.
SET_BY_DEFAULT = {"MLFLOW_SERVER_X_FRAME_OPTIONS": "SAMEORIGIN"}
# Not seen by `_noting_reads`: what the interpreter, libc and BLAS look at when they start.
READ_IN_C = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "OMP_", "OPENBLAS_")
UNCOUNTED = {"__iter__", "get_exec_path", "_candidate_tempdir_list"}
# Whose telemetry it is, if any were sent; and the key of webhooks' secrets, whose tests have no forks.
OF_NO_CONSEQUENCE = {"_MLFLOW_TELEMETRY_SESSION_ID", "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"}
LONGEST_REQUEST = 200_000
# Its command puts options into variables, and then calls `become_new_unless_as_found`.
LOOKS_ITSELF = "tests.support.stock"
GO_ON, WAIT = b"go on", b"wait"  # what a stand-in is told: be the new interpreter, or wait for the fork's end
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15

_found: dict[str, str | None] = {}  # what the imports of this process, or of the one it is a fork of, have found
_set: dict[str, str] = {}  # and what they have set, as scikit-learn does
_lock = threading.Lock()


def environment(kind: Literal["server", "jobs", "client", "copy", "aws"] = "server") -> dict[str, str]:
    """With this in its environment, a stock server is a fork; by "jobs" what its job runner starts, too, by "client"
    any Python, by "copy" and "aws" `headrace copy` and `headrace aws` with what they start. Nothing on a system where
    it can't be."""
    if sys.platform != "linux":
        return {}
    with _lock:
        together = {"aws": ("aws", "server"), "jobs": ("server", "jobs"), "copy": ("client", "server")}
        kinds = together.get(kind, (kind,))
        for each in kinds:
            if each != "jobs":  # which are forks of the server's
                _start(each)
        return {
            PLACE: f"{_folder()}/{'+'.join(kinds)}",
            "PYTHONPATH": f"{STAND_IN}:{ROOT}",
            "PYTHONHASHSEED": "0",
        }


def client_environment() -> dict[str, str]:
    """`clean_environment()` for a script that imports MLflow, where that needs no process of its own."""
    return clean_environment() | environment("client")


def _session() -> int:
    """The process of all these tests."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


def _folder() -> Path:
    return Path(tempfile.gettempdir(), f"fork-servers-{_session()}")


@cache
def _start(kind: str) -> None:
    """Unless it is there."""
    from tests.support.servers import STOCK_ENVIRONMENT

    place, log = _folder() / kind, _folder() / f"{kind}.log"
    place.parent.mkdir(mode=0o700, exist_ok=True)
    with one_at_a_time(_folder() / f"{kind}.lock"):
        if _accepts(place):
            return
        place.unlink(missing_ok=True)  # of a session before, of the same process id
        command = [sys.executable, "-c", f"from {__name__} import main; main({str(place)!r}, {_session()})"]
        env = clean_environment() | {TEST: "any", "PYTHONPATH": str(ROOT)} | STOCK_ENVIRONMENT | SET_BY_DEFAULT
        with log.open("w") as output:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, cwd=ROOT)
        assert done.returncode == 0, log.read_text()


def _accepts(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        return connection.connect_ex(str(place)) == 0


def main(place: str, session: int) -> None:
    """Import stock, or what clients import, listen, and go on without who has started this; fork for whoever connects,
    until the process `session` ends."""
    with _noting_reads(), importing():
        if place.endswith("/server"):
            import uvicorn  # noqa: F401 - MLflow looks whether it is there
            from mlflow.server.fastapi_app import app  # noqa: F401
            from mlflow.server.jobs import utils  # noqa: F401
        elif place.endswith("/aws"):
            import boto3  # noqa: F401

            import headrace.cli.aws
            import headrace.cli.commands  # noqa: F401
        else:  # with what several of them import
            import matplotlib.pyplot  # noqa: F401
            import mlflow  # noqa: F401
            import shap  # noqa: F401
            import sklearn.linear_model  # noqa: F401
            import xgboost  # noqa: F401
        if place.endswith("/aws"):
            _read_descriptions()
    ended = os.pidfd_open(session)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(place)
    listener.listen()
    if os.fork():
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that keep the forks
    while True:
        readable, _, _ = select.select([listener.fileno(), ended], [], [])
        if ended in readable:
            shutil.rmtree(Path(place).parent, ignore_errors=True)
            os._exit(0)
        channel, _ = listener.accept()
        if os.fork() == 0:
            break
        channel.close()
    os.close(ended)
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _end_with_parent()
    message, streams, _, _ = socket.recv_fds(channel, LONGEST_REQUEST, 3)
    if not message:  # it has looked whether we are here
        os._exit(0)
    request = json.loads(message)
    if not _would_find_the_same(request["arguments"], request["environ"], streams[0]):
        channel.send(GO_ON)
        os._exit(0)
    channel.send(WAIT)
    os.setsid()
    if fork := os.fork():
        _keep(fork, channel, request["stand_in"])
    _end_with_parent()
    channel.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    _run(**request)


def _read_descriptions() -> None:
    """AWS's, of the services that several commands call: boto3 reads them anew for each client."""
    import botocore.session

    botocore.session.create_loader = cache(botocore.session.create_loader)
    loader = botocore.session.create_loader(None)
    for service in ("autoscaling", "cloudformation", "ec2", "ecr", "elbv2", "iam", "logs", "rds", "s3", "ssm", "sts"):
        for description in ("service-2", "endpoint-rule-set-1"):
            loader.load_service_model(service, description, api_version=None)
    loader.load_data_with_path("endpoints")


@contextmanager
def _noting_reads() -> Iterator[None]:
    """Of os.environ. Who looks through all of it looks for names of its own, as tqdm does for TQDM_*.

    Who runs a program looks for it in PATH, in which nobody here puts another of that name. `tempfile` looks again.
    """
    before = dict(os.environ)
    variables: Any = type(os.environ)
    original = variables.__getitem__

    def noted(self: Any, name: str | bytes) -> Any:
        readers = {sys._getframe(depth).f_code.co_name for depth in range(1, 5)}
        if name not in OF_NO_CONSEQUENCE and not readers & UNCOUNTED:
            _found[os.fsdecode(name)] = None
        return original(self, name)

    variables.__getitem__ = noted
    try:
        yield
    finally:
        variables.__getitem__ = original
    _found.update(_of_imports(before))
    _set.update({name: value for name, value in os.environ.items() if before.get(name) != value})


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _keep(fork: int, channel: socket.socket, stand_in: int) -> NoReturn:
    """Pass on signals to the fork and its end to who stands in for it; end it where that has been killed."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, _name_of_keeper(stand_in).encode())
    end = os.pidfd_open(fork)
    while True:
        readable, _, _ = select.select([channel.fileno(), end], [], [])
        if end in readable:
            _, status = os.waitpid(fork, 0)
            channel.send(b"%d" % os.waitstatus_to_exitcode(status))
            os._exit(0)
        signals = channel.recv(100)
        for number in signals:
            os.kill(fork, number)
        if not signals:
            os._exit(0)  # and the fork with us


def _name_of_keeper(stand_in: int) -> str:
    return f"for {stand_in}"


def fork_of(stand_in: psutil.Process) -> psutil.Process | None:
    """The fork that `stand_in` stands in for, once it is there."""
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            if process.name() == _name_of_keeper(stand_in.pid):
                return next(iter(process.children()), None)
    return None


def _take_the_place_of(stand_in: int) -> None:
    """As MLflow's jobs look for: whose child one is, and whether one leads a process group."""
    pid, getppid = os.getpid(), os.getppid

    def parent() -> int:
        if os.getpid() != pid:
            return getppid()
        with suppress(FileNotFoundError):
            return int(Path(f"/proc/{stand_in}/stat").read_text().rpartition(")")[2].split()[1])
        return 1  # where orphans go

    os.getppid = parent
    with suppress(ProcessLookupError):
        if os.getpgid(stand_in) == stand_in:
            os.setpgid(0, 0)


def _run(
    stand_in: int, arguments: list[str], path: list[str], environ: dict[str, str], folder: str, umask: int
) -> None:
    """`arguments`: an interpreter, and what it is to run."""
    _take_the_place_of(stand_in)
    os.environ.clear()
    os.environ.update(environ)
    tempfile.tempdir = None
    time.tzset()
    os.chdir(folder)
    os.umask(umask)
    sys.orig_argv[:], sys.path[:] = arguments, path
    if arguments[1:3] != ["-m", LOOKS_ITSELF]:
        os.environ.update(_set)
    match arguments[1:]:
        case ["-m", module, *rest]:
            sys.argv[:], sys.path[:0] = [module, *rest], [folder]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", script, *rest]:
            sys.argv[:], sys.path[:0] = ["-c", *rest], [""]
            sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(script, "<string>", "exec"), vars(sys.modules["__main__"]))
        case [script, *rest]:
            sys.argv[:], sys.path[:0] = [script, *rest], [str(Path(script).parent)]
            runpy.run_path(script, run_name="__main__")


def _would_find_the_same(arguments: list[str], environ: dict[str, str], stdin: int) -> bool:
    """Whether imports there would do what ours have done."""
    match arguments[1:]:
        case ["-m", module, *_] if module == LOOKS_ITSELF:
            return True
        case ["-m", module, *_] if module.startswith("headrace.stock."):
            environ = environ | _told_by_headrace(stdin)
    return _of_imports(SET_BY_DEFAULT | environ) == _found


def _told_by_headrace(stdin: int) -> dict[str, str]:
    """What headrace.process tells a child of its environment; the child will read it, too."""
    line = b""
    with socket.socket(fileno=os.dup(stdin)) as channel:
        while not line.endswith(b"\n"):
            line = channel.recv(LONGEST_REQUEST, socket.MSG_PEEK)
            if not line:
                return {}  # it has ended
    configuration = json.loads(line)
    return dict(configuration["environ"] | configuration.get("stock", {}))


def is_fork() -> bool:
    """Whether this process is one, and has imported MLflow."""
    return bool(_found)


def become_new_unless_as_found(environ: Mapping[str, str]) -> None:
    """In a fork: go on where imports with this environment would do what ours have done, else start anew."""
    if _of_imports(environ) != _found:
        os.execve(sys.executable, sys.orig_argv, os.environ | {NEW: "1"})
    os.environ.update(_set)


def _of_imports(environ: Mapping[str, str]) -> dict[str, str | None]:
    """The part of an environment that the imports find."""
    in_c = {name for name in environ if name.startswith(READ_IN_C)} - {"PYTHONPATH"}
    part = {name: environ.get(name) for name in _found.keys() | in_c}
    return part | {TEST: str(TEST in environ)}
