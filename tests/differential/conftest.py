"""Stock and Headrace side by side, each on a fresh database of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.differential.harness import Case, Subject, Transcript
from tests.differential.reading import Readers, open_readers
from tests.support.databases import BACKENDS, Backend, Database, Databases
from tests.support.servers import Server, start_headrace, start_stock


@dataclass(frozen=True)
class Pair:
    backend: Backend
    stock: Subject
    headrace: Subject
    _expected: dict[str, Transcript] = field(default_factory=dict)

    def expected(self, case: Case) -> Transcript:
        """What stock makes of a case; it is asked once."""
        if case.name not in self._expected:
            self._expected[case.name] = self.stock.play(case)
        return self._expected[case.name]


@pytest.fixture(scope="session", params=BACKENDS)
def pair(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    backend: Backend = request.param
    with ExitStack() as stack, ThreadPoolExecutor() as pool:

        def subject(start: Callable[[Database, Path], Server]) -> Subject:
            database = databases.migrated(backend)
            server = start(database, tmp_path_factory.mktemp("differential"))
            stack.callback(server.stop)
            return stack.enter_context(closing(Subject(server, database)))

        stock, headrace = pool.map(subject, (start_stock, start_headrace))
        yield Pair(backend, stock, headrace)


@pytest.fixture(scope="session", params=BACKENDS)
def readers(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Readers]:
    """Stock and Headrace on one database, which the tests only read."""
    with open_readers(request.param, databases, tmp_path_factory.mktemp("reading")) as readers:
        yield readers
