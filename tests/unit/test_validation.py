"""Our copy of MLflow's rules never takes what stock refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name, _validate_run_id, _validate_tag

from headrace import wire
from headrace.errors import Declined
from headrace.resources import validation as valid

KEY_LIKE = st.one_of(
    st.text(alphabet="ab/._- :é\n\0\\%", max_size=8), st.sampled_from([".", "..", "a/../b", "/a", "a//b", "x" * 251])
)


@given(KEY_LIKE)
def test_keys(key: str) -> None:
    try:
        valid.key(key)
    except Declined:
        return
    _validate_metric_name(key)
    _validate_tag(key, "value")


@given(st.text(alphabet="aZ09-_ .é\n", max_size=40))
def test_run_ids(run_id: str) -> None:
    try:
        valid.run_id(run_id)
    except Declined:
        return
    _validate_run_id(run_id)


def test_plain_keys_are_not_declined() -> None:
    for key in ("loss", "val/loss", "a b", "a:b", "é", "x" * 250):
        valid.key(key)
        _validate_metric_name(key)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"{}"',
        b"{",
        b'{"run_id": "r", "key": "k", "value": 1}',
        b'{"run_id": "r", "key": "k", "value": 1e400, "timestamp": 1}',
        b'{"run_id": "r", "key": "k", "value": NaN, "timestamp": 1}',
        b'{"run_id": "r", "key": "k", "value": "nan", "timestamp": 1}',
        b'{"run_id": "r", "key": "k", "value": true, "timestamp": 1}',
        b'{"run_id": "r", "key": "k", "value": 1, "timestamp": 1.5}',
        b'{"run_id": "r", "key": "k", "value": 1, "timestamp": 9223372036854775808}',
        b'{"run_id": "r", "key": "k", "value": 1, "timestamp": "1e3"}',
        b'{"run_id": "r", "key": "k", "value": 1, "timestamp": "01"}',
        b'{"run_id": "r", "key": "k", "value": 1, "timestamp": null}',
        b'{"run_id": "r", "key": "k", "value": 1, "timestamp": 1, "model_id": "m"}',
        b'{"run_id": "r", "key": "k", "value": 1, "timestamp": 1, "unknown": 1}',
        b'{"runId": "r", "key": "k", "value": 1, "timestamp": 1}',
        b'{"run_id": "r", "key": "\\ud800", "value": 1, "timestamp": 1}',
        b'{"run_id": "r", "key": "\xff", "value": 1, "timestamp": 1}',
        b'{"run_id": "r", "key": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_bodies_that_are_left_to_stock(body: bytes) -> None:
    with pytest.raises(Declined):
        wire.decode(wire.decoder(wire.LogMetric), body)


@pytest.mark.parametrize("value", [1, 1.5, "NaN", "Infinity", "-Infinity", 2**70, -0.0])
@pytest.mark.parametrize("timestamp", [0, "0", "1700000000000", 2**63 - 1, "9223372036854775807"])
def test_bodies_that_are_answered(value: float | str, timestamp: int | str) -> None:
    body = wire.encode({"run_id": "r", "key": "k", "value": value, "timestamp": timestamp, "run_uuid": "r"})
    row = valid.metric(wire.decode(wire.decoder(wire.LogMetric), body))
    assert row.timestamp == int(timestamp)
    assert row.is_nan == (value == "NaN")
    assert abs(row.value) <= valid.MAX_FLOAT
