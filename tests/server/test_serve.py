"""The process tree of `headrace serve`: start, stop, restarts, and what it shows of its configuration."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.server.conftest import Serve, run_headrace, wait_until_gone
from tests.support.databases import BACKENDS, Backend, Databases
from tests.support.processes import PATIENCE_SECONDS, free_port, wait_until
from tests.support.servers import PASSED_THROUGH

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the proportional set size is Linux's")


@pytest.fixture
def sqlite(databases: Databases) -> tuple[str, str]:
    return "--backend-store-uri", databases.migrated("sqlite").uri


def test_a_start_says_where_it_is_and_what_to_do_next(serve: Serve, sqlite: tuple[str, str]) -> None:
    server = serve(*sqlite, "--stock", "lazy")
    wait_until(lambda: "export MLFLOW_TRACKING_URI" in server.log, "what to do next is said")  # a worker answers before
    assert f"MLflow is on {server.url}\n" in server.log
    assert f"database   {sqlite[1]}\n" in server.log
    assert "artifacts  ./mlartifacts, through this server\n" in server.log
    assert f"export MLFLOW_TRACKING_URI={server.url}\n" in server.log
    assert "Traceback" not in server.log


@LINUX
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_small(serve: Serve, databases: Databases, backend: Backend) -> None:
    server = serve("--backend-store-uri", databases.migrated(backend).uri, "--stock", "lazy")
    processes = [psutil.Process(server.process.pid), *server.workers]
    assert len(processes) == 2
    sizes = [process.memory_full_info().pss for process in processes]
    assert sum(sizes) < 80e6, sizes


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_leaves_nothing(serve: Serve, sqlite: tuple[str, str], how: signal.Signals) -> None:
    server = serve(*sqlite, until=PASSED_THROUGH)
    assert server.stock is not None
    children = [*server.workers, server.stock, server.stock_itself]
    (directory,) = {Path(c.laddr).parent for c in server.stock_itself.net_connections("unix") if "headrace-" in c.laddr}
    assert directory.stat().st_mode & 0o777 == 0o700
    server.process.send_signal(how)
    assert server.process.wait(PATIENCE_SECONDS) == 0
    assert not any(child.is_running() for child in children)
    assert not directory.exists()
    assert "Traceback" not in server.log


@contextmanager
def half_an_upload(url: str) -> Iterator[socket.socket]:
    """Send a part of an artifact; when the server has asked for it, it is busy with it."""
    host, port = url.removeprefix("http://").split(":")
    head = f"PUT /api/2.0/mlflow-artifacts/artifacts/0/file HTTP/1.1\r\nHost: {host}\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"{head}Content-Length: 6\r\nExpect: 100-continue\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")
        connection.sendall(b"abc")
        yield connection


def test_sigterm_lets_requests_end_and_a_second_one_does_not(serve: Serve, sqlite: tuple[str, str]) -> None:
    for patient in (True, False):
        server = serve(*sqlite, "--stock", "lazy", "--shutdown-timeout", str(2 * PATIENCE_SECONDS))
        with half_an_upload(server.url) as connection:
            server.process.send_signal(signal.SIGTERM)
            wait_until_refused(server.url)
            if patient:
                connection.sendall(b"def")
                assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            else:
                server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(PATIENCE_SECONDS) == 0


def wait_until_refused(url: str) -> None:
    def refused() -> bool:
        try:
            requests.get(url + "/health", timeout=10)
        except requests.ReadTimeout:
            return False
        except requests.ConnectionError:
            return True
        return False

    wait_until(refused, "new connections are refused")


def test_kill_9_of_the_server_takes_everything_along(serve: Serve, sqlite: tuple[str, str]) -> None:
    server = serve(*sqlite, until=PASSED_THROUGH)
    assert server.stock is not None
    children = [*server.workers, server.stock, server.stock_itself]
    (directory,) = {Path(c.laddr).parent for c in server.stock_itself.net_connections("unix") if "headrace-" in c.laddr}
    server.process.send_signal(signal.SIGKILL)
    wait_until_gone(children)
    assert not directory.exists()


def test_a_killed_worker_is_replaced_at_once(serve: Serve, sqlite: tuple[str, str]) -> None:
    """After a tenth of a second; what is more is the start of a worker, as long as that of the first one."""
    server = serve(*sqlite, "--stock", "lazy")
    (worker,) = server.workers
    worker.kill()
    wait_until(lambda: server.answers("/health"), "a new worker answers")
    assert [new.pid for new in server.workers] != [worker.pid]
    assert "the worker ended (SIGKILL); it starts again in 0.1 s" in server.log


def test_workers_share_the_port(serve: Serve, databases: Databases) -> None:
    server = serve("--backend-store-uri", databases.migrated("postgresql").uri, "--workers", "2", "--stock", "lazy")
    assert len(server.workers) == 2
    served: set[int] = set()

    def both() -> bool:
        # connections that stay open: one worker does not get them all
        sessions = [requests.Session() for _ in range(16)]
        for session in sessions:
            assert session.get(server.url + "/health").text == "OK"
        served.update(w.pid for w in server.workers if any(c.raddr for c in w.net_connections("tcp")))
        for session in sessions:
            session.close()
        return len(served) == 2

    wait_until(both, "both workers have had connections")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_request_waits_for_a_delayed_ack(serve: Serve, databases: Databases, workers: str) -> None:
    """Without TCP_NODELAY an answer of two packets takes 40 ms (Linux), each on a connection but the first 16."""
    options = ("--backend-store-uri", databases.migrated("postgresql").uri, "--workers", workers, "--stock", "lazy")
    server = serve(*options)
    artifact = "/api/2.0/mlflow-artifacts/artifacts/file"
    requests.put(server.url + artifact, data=b"its head goes out before it").raise_for_status()
    with requests.Session() as session:
        for path in ("/health", artifact):
            times = [session.get(server.url + path).elapsed.total_seconds() for _ in range(40)]
            assert min(times[-20:]) < 0.03, path  # one is enough: the fault strikes all, a busy machine some


SECRET = "h1dden%2Fpass"


@pytest.mark.parametrize("how", ["argument", "environment", "container"])
def test_passwords_never_show(serve: Serve, databases: Databases, how: str) -> None:
    plain = databases.migrated("postgresql")
    address, name = plain.uri.split("@")[1].split("/")
    host, port = address.split(":")
    secret = f"postgresql://postgres:{SECRET}@{address}/{name}?sslmode=prefer"
    if how == "argument":
        server = serve(f"--backend-store-uri={secret}", until=PASSED_THROUGH)
    elif how == "environment":
        server = serve(env={"MLFLOW_BACKEND_STORE_URI": secret}, until=PASSED_THROUGH)
    else:
        login = {"USERNAME": "postgres", "PASSWORD": "h1dden/pass", "HOST": host, "PORT": port, "DATABASE": name}
        server = serve("--insecure-no-auth", env=login | {"BUCKET": "s3://bucket/"}, until=PASSED_THROUGH)
    top = psutil.Process(server.process.pid)
    wait_until(lambda: server.stock is not None and len(server.workers) == 1, "the children are there")
    children = top.children()
    assert len(children) == 2
    shown = [*top.cmdline(), server.log]
    for child in children:
        shown += [*child.cmdline(), *child.environ().values()]
    assert not [text for text in shown if "h1dden" in text]
    assert "***" in server.log


def test_the_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = run_headrace("serve", "--port", port, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"headrace: Can't listen on 127.0.0.1 port {port}: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "env", "text"),
    [
        (["--env-file", "not.there"], {}, "--env-file is not.there, but there is no such file"),
        (["--gunicorn-opts", "--timeout 60"], {}, "--gunicorn-opts is an option of mlflow server, but"),
        (["--dev"], {}, "use --log-level debug"),
        (["--app-name", "plugin"], {}, "--app-name is 'plugin', but must be basic-auth, which is taken for --auth"),
        (["--no-such-option"], {}, "No such option"),
        ([], {"MLFLOW_ENABLE_WORKSPACES": "true", "MLFLOW_WORKSPACE_STORE_URI": "sqlite:///w.db"}, "another store"),
        ([], {"HOST": "db", "DATABASE": "mlflow", "USERNAME": "me"}, "not PASSWORD, BUCKET"),
        (["--host", "no.such.host.invalid"], {}, "Can't listen on no.such.host.invalid"),
    ],
)
def test_a_bad_configuration_is_one_clear_error(
    tmp_path: Path, arguments: list[str], env: dict[str, str], text: str
) -> None:
    done = run_headrace("serve", "--port", str(free_port()), *arguments, cwd=tmp_path, env=env)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_command_line_that_is_refused_leaves_no_worker(tmp_path: Path) -> None:
    """The first has begun by then."""
    mark = {"MARK": str(tmp_path)}
    done = run_headrace("serve", "--no-such-option", cwd=tmp_path, env=mark)
    assert done.returncode == 2
    assert not [each for each in psutil.process_iter() if environment(each).items() >= mark.items()]


def test_a_worker_has_what_an_env_file_says(serve: Serve, sqlite: tuple[str, str], tmp_path: Path) -> None:
    """One that has begun before the file was read is begun anew."""
    file = tmp_path / "settings.env"
    file.write_text(f"MARK={tmp_path}\n")
    server = serve(*sqlite, "--env-file", str(file))
    assert [environment(worker)["MARK"] for worker in server.workers] == [str(tmp_path)]


def environment(process: psutil.Process) -> dict[str, str]:
    """Empty for one that has ended."""
    try:
        found: dict[str, str] = process.environ()
    except psutil.Error:
        return {}
    return found


def test_an_env_file_and_what_it_says_of_itself(serve: Serve, sqlite: tuple[str, str], tmp_path: Path) -> None:
    """What `mlflow --env-file FILE server` took, quotes included; a variable that is set wins."""
    port = free_port()
    file = tmp_path / "settings.env"
    file.write_text(
        f'# ours\nMLFLOW_PORT="{port}"\nexport WEB_CONCURRENCY=3\nHEADRACE_STOCK=background\nUVICORN_WS=x\n'
    )
    done = run_headrace("--env-file", str(file), "serve", "--workers", "none", cwd=tmp_path)
    assert "--workers is 'none'" in done.stderr
    server = serve(*sqlite, "--env-file", str(file), env={"HEADRACE_STOCK": "never"})
    wait_until(lambda: "export MLFLOW_TRACKING_URI" in server.log, "the start is done")
    assert "WARNING headrace: WEB_CONCURRENCY is taken for --workers\n" in server.log
    assert "headrace: SQLite has one writer: one worker runs, not 3. With PostgreSQL all of them would\n" in server.log
    assert "headrace: UVICORN_WS is set, but" in server.log
    assert "stock MLflow starts" not in server.log


@pytest.mark.parametrize("form", ["text", "json"])
def test_every_line_of_the_log_has_one_format(serve: Serve, tmp_path: Path, form: str) -> None:
    """The supervisor's, the workers', stock's, the set-up's, of a first start with users."""
    server = serve("--auth", "--log-format", form, "--log-level", "debug", "--stock", "background")
    wait_until(lambda: "Uvicorn running on unix socket" in server.log, "stock has started")
    (worker,) = server.workers
    worker.kill()
    wait_until(lambda: "it starts again" in server.log, "the supervisor says so")
    server.process.stop()
    lines = [line for line in server.log.splitlines() if not line.startswith('{"audit"')]
    if form == "json":
        sources = {entry["source"] for entry in map(json.loads, lines) if entry["time"] and entry["level"]}
    else:
        found = [re.fullmatch(r"\d{4}-\S+Z (DEBUG|INFO|WARNING|ERROR) ([\w. -]+): .*", line) for line in lines]
        assert [line for line, match in zip(lines, found, strict=True) if match is None] == []
        sources = {match[2] for match in found if match is not None}
    assert {"headrace", "stock"} <= sources


@pytest.mark.parametrize("guarded", [False, True])
def test_artifacts_only(serve: Serve, tmp_path: Path, guarded: bool) -> None:
    """Native, without a database where nobody has to be known."""
    token = "0123456789abcdef0123456789abcdef"
    options = ["--auth"] if guarded else []
    server = serve("--artifacts-only", "--stock", "never", *options, env={"HEADRACE_ADMIN_TOKEN": token})
    headers = {"Authorization": f"Bearer {token}"} if guarded else {}

    def ask(method: str, path: str, **more: Any) -> requests.Response:
        return requests.request(method, server.url + path, headers=headers, timeout=60, **more)

    artifact = "/api/2.0/mlflow-artifacts/artifacts/1/run/artifacts/a b.txt"
    assert ask("PUT", artifact, data=b"content").status_code == 200
    assert (tmp_path / "mlartifacts/1/run/artifacts/a b.txt").read_bytes() == b"content"
    assert ask("GET", artifact).content == b"content"
    listed = ask("GET", "/api/2.0/mlflow-artifacts/artifacts", params={"path": "1/run/artifacts"})
    assert listed.json() == {"files": [{"path": "a b.txt", "is_dir": False, "file_size": 7}]}
    for method, path in (("POST", "/api/2.0/mlflow/runs/search"), ("POST", "/graphql"), ("GET", "/get-artifact")):
        answer = ask(method, path)
        assert (answer.status_code, answer.headers["headrace-answered-by"]) == (501, "native")
        assert "--artifacts-only" in answer.json()["message"]
    assert ask("GET", "/ready").status_code == 200
    for api in ("api", "ajax-api"):  # asked first by every client; --stock never: it wakes nobody
        info = ask("GET", f"/{api}/3.0/mlflow/server-info")
        assert (info.status_code, info.headers["headrace-answered-by"]) == (200, "native")
        assert (info.json()["store_type"], info.json()["multipart_uploads_enabled"]) == ("SqlStore", False)
    assert (requests.get(server.url + artifact, timeout=60).status_code == 401) is guarded
    assert (tmp_path / "headrace-data").exists() is guarded


def test_version(tmp_path: Path) -> None:
    done = run_headrace("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout[:9]) == (0, "headrace,")
