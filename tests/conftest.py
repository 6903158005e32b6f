"""Shared fixtures: one PostgreSQL server and one S3 server a session, and fresh databases.

Servers of MLflow and Headrace are started with `tests.support.servers`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from headrace.child import importing
from tests.support.databases import Databases
from tests.support.postgres import Postgres
from tests.support.servers import Server, start_moto

WORKER = "PYTEST_XDIST_WORKER"  # set in pytest-xdist's workers
# The groups that take longest, in this order: they are begun first, so that no worker has one alone at the end.
LONGEST = (
    "postgresql",
    "sqlite",
    "tests/browser",
    "tests/aws/test_commands.py",
    "tests/aws/test_resuming.py",
    "tests/differential/test_artifacts.py",
    "tests/aws/test_restored_rows.py",
    "tests/contract/test_copy.py",
    "tests/container/test_slim.py",
    "tests/release/test_release.py",
    "tests/aws/test_second_opinion.py",
    "tests/container/test_environment.py",
    "tests/server/test_artifacts.py",
    "tests/server/test_copy.py",
    "tests/server/test_jobs.py",
    "tests/server/test_stock.py",
    "tests/server/test_faults.py",
)

# A shell that runs the tests in the background (`make test &`, some CI) has SIGINT ignored, and so would have every
# program that they start and then interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# So it is with SIGHUP under nohup. A handler that does nothing is only ours: a program that starts has the default.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


# The tests write 7 GB, which on a disk costs the kernel a twentieth of all processor time. In memory, where there is
# room for it, and for all else that runs.
MEMORY, ROOM_BYTES = Path("/dev/shm"), 16_000_000_000
made: str | None = None  # by this process, for all of pytest-xdist's workers
room = min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available) if MEMORY.is_dir() else 0
if "TMPDIR" not in os.environ and room > ROOM_BYTES:
    made = tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="tests-", dir=MEMORY)
    os.chmod(made, 0o711)  # PostgreSQL's user enters it, too

# As in the Makefile, for who runs pytest alone: a process that keeps no bytecode compiles MLflow anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def group_of(nodeid: str) -> str:
    """What runs on one of pytest-xdist's workers: the tests that share servers, so that each starts once.

    Differential tests share stock and Headrace of one backend, browser tests the browser; the others share what their
    module starts.
    """
    module, _, test = nodeid.partition("::")
    if module.startswith("tests/browser/"):
        return "tests/browser"
    backend = re.search(r"\[(postgresql|sqlite)\b", test)
    return backend[1] if backend and module.startswith("tests/differential/") else module


class ByGroup(LoadScopeScheduling):  # type: ignore[misc]
    """pytest-xdist's own `--dist loadgroup` does nothing with pytest 9.2, which has no node id that can be set."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByGroup:
    return ByGroup(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Three more than there are cores, as tests wait for servers; at most 5, as each has servers of its own."""
    return min((os.cpu_count() or 1) + 3, 5)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Each worker imports all tests, and MLflow with them."""
    with importing():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of the groups, with --no-loadscope-reorder."""
    if WORKER in os.environ:
        places = {group: place for place, group in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(group_of(item.nodeid), len(places)))


def pytest_sessionfinish(exitstatus: int) -> None:
    """What a failed test has left in memory stays for who looks for the reason."""
    if made is not None and exitstatus == pytest.ExitCode.OK:
        shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Hundreds of tests run one after the other in this process: what one changes of it is undone for the next."""
    variables, folder, path = dict(os.environ), os.getcwd(), [*sys.path]
    os.umask(mask := os.umask(0o022))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in variables.items() if os.environ.get(name) != value})
    os.chdir(folder)
    os.umask(mask)
    sys.path[:] = path
    socket.setdefaulttimeout(None)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    if "mlflow.tracking.fluent" in sys.modules:
        vars(sys.modules["mlflow.tracking._tracking_service.utils"])["_tracking_uri"] = None
        vars(sys.modules["mlflow.tracking.fluent"])["_active_experiment_id"] = None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running server; a test that stops it makes its own `Postgres()`."""
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def made_by_stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Databases' `shared` folder: one for all of pytest-xdist's workers, whose own temporary folders lie in one."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if WORKER in os.environ else folder) / "made-by-stock"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def databases(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory, made_by_stock: Path) -> Databases:
    return Databases(postgres, tmp_path_factory.mktemp("databases"), made_by_stock)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Moto's S3 server, empty."""
    server = start_moto(tmp_path_factory.mktemp("moto"))
    yield server
    server.stop()
