"""Drills of what the machine gives: its clock, disks, memory, descriptors, and a network that loses packets."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import requests
from tests.support.databases import Database, Databases
from tests.support.faults import TcpProxy
from tests.support.postgres import Postgres
from tests.support.processes import wait_until
from tests.support.servers import start_moto

from drill.field import Field
from drill.outcome import Outcome
from drill.writers import API, Batches, Files, Metrics, Writing, writing

_FAKETIME = "faketime/libfaketimeMT.so.1"
_MEGABYTES = 128
_LOSS = 0.05


def clock(field: Field) -> Outcome:
    """The server's clock is set back by an hour and by 30 days, and to tomorrow; then it is right again."""
    outcome = Outcome("clock set back and forth")
    library = next((each for each in Path("/usr/lib").glob(f"*/{_FAKETIME}")), None)
    if library is None:
        outcome.skipped = "there is no libfaketime: apt-get install faketime"
        return outcome
    offset = field.folder / "offset"
    offset.write_text("+0")
    # what `date -s` changes, and no more: timers go by another clock
    fake = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    database = field.database()
    server = field.serve(database, env=fake | {"FAKETIME_CACHE_DURATION": "1"})
    shown: list[float] = []

    def told() -> float:
        """How far the server's clock is from ours, by what it writes into a run that it makes, in seconds."""
        made = requests.post(f"{server.url}{API}experiments/create", json={"name": str(time.monotonic())}, timeout=30)
        found = {"experiment_id": made.json()["experiment_id"]}
        got = requests.get(f"{server.url}{API}experiments/get", params=found, timeout=30).json()
        return float(got["experiment"]["creation_time"]) / 1000 - time.time()

    with writing(server.url, 4) as running:
        for words, seconds in (("-1h", -3600), ("-30d", -30 * 86_400), ("+1d", 86_400), ("+0", 0)):
            running.wait_for_progress()
            offset.write_text(words)
            wait_until(lambda: abs(told() - seconds) < 60, f"the server's clock is {words}")  # noqa: B023
            shown.append(told())
            fault = time.monotonic()
            outcome.faults += 1
            outcome.back.append(running.back_after(fault))
    running.count(database, outcome)
    outcome.expect(min(shown) < -86_400, "the clock was never set back")
    outcome.nothing_lost()
    return outcome


def descriptors(field: Field) -> Outcome:
    """The worker has no file descriptor left for new connections; who is connected goes on."""
    outcome, database = Outcome("out of file descriptors"), field.database()
    server = field.serve(database)
    (worker,) = server.workers
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    _, most = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    with writing(server.url, 4) as running:
        for _ in range(10 if field.long else 2):
            running.wait_for_progress()
            resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (worker.num_fds() + 5, most))
            with contextlib.ExitStack() as stack:
                for _ in range(50):
                    connection = stack.enter_context(socket.socket())
                    connection.settimeout(5)
                    with contextlib.suppress(OSError):
                        connection.connect(address)
                        connection.send(b"GET /health HTTP/1.1\r\n")
                running.wait_for_progress()
                outcome.expect(_refuses(address), "a new connection was answered: there were descriptors left")
            resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (most, most))
            fault = time.monotonic()
            outcome.faults += 1
            wait_until(lambda: server.answers("/ready"), "a new connection is answered")
            outcome.back.append(time.monotonic() - fault)
    running.count(database, outcome)
    outcome.expect(server.workers == [worker], "the worker has ended")
    outcome.nothing_lost()
    return outcome


def _refuses(address: tuple[str, int]) -> bool:
    """Whether a new connection is ended, or not taken."""
    with socket.create_connection(address, 1) as connection:
        connection.settimeout(1)
        try:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return not connection.recv(100)
        except OSError:
            return True


def small_memory(field: Field) -> Outcome:
    """All of the server has 128 MB, under 32 writers, large batches and searches."""
    outcome, database = Outcome(f"{_MEGABYTES} MB of memory"), field.database()
    with _group() as group:
        if group is None:
            outcome.skipped = "no control group for memory can be made here"
            return outcome
        inside = ("sh", "-c", 'echo $$ > "$0"; exec "$@"', str(group / "cgroup.procs"))
        server = field.serve(database, under=inside)
        workers = server.workers
        until = time.monotonic() + (600 if field.long else 15)
        session = requests.Session()
        found = 0
        with writing(server.url) as running:
            while time.monotonic() < until:
                answer = session.post(
                    f"{server.url}{API}runs/search", json={"experiment_ids": ["0"], "max_results": 1000}, timeout=60
                )
                found += answer.status_code == 200
                outcome.wrong += answer.status_code != 200
        running.count(database, outcome)
        outcome.acknowledged += found
        outcome.notes.append(
            f"{_most_used(group) / 2**20:.0f} MiB at most, the files' cache included; {found} searches"
        )
        outcome.expect(server.workers == workers, "a worker was killed for want of memory")
        server.stop()
    outcome.nothing_lost()
    return outcome


@contextmanager
def _group() -> Iterator[Path | None]:
    """A control group with little memory; None where none can be made."""
    root = Path("/sys/fs/cgroup")
    first = (root / "memory").exists()  # version 1
    group = root / ("memory/headrace-drill" if first else "headrace-drill")
    try:
        group.mkdir()
    except OSError:
        yield None
        return
    try:
        (group / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(_MEGABYTES * 1_000_000))
    except OSError:  # version 2 without this controller
        group.rmdir()
        yield None
        return
    try:
        yield group
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text(), "the group is empty")
        group.rmdir()


def _most_used(group: Path) -> int:
    return max(int(file.read_text()) for file in group.glob("memory.*") if file.name in _PEAKS)


_PEAKS = ("memory.max_usage_in_bytes", "memory.peak")


def packet_loss(field: Field) -> Outcome:
    """5% of what goes to the database and comes from it is lost and sent again, as TCP does."""
    outcome, database = Outcome("5% of packets lost"), field.database()
    way = TcpProxy(field.postgres.port, loss=_LOSS)
    uri = f"postgresql://postgres@127.0.0.1:{way.port}/{database.name}"
    server = field.serve(Database("postgresql", database.name, uri))
    with writing(server.url, 4) as running:
        until = time.monotonic() + (600 if field.long else 15)
        while time.monotonic() < until:
            running.wait_for_progress(10)
    outcome.faults = way.lost
    outcome.notes.append(_quantiles(running))
    running.count(database, outcome)
    outcome.nothing_lost()
    return outcome


def packet_loss_s3(field: Field) -> Outcome:
    """5% of what goes to S3 and comes from it is lost and sent again; what is uploaded is read back."""
    outcome, database, s3 = Outcome("5% of packets lost, S3"), field.database(), start_moto(field.folder)
    way = TcpProxy(int(s3.url.rpartition(":")[2]), loss=_LOSS)
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
    try:
        boto3.client("s3", endpoint_url=s3.url, aws_access_key_id="k", aws_secret_access_key="s").create_bucket(
            Bucket="lossy"
        )
        server = field.serve(
            database,
            *("--artifacts-destination", "s3://lossy", "--artifact-transfer", "always-proxy"),
            env=keys | {"MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{way.port}"},
        )
        with writing(server.url, 4, [Files]) as running:
            until = time.monotonic() + (600 if field.long else 15)
            while time.monotonic() < until:
                running.wait_for_progress(4)
        outcome.faults = way.lost
        running.count(database, outcome)
    finally:
        s3.stop()
        way.stop()
    outcome.notes.append(_quantiles(running))
    outcome.nothing_lost()
    return outcome


def _quantiles(running: Writing) -> str:
    took = sorted(done - sent for each in running.writers for sent, done in each.times)
    return f"p50 {took[len(took) // 2] * 1000:.0f} ms, p99 {took[len(took) * 99 // 100] * 1000:.0f} ms"


def full_disk(field: Field) -> Outcome:
    """SQLite's disk is full, and then is not."""
    outcome = Outcome("full disk, SQLite")
    with _small_disk(field.folder / "disk", 24) as disk:
        if disk is None:
            outcome.skipped = "a small disk can't be made here"
            return outcome
        made = field.sqlite()
        shutil.copy(made.name, disk / "mlflow.db")
        database = Database("sqlite", str(disk / "mlflow.db"), f"sqlite:///{disk / 'mlflow.db'}")
        _fill_again_and_again(field, database, disk, outcome, lambda: None)
    return outcome


def full_disk_postgresql(field: Field) -> Outcome:
    """PostgreSQL's disk, data and log, is full, and then is not; a server that ends by it is started again."""
    outcome = Outcome("full disk, PostgreSQL")
    with _small_disk(field.folder / "disk-postgresql", 256) as disk:
        if disk is None:
            outcome.skipped = "a small disk can't be made here"
            return outcome
        field.folder.chmod(0o711)  # PostgreSQL's user goes through it
        postgres = Postgres(data=disk)
        try:
            postgres.start(max_wal_size="64MB", min_wal_size="32MB")
            databases = Databases(postgres, field.folder, field.folder)
            starts = 0

            def revive() -> None:
                nonlocal starts
                if not postgres.runs:
                    starts += 1
                    postgres.stop(signal.SIGQUIT)
                    postgres.start(max_wal_size="64MB", min_wal_size="32MB")

            _fill_again_and_again(field, databases.migrated("postgresql"), disk, outcome, revive)
            if starts:
                outcome.notes.append(f"PostgreSQL was started again {starts} times")
        finally:
            postgres.remove()
    return outcome


def _fill_again_and_again(
    field: Field, database: Database, disk: Path, outcome: Outcome, revive: Callable[[], None]
) -> None:
    server = field.serve(database)
    with writing(server.url, 4, [Metrics, Batches]) as running:
        for _ in range(5 if field.long else 2):
            running.wait_for_progress()
            ballast = disk / "ballast"
            with contextlib.suppress(OSError), ballast.open("wb") as file:
                while True:
                    file.write(b"x" * 65536)
                    file.flush()
            before = running.refused()
            wait_until(lambda: running.refused() > before, "the full disk is felt")  # noqa: B023
            ballast.unlink()
            revive()
            fault = time.monotonic()
            outcome.faults += 1
            outcome.back.append(running.back_after(fault))
    outcome.notes.append(f"{running.refused()} answers of 503")
    running.count(database, outcome)
    server.stop()
    outcome.nothing_lost()


@contextmanager
def _small_disk(disk: Path, megabytes: int) -> Iterator[Path | None]:
    """An empty disk of that size; None where none can be mounted."""
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", disk], capture_output=True)
    if made.returncode:
        yield None
        return
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=False)
