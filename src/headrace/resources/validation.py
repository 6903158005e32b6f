"""MLflow's rules for what may be logged (mlflow/utils/validation.py): whatever breaks one is declined.

Stock then refuses it in its own words, or shortens it (MLFLOW_TRUNCATE_LONG_VALUES).
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from headrace.db.base import MetricRow
from headrace.errors import Malformed

MAX_KEY_LENGTH = 250
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000
MAX_METRICS = 1000
MAX_PARAMS_OR_TAGS = 100
MAX_ENTITIES = 1000
MAX_FLOAT = 1.7976931348623157e308

_RUN_ID = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_\-]{0,31}\Z")
_EXPERIMENT_ID = re.compile(r"(0|[1-9][0-9]{0,8})\Z")
_KEY = re.compile(r"^[/\w.\- :]*\Z")


class _KeyValue(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def value(self) -> str: ...


class _Metric(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def value(self) -> float | str: ...
    @property
    def timestamp(self) -> int | str: ...
    @property
    def step(self) -> int | str: ...


def require(condition: bool, why: str) -> None:
    """Raise Declined unless the condition holds."""
    if not condition:
        raise Malformed(why)


def run_id(value: str) -> str:
    """A run id that the `runs` table can hold."""
    require(_RUN_ID.match(value) is not None, "not a run id")
    return value


def experiment_id(value: str) -> int:
    """An experiment id in plain digits."""
    require(_EXPERIMENT_ID.match(value) is not None, "not a number of an experiment")
    return int(value)


@lru_cache(maxsize=4096)
def _is_key(key: str) -> bool:
    """_validate_metric_name, _validate_param_name and _validate_tag_name, with the length limit."""
    if not 0 < len(key) <= MAX_KEY_LENGTH or not _KEY.match(key):
        return False
    normal = posixpath.normpath(key)
    return normal == key and normal != "." and not normal.startswith(("..", "/"))


def key(value: str) -> str:
    """A key of a metric, a param or a tag."""
    require(_is_key(value), "not a key that MLflow takes")
    return value


def text(value: str, limit: int) -> str:
    """A value that the database can hold as it is."""
    require(len(value) <= limit and "\0" not in value, "too long, or has a NUL character")
    return value


def integer(value: int | str) -> int:
    """A 64-bit integer, which JSON may carry as a string."""
    number = int(value)
    require(-(2**63) <= number < 2**63, "not a 64-bit integer")
    return number


def metric(given: _Metric) -> MetricRow:
    """A metric as it is stored (SqlAlchemyStore.sanitize_metric_value, _validate_metric)."""
    timestamp, value = given.timestamp, given.value
    # the usual case first: a batch has a thousand of them
    if _is_key(given.key) and type(timestamp) is int and timestamp >= 0 and type(value) is float:
        step = given.step
        if type(step) is int and -MAX_FLOAT <= value <= MAX_FLOAT:
            return MetricRow(given.key, value, timestamp, step)
    key(given.key)
    timestamp = integer(given.timestamp)
    require(timestamp >= 0, "a negative timestamp")
    value = float(given.value)
    if math.isfinite(value):
        return MetricRow(given.key, value, timestamp, integer(given.step))
    if value != value:
        return MetricRow(given.key, 0.0, timestamp, integer(given.step), True)
    return MetricRow(given.key, math.copysign(MAX_FLOAT, value), timestamp, integer(given.step))


def params(given: Sequence[_KeyValue]) -> tuple[tuple[str, str], ...]:
    """Params with distinct keys (_validate_param, _validate_param_keys_unique)."""
    pairs = tuple((key(param.key), text(param.value, MAX_PARAM_LENGTH)) for param in given)
    require(len(dict(pairs)) == len(pairs), "repeated params")
    return pairs


def tags(given: Sequence[_KeyValue]) -> tuple[tuple[str, str], ...]:
    """Tags of a run (_validate_tag); a new mlflow.runName must fit runs.name."""
    return tuple((key(tag.key), _tag_value(tag.key, tag.value)) for tag in given)


def _tag_value(name: str, value: str) -> str:
    return text(value, MAX_KEY_LENGTH if name == "mlflow.runName" else MAX_TAG_LENGTH)


def batch_limits(metrics: int, params: int, tags: int) -> None:
    """_validate_batch_log_limits."""
    within = metrics <= MAX_METRICS and params <= MAX_PARAMS_OR_TAGS and tags <= MAX_PARAMS_OR_TAGS
    require(within and metrics + params + tags <= MAX_ENTITIES, "over a limit of log-batch")
