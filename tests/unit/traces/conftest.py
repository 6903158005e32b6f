"""Two databases of stock's making: one for stock's code, one for ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import Database
from tests.support.traces import Pair


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder: Path = tmp_path_factory.mktemp("traces")
    files = folder / "stock.db", folder / "ours.db"
    pair = Pair(*(Database("sqlite", str(file), f"sqlite:///{file}") for file in files))
    yield pair
    pair.close()
