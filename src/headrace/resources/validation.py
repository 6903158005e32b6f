"""MLflow's rules for what may be logged (mlflow/utils/validation.py), and its words for what breaks one.

Each check has a quick way for what is right, and only for what is not looks for the words.
"""

from __future__ import annotations

import math
import os
import posixpath
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from headrace.api.message import SEE_DOCS, invalid, missing
from headrace.errors import InvalidParameter, NotFound
from headrace.resources.runs.log_plan import MetricRow

MAX_KEY_LENGTH = 250
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000
MAX_METRICS = 1000
MAX_PARAMS_OR_TAGS = 100
MAX_ENTITIES = 1000
MAX_FLOAT = 1.7976931348623157e308

_RUN_ID = re.compile(r"^[a-zA-Z0-9][\w\-]{0,255}$")
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,4300}\s*")
_KEY = re.compile(r"^[/\w.\- :]*$")
# MLFLOW_TRUNCATE_LONG_VALUES: params and tags that are too long are cut, unless it is false
_TRUNCATES = os.environ.get("MLFLOW_TRUNCATE_LONG_VALUES", "true").lower() in ("true", "1")


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
    def timestamp(self) -> int: ...
    @property
    def step(self) -> int: ...


def too_long(name: str, limit: int) -> InvalidParameter:
    """exceeds_maximum_length."""
    return InvalidParameter(f"'{name}' exceeds the maximum length of {limit} characters")


def run_id(value: str, path: str = "run_id") -> str:
    """_validate_run_id."""
    if _RUN_ID.match(value) is None:
        raise invalid(path, value)
    return value


def max_results(limit: int, most: float = math.inf) -> None:
    """SqlAlchemyStore._validate_max_results_param. Raises InvalidParameter."""
    if not 1 <= limit <= most:
        rule = "a positive integer" if limit < 1 else f"at most {most}"
        raise InvalidParameter(f"Invalid value {limit} for parameter 'max_results' supplied. It must be {rule}")


def experiment_id(value: str) -> int:
    """_parse_experiment_id. Raises InvalidParameter; NotFound for a number that the column can't hold."""
    number = _experiment_number(value)
    if not -(2**31) <= number < 2**31:
        raise NotFound(f"No Experiment with id={number} exists")
    return number


def experiment_ids(values: Sequence[str]) -> list[int]:
    """Those that the column can hold, each once, in order: others are ids of no experiment."""
    return sorted({number for number in map(_experiment_number, values) if -(2**31) <= number < 2**31})


def _experiment_number(value: str) -> int:
    if not _INTEGER.fullmatch(value):
        raise InvalidParameter(f"Invalid experiment ID '{value[:100]}'. Experiment ID must be a valid integer.")
    return int(value)


@lru_cache(maxsize=4096)
def _is_key(key: str) -> bool:
    """_validate_metric_name, _validate_param_name and _validate_tag_name, with the length limit."""
    if not 0 < len(key) <= MAX_KEY_LENGTH or not _KEY.match(key) or key.endswith("\n"):
        return False
    normal = posixpath.normpath(key)
    return normal == key and normal != "." and not normal.startswith(("..", "/"))


def key(value: str, path: str = "key", length_of: str = "key") -> str:
    """A key of a metric, a param or a tag; `length_of`: what its length is called."""
    if not _is_key(value):
        raise _bad_key(value, path, length_of)
    return value


def _bad_key(value: str, path: str, length_of: str) -> InvalidParameter:
    if not value and "[" in path:  # of a batch
        return missing(path.replace("].name", "].key"))
    if not _KEY.match(value) or value.endswith("\n"):
        reason = (
            "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and"
            " slashes (/)."
        )
        return invalid(path, value, reason)
    normal = posixpath.normpath(value)
    if normal != value or normal == "." or normal.startswith(("..", "/")):
        reason = (
            "Names may be treated as files in certain cases, and must not resolve to other names when treated as such."
            f" This name would resolve to {normal!r}"
        )
        return invalid(path, value, reason)
    return too_long(length_of, MAX_KEY_LENGTH)


def text(value: str, limit: int, name: str) -> str:
    """A value that the database can hold as it is. Raises InvalidParameter for one that is too long or has a NUL."""
    if len(value) > limit:
        raise too_long(name, limit)
    return without_nul(value, name)


def without_nul(value: str, name: str) -> str:
    """The text, which PostgreSQL can hold. Raises InvalidParameter."""
    if "\0" in value:
        raise invalid(name, value, "It has a NUL character, which the database can't hold.")
    return value


def shortened(value: str, limit: int, name: str) -> str:
    """The value, cut to the limit where MLFLOW_TRUNCATE_LONG_VALUES lets it (_validate_length_limit)."""
    if len(value) > limit:
        if not _TRUNCATES:
            raise too_long(name, limit)
        value = value[:limit]
    return without_nul(value, "value")


def metric(given: _Metric, path: str = "") -> MetricRow:
    """A metric as it is stored (_validate_metric, SqlAlchemyStore.sanitize_metric_value)."""
    value = given.value
    # the usual case first: a batch has a thousand of them
    if _is_key(given.key) and given.timestamp >= 0 and type(value) is float and -MAX_FLOAT <= value <= MAX_FLOAT:
        return MetricRow(given.key, value, given.timestamp, given.step)
    prefix = f"{path}." if path else ""
    key(given.key, f"{prefix}name", "Metric name")
    if given.timestamp < 0:
        reason = f"metric '{given.key}' (value={value}). Timestamp must be a nonnegative long (64-bit integer) "
        raise invalid(f"{prefix}timestamp", given.timestamp, reason)
    value = float(value)
    if math.isfinite(value):
        return MetricRow(given.key, value, given.timestamp, given.step)
    if math.isnan(value):
        return MetricRow(given.key, 0.0, given.timestamp, given.step, True)
    return MetricRow(given.key, math.copysign(MAX_FLOAT, value), given.timestamp, given.step)


def metrics(given: Sequence[_Metric]) -> tuple[MetricRow, ...]:
    """The metrics of a batch."""
    try:
        return tuple(map(metric, given))
    except InvalidParameter:  # once more, to say which
        return tuple(metric(each, f"metrics[{place}]") for place, each in enumerate(given))


def param(given: _KeyValue, path: str = "key") -> tuple[str, str]:
    """_validate_param."""
    name = key(given.key, path, "Param key")
    return name, shortened(given.value, MAX_PARAM_LENGTH, "Param value")


def params(given: Sequence[_KeyValue]) -> tuple[tuple[str, str], ...]:
    """Params with distinct keys (_validate_param, _validate_param_keys_unique)."""
    pairs = tuple(param(each, f"params[{place}].key") for place, each in enumerate(given))
    if len(dict(pairs)) != len(pairs):
        keys = [name for name, _ in pairs]
        again = [name for place, name in enumerate(keys) if name in keys[:place]]
        raise InvalidParameter(
            f"Duplicate parameter keys have been submitted: {again}. Please ensure "
            "the request contains only one param value per param key."
        )
    return pairs


def tag(given: _KeyValue, path: str = "") -> tuple[str, str]:
    """_validate_tag; a new mlflow.runName must fit runs.name, too."""
    prefix = f"{path}." if path else ""
    name = key(given.key, f"{prefix}key", f"{prefix}key")
    if name == "mlflow.runName":
        return name, text(given.value, MAX_KEY_LENGTH, "run_name")
    return name, shortened(given.value, MAX_TAG_LENGTH, f"{prefix}value")


def tags(given: Sequence[_KeyValue]) -> tuple[tuple[str, str], ...]:
    """Tags of a run."""
    return tuple(tag(each, f"tags[{place}]") for place, each in enumerate(given))


def batch_limits(metrics: int, params: int, tags: int) -> None:
    """_validate_batch_log_limits."""
    for count, limit, what in (
        (metrics, MAX_METRICS, "metrics"),
        (params, MAX_PARAMS_OR_TAGS, "params"),
        (tags, MAX_PARAMS_OR_TAGS, "tags"),
        (metrics + params + tags, MAX_ENTITIES, "metrics, params, and tags"),
    ):
        if count > limit:
            raise InvalidParameter(
                f"A batch logging request can contain at most {limit} {what}. Got {count} {what}. "
                f"Please split up {what} across multiple requests and try again."
            )


def hint(field: str, value: object, kind: str) -> InvalidParameter:
    """handlers._validate_param_against_schema of a value that is not as it must be."""
    error = invalid(field, value, f" Hint: Value was of type '{kind}'.")
    return InvalidParameter(str(error) + SEE_DOCS)
