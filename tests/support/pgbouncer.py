"""A real PgBouncer, as Debian packages it, in front of a test's PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from tests.support.postgres import OTHER_USER, Postgres
from tests.support.processes import PATIENCE_SECONDS, Process, free_port

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
Mode = Literal["session", "transaction", "statement"]


def version() -> tuple[int, ...]:
    """(1, 24, 1)"""
    assert PROGRAM is not None
    said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, said.split()[1].split(".")))


class PgBouncer:
    """Every database of `postgres`. `tls`: a certificate and its key; `settings`: others than those that are here."""

    def __init__(
        self,
        postgres: Postgres,
        mode: Mode,
        server_connections: int = 20,
        password: str = "",
        tls: tuple[Path, Path] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        assert PROGRAM is not None
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-pgbouncer-"))
        self.port = free_port()
        (self._folder / "users").write_text(f'"postgres" "{password}"\n')
        more = "".join(f"{name} = {value}\n" for name, value in (settings or {}).items())
        if tls is not None:
            for name, file in zip(("certificate", "key"), tls, strict=True):
                shutil.copy(file, self._folder / name)
            more += (
                f"client_tls_sslmode = require\nclient_tls_cert_file = {self._folder}/certificate\n"
                f"client_tls_key_file = {self._folder}/key\n"
            )
        (self._folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={postgres.port} user=postgres\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = {'scram-sha-256' if password else 'trust'}\n"
            f"auth_file = {self._folder}/users\npool_mode = {mode}\n"
            f"default_pool_size = {server_connections}\nmax_client_conn = 500\nserver_fast_close = 1\n{more}"
        )
        for path in (self._folder, *self._folder.iterdir()):
            if os.geteuid() == 0:  # PgBouncer refuses to run as root
                shutil.chown(path, OTHER_USER)
        self._process: Process | None = None

    def start(self) -> None:
        assert PROGRAM is not None
        user = OTHER_USER if os.geteuid() == 0 else None
        self._process = Process([PROGRAM, self._folder / "pgbouncer.ini"], self._folder / "log", user=user)
        self._process.wait_until(self._listens, "PgBouncer listens", PATIENCE_SECONDS)

    def _listens(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(signal.SIGTERM)
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def uri(self, database: str) -> str:
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self.port}/{database}"
