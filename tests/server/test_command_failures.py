"""What is wrong around a command x the command: one clear line and an exit code, never a traceback.

What is wrong with its database is in test_database_errors.py.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.server.conftest import run_headrace
from tests.support import fork_server
from tests.support.databases import Databases
from tests.support.processes import PATIENCE_SECONDS, Process, clean_environment
from tests.support.servers import SCRIPTS

# Commands that look into a database and print what they find.
READERS = {
    "usage": ("usage",),
    "gc": ("gc", "--dry-run"),
    "user list": ("user", "list"),
    "token list": ("token", "list", "--json"),
    "events list": ("events", "list"),
}
COMMANDS = READERS | {
    "serve": ("serve", "--port", "0"),
    "audit": ("audit",),
    "runs move": ("runs", "move", "0" * 32, "--to", "there"),
    "user add": ("user", "add", "ada", "--no-password"),
    "copy": ("copy", "{store}", "sqlite:///target.db"),
    "db upgrade": ("db", "upgrade"),
    "db create": ("db", "create"),
    "aws status": ("aws", "status"),
}


@pytest.fixture(scope="module")
def store(databases: Databases) -> str:
    return databases.migrated("sqlite").uri


class Silent:
    """A PostgreSQL that takes connections and says nothing."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_SECONDS)
        self._taken: list[socket.socket] = []
        self.store = f"postgresql://u@127.0.0.1:{self._listener.getsockname()[1]}/d?sslmode=disable"

    def wait_for_connection(self) -> None:
        self._taken.append(self._listener.accept()[0])

    def hang_up(self) -> None:
        for each in self._taken:
            each.close()

    def close(self) -> None:
        self.hang_up()
        self._listener.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    made = Silent()
    yield made
    made.close()


def headrace(*command: str, cwd: Path, store: str, stdout: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run it, with this backend store; `stdout`: the file that its output goes to."""
    with open(stdout or os.devnull, "w") as output:
        return subprocess.run(
            [SCRIPTS / "headrace", *(text.format(store=store) for text in command)],
            env=clean_environment() | fork_server.environment() | {"MLFLOW_BACKEND_STORE_URI": store},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )


def only_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that failed has said."""
    assert done.returncode not in (0, -6, -11)
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("command", [*READERS.values(), ("--help",)], ids=" ".join)
def test_the_output_goes_to_a_full_disk(store: str, tmp_path: Path, command: tuple[str, ...]) -> None:
    done = headrace(*command, cwd=tmp_path, store=store, stdout="/dev/full")
    assert only_line(done) == "headrace: what its output goes to takes no more: No space left on device."
    assert done.returncode == 1


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-"])
@pytest.mark.parametrize("command", [("gc",), ("user", "list")], ids=" ".join)
def test_a_stream_is_closed(store: str, tmp_path: Path, command: tuple[str, ...], closed: str) -> None:
    """Then the rest is done as ever, and no file or connection gets the stream's number."""
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", str(SCRIPTS / "headrace")]
    environment = clean_environment() | {"MLFLOW_BACKEND_STORE_URI": store}
    done = subprocess.run(
        [*shell, *command], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (closed != "1>&-")


def test_a_password_from_a_closed_input(store: str, tmp_path: Path) -> None:
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", str(SCRIPTS / "headrace"), "user", "add", "ada"]
    environment = clean_environment() | {"MLFLOW_BACKEND_STORE_URI": store}
    done = subprocess.run(shell, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (
        1,
        "Error: A password has 12 characters or more, and 1024 at most.\n",
    )


@pytest.mark.parametrize("name", ["usage", "user list", "copy"])
def test_the_store_is_a_folder(tmp_path: Path, name: str) -> None:
    line = only_line(headrace(*COMMANDS[name], cwd=tmp_path, store=f"sqlite:///{tmp_path}"))
    assert line.startswith(f"headrace: The database sqlite:///{tmp_path} can't be opened: it is a folder. ")


@pytest.mark.parametrize("name", ["usage", "user add"])
def test_the_disk_of_the_store_is_full(databases: Databases, tmp_path: Path, name: str) -> None:
    """As for SQLite a file is that may not grow: it makes one beside its own."""
    database = databases.migrated("sqlite")
    with closing(sqlite3.connect(database.name)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    shell = ["sh", "-c", 'ulimit -f 0 && exec "$@"', "sh", str(SCRIPTS / "headrace"), *COMMANDS[name]]
    environment = clean_environment() | {"MLFLOW_BACKEND_STORE_URI": database.uri}
    done = subprocess.run(shell, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    said = (
        f"headrace: The database {database.uri} can't be opened: disk I/O error. Look at the room on its disk, and at"
    )
    assert only_line(done) == f"{said} the disk."


def test_a_file_that_may_not_be_used_is_one_line(store: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code = "from headrace.cli import commands; commands.cli.main = lambda **_: open('file/none'); commands.run()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path, env=clean_environment()
    )
    said = "file/none can't be used: Not a directory. Look at who may use it, and at the folders above it."
    assert only_line(done) == f"headrace: {said}"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_the_folder_is_gone(store: str, tmp_path: Path, command: tuple[str, ...]) -> None:
    shell = ["sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$@"', "sh", str(SCRIPTS / "headrace")]
    arguments = [text.format(store=store) for text in command]
    environment = clean_environment() | {"MLFLOW_BACKEND_STORE_URI": store}
    done = subprocess.run(
        [*shell, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    said = "The folder that you are in can't be used: No such file or directory. Go to another one."
    assert only_line(done) == f"headrace: {said}"
    assert done.returncode == 2


@pytest.mark.parametrize("name", ["usage", "gc", "user list", "token list", "events list", "audit", "runs move"])
def test_the_store_is_a_file_by_its_path(store: str, tmp_path: Path, name: str) -> None:
    path = store.removeprefix("sqlite:///")
    line = only_line(headrace(*COMMANDS[name], cwd=tmp_path, store=path))
    assert f"{path} is no PostgreSQL and no SQLite database" in line
    assert line.endswith(f"A SQLite database is named sqlite:///{path}.")


@pytest.mark.parametrize(
    ("content", "says"), [(b"A=\xff\xfe", "can't be read: 'utf-8'"), (b"A=a\0b", "can't be read: embedded null")]
)
def test_an_env_file_that_is_none(store: str, tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "env").write_bytes(content)
    line = only_line(headrace("--env-file", "env", "usage", cwd=tmp_path, store=store))
    assert f"headrace: --env-file is env, which {says}" in line
    assert line.endswith("It has lines NAME=VALUE.")


@pytest.mark.parametrize("broken", ["B C=1", 'B="no end', "=1"])
def test_a_line_of_an_env_file_that_is_none(store: str, tmp_path: Path, broken: str) -> None:
    (tmp_path / "env").write_text(f"# none\nexport A=1\n{broken}\nC=1\n")
    line = only_line(headrace("--env-file", "env", "usage", cwd=tmp_path, store=store))
    assert line.startswith("headrace: --env-file is env, whose line 3 is none that can be read: ")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("sevre",), "No such command 'sevre'. Did you mean 'serve'?"),
        (("user", "lst"), "No such command 'lst'. Did you mean 'list'?"),
        (("db", "indices"), "No such command 'indices'. Did you mean 'indexes'?"),
        (("zzz",), "No such command 'zzz'."),
        (("usage", "--jsno"), "No such option '--jsno'. Did you mean '--json'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_name_that_is_none(store: str, tmp_path: Path, command: tuple[str, ...], says: str) -> None:
    done = headrace(*command, cwd=tmp_path, store=store)
    assert done.stderr.splitlines()[-1] == f"Error: {says}"
    assert done.returncode == 2


BROKEN_OFF = {
    "usage": "Broken off. It changes nothing.",
    "gc": "Broken off. Start the same command again: it goes on where it was.",
    "runs move": "Broken off. Start the same command again: it goes on where it was.",
    "copy": "Broken off. Start the same command again: it goes on where it was.",
    "db create": "Broken off. Start the same command again: it goes on where it was.",
    "db upgrade": "Broken off. Nothing of it is half done. Start the same command again.",
    "user list": "Broken off.",
    "audit": "Broken off.",
}


@pytest.mark.parametrize("name", BROKEN_OFF)
def test_ctrl_c(silent: Silent, tmp_path: Path, name: str) -> None:
    arguments = [text.format(store=silent.store) for text in COMMANDS[name]]
    process = Process(
        [SCRIPTS / "headrace", *arguments],
        tmp_path / "log",
        env={"MLFLOW_BACKEND_STORE_URI": silent.store},
        cwd=tmp_path,
    )
    try:
        silent.wait_for_connection()
        process.send_signal(signal.SIGINT)
        silent.hang_up()  # libpq hears of no signal before
        assert process.wait() == 130
    finally:
        process.stop()
    assert process.tail().splitlines() == [f"headrace: {BROKEN_OFF[name]}"]


def test_ctrl_c_before_the_command_is_there() -> None:
    script = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
    code = f"import sys; from headrace.cli import main; main._run = lambda: exec({script!r}); main.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "headrace: Broken off.\n")


WAITS = ("usage", "gc", "user list", "events list", "user add", "copy", "db upgrade")


@pytest.mark.parametrize(
    ("name", "journal"), [*((name, "delete") for name in WAITS), ("user list", "wal"), ("copy", "wal")]
)
def test_it_says_that_it_waits(databases: Databases, tmp_path: Path, name: str, journal: str) -> None:
    """For a SQLite file that another process holds: soon, once, and what it waits for; then it does its work."""
    database = databases.migrated("sqlite")
    arguments = [text.format(store=database.uri) for text in COMMANDS[name]]
    with closing(sqlite3.connect(database.name, isolation_level=None)) as holder:
        holder.execute(f"PRAGMA journal_mode = {journal}")
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")  # in WAL, too, others can't even read then
        holder.execute("BEGIN EXCLUSIVE")
        environment = fork_server.environment() | {"MLFLOW_BACKEND_STORE_URI": database.uri}
        process = Process([SCRIPTS / "headrace", *arguments], tmp_path / "log", env=environment, cwd=tmp_path)
        try:
            process.wait_until(lambda: "headrace: " in process.tail(), "a line")
            said = [line for line in process.tail().splitlines() if line.startswith("headrace: ")]
            assert said == [f"headrace: waiting for another process, which holds {database.name}"]
            holder.execute("ROLLBACK")
            holder.close()
            assert process.wait() == 0, process.tail()
        finally:
            process.stop()
    assert process.tail().count("headrace: waiting for") == 1


@pytest.mark.parametrize(
    "variable",
    [
        "HEADRACE_GRANTS=true",
        "HEADRACE_OIDC_ISSUER=https://login.example.com",
        "HEADRACE_STOCK=never MLFLOW_SERVER_ENABLE_JOB_EXECUTION=true",
    ],
)
def test_the_servers_variables_are_not_this_commands(databases: Databases, tmp_path: Path, variable: str) -> None:
    """Those of a server that is told the rest on its command line: they are looked at by `headrace serve` alone."""
    environment = dict(each.split("=") for each in variable.split())
    store = databases.migrated("postgresql").uri
    for command in (("usage",), ("user", "list"), ("gc", "--dry-run")):
        done = run_headrace(*command, "--backend-store-uri", store, cwd=tmp_path, env=environment)
        assert (done.returncode, done.stderr) == (0, ""), command
    done = run_headrace("serve", "--backend-store-uri", store, cwd=tmp_path, env=environment)
    assert done.returncode == 2
