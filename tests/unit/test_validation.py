"""Our copy of MLflow's rules never takes what stock refuses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name, _validate_run_id, _validate_tag

from headrace.errors import InvalidParameter
from headrace.resources import validation as valid

KEY_LIKE = st.one_of(
    st.text(alphabet="ab/._- :é\n\0\\%", max_size=8), st.sampled_from([".", "..", "a/../b", "/a", "a//b", "x" * 251])
)


@given(KEY_LIKE)
def test_keys(key: str) -> None:
    try:
        valid.key(key)
    except InvalidParameter:
        return
    _validate_metric_name(key)
    _validate_tag(key, "value")


@given(st.text(alphabet="aZ09-_ .é\n", max_size=40))
def test_run_ids(run_id: str) -> None:
    try:
        valid.run_id(run_id)
    except InvalidParameter:
        return
    _validate_run_id(run_id)


def test_plain_keys_are_not_refused() -> None:
    for key in ("loss", "val/loss", "a b", "a:b", "é", "x" * 250):
        valid.key(key)
        _validate_metric_name(key)
