"""What a request names: every value under every name that stock might read."""

from __future__ import annotations

import pytest

from headrace.auth.objects import Named, named
from headrace.errors import Forbidden


def found(target: str, query: bytes = b"", body: bytes = b"", **parameters: str) -> list[Named]:
    return named(target, parameters, query, body, {})


def test_every_name_and_place_counts() -> None:
    body = b'{"run_id": "a", "runId": "b", "run_uuid": "c", "run_id": "d", "models": [{"model_id": "m"}]}'
    assert found("run", b"run_id=e&run_ids=f&run_ids=g", body) == [
        Named("logged-model", "m"),
        *(Named("run", name) for name in "abcdefg"),
    ]
    assert found("trace", trace_id="t") == [Named("trace", "t")]
    assert found("experiment", body=b'{"experiment_ids": [1, "2"]}') == [
        Named("experiment", "1"),
        Named("experiment", "2"),
    ]


@pytest.mark.parametrize(
    ("target", "query", "body"),
    [
        ("run", b"", b""),
        ("run", b"", b"{}"),
        ("run", b"", b'{"run_id": {"run_id": 1.5}}'),
        ("run", b"", b'{"run_id": true}'),
        ("run", b"", b'{"run_id": "a\\u0000"}'),
        ("run", b"", b"\xff"),
        ("run", b"run_id=%ff", b""),
        ("run", b"", b"[" * 100_000),
        ("run", b"", b'{"a":' * 40 + b'{"run_id": "a"}' + b"}" * 40),
        ("folder", b"", b""),
        ("folder", b"path=../1", b""),
        ("model-source", b"", b'{"name": "m", "source": "s3://bucket/1/model"}'),
        ("new-experiment", b"", b'{"name": "e", "artifactLocation": "mlflow-artifacts:/1"}'),
    ],
)
def test_what_can_not_be_checked_is_refused(target: str, query: bytes, body: bytes) -> None:
    with pytest.raises(Forbidden):
        found(target, query, body)


@pytest.mark.parametrize("path", ["1", "1/", "1/run/artifacts/a b.txt", "12/models/m-1/MLmodel", "1/..a", "1/a..b"])
def test_a_path_is_in_its_experiments_folder(path: str) -> None:
    assert found("path", path=path)[0] == Named("experiment", path.partition("/")[0])


@pytest.mark.parametrize(
    "path", ["", "a/1", "../1", "1/..", "1/../2", "1/./2", "1//2", "1/%2e%2e/2", "1\\2", "1/a\\..\\2", "workspaces/w/1"]
)
def test_a_path_that_is_in_none(path: str) -> None:
    with pytest.raises(Forbidden):
        found("path", path=path)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("runs:/r/model", Named("run", "r")),
        ("models:/m-1", Named("logged-model", "m-1")),
        ("mlflow-artifacts:/3/r/artifacts/model", Named("experiment", "3")),
    ],
)
def test_the_source_of_a_model_version(source: str, expected: Named) -> None:
    assert expected in found("model-source", body=b'{"name": "n", "source": "%b"}' % source.encode())
