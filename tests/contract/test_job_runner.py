"""The lease of MLflow's job runner, on PostgreSQL; the runner itself is a process that does nothing."""

from __future__ import annotations

import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest

from headrace.stock.jobs import JobRunner
from tests.support.databases import Databases
from tests.support.processes import wait_until

Make = Callable[[], JobRunner]


@pytest.fixture
def make(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """The threads of servers on one database, whose leases last a second."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SQLAlchemy's of MLflow
        from mlflow.server import handlers
        from mlflow.server.jobs import lock_manager, utils  # noqa: F401
        from mlflow.store.jobs.sqlalchemy_store import SqlAlchemyJobStore

        store = SqlAlchemyJobStore(databases.migrated("postgresql").uri)

    def launch(environment: dict[str, str], parent: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["tail", "-f", "/dev/null"])

    monkeypatch.setattr(handlers, "_job_store", store)
    monkeypatch.setattr(utils, "_job_name_to_fn_fullname_map", {})
    monkeypatch.setattr(utils, "_launch_job_execution_runner", launch)
    made: list[JobRunner] = []

    def make() -> JobRunner:
        made.append(runner := JobRunner({}))
        runner._seconds = 1
        runner.start()
        return runner

    yield make
    for each in made:
        each.end()
        each.join()


def looked(runner: JobRunner) -> None:
    """Wait until it has looked once more, from the beginning."""
    done, look = threading.Semaphore(0), runner._look

    def once_more() -> None:
        look()
        done.release()

    runner._look = once_more  # type: ignore[method-assign]
    assert done.acquire(timeout=30)
    runner._look = look  # type: ignore[method-assign]


def test_another_has_it_after_the_first(make: Make) -> None:
    first, second = make(), make()
    wait_until(lambda: first.is_here or second.is_here, "one has it")
    if second.is_here:
        first, second = second, first
    process = first._process
    assert process is not None
    looked(second)
    assert not second.is_here
    first.end()
    assert process.wait(10) != 0
    wait_until(lambda: second.is_here, "the second has it")
    assert not first.is_here


def test_a_process_that_has_ended_is_started_again(make: Make) -> None:
    runner = make()
    wait_until(lambda: runner.is_here, "it is there")
    before = runner._process
    assert before is not None
    before.kill()
    wait_until(lambda: runner._process is not before, "there is another one")


def test_a_silent_database_ends_the_process_within_its_lease(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make()
    wait_until(lambda: first.is_here, "the first has it")
    process, leases, speaks = first._process, first._leases, threading.Event()
    assert process is not None
    assert leases is not None
    monkeypatch.setattr(leases, "renew_scheduler_lease", lambda *_: speaks.wait(60) and None)
    try:
        second = make()
        wait_until(lambda: second.is_here, "the second has it")
        assert process.poll() is not None
        assert not first.is_here
    finally:
        speaks.set()


def test_a_lease_that_another_has_taken_ends_the_process(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make()
    wait_until(lambda: first.is_here, "it has it")
    process, leases = first._process, first._leases
    assert process is not None
    assert leases is not None
    monkeypatch.setattr(leases, "renew_scheduler_lease", lambda *_: None)
    monkeypatch.setattr(leases, "acquire_scheduler_lease", lambda *_: None)
    assert process.wait(10) != 0
    assert not first.is_here
