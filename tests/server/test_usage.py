"""`headrace usage` beside a server, as who operates it types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests

from headrace.cli.usage import _size
from tests.server.conftest import Serve, run_headrace
from tests.server.test_gc import call, make_run
from tests.support.databases import Databases


def test_usage(serve: Serve, databases: Databases, tmp_path: Path) -> None:
    database, artifacts = databases.migrated("sqlite"), tmp_path / "artifacts"
    stores = ["--backend-store-uri", database.uri, "--artifacts-destination", str(artifacts)]
    server = serve(*stores, "--stock", "never", until="/ready")
    experiment = call(server, "experiments/create", name="vision")["experiment_id"]
    run = make_run(server, experiment)
    big = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/big"
    assert requests.put(big, data=bytes(3_000_000), timeout=60).status_code == 200

    done = run_headrace("usage", *stores, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    header, first, second = done.stdout.splitlines()
    assert header.split() == (
        [
            "id",
            "experiment",
            "runs",
            "metrics",
            "params",
            "tags",
            "logged_models",
            "traces",
            "spans",
            "database",
            "files",
            "artifacts",
        ]
    )
    assert first.split()[:4] == ["1", "vision", "1", "1"]
    assert first.split()[-3:] == ["2", "3", "MB"]
    assert second.split()[:2] == ["0", "Default"]
    found = json.loads(run_headrace("usage", *stores, "--json", "--experiment", "vision", cwd=tmp_path).stdout)
    assert [(each["experiment_id"], each["artifact_bytes"]) for each in found] == [(1, 3_000_001)]
    done = run_headrace("usage", *stores, "--experiment", "sound", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "headrace: There is no experiment sound. `headrace usage` shows which there are.\n"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(None, None), (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_234_567, "1.23 MB"), (999_999, "1 MB"),
     (45_600_000_000, "45.6 GB"), (2_500_000_000_000, "2.5 TB")],
)  # fmt: skip
def test_sizes_for_people(count: int | None, shown: str | None) -> None:
    assert _size(count) == shown
