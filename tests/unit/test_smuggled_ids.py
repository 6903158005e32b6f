"""Every declared endpoint x every way to name another object beside the one that is checked.

A sender with limited rights names MINE where the declaration says that the id is, and THEIRS in some other way. It is
refused, or what the handler and stock get has no THEIRS that was not checked. What rights roles and grants give is in
tests/unit/auth; trailers are in tests/unit/asgi/test_early_answers.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, unquote_plus

import msgspec
import pytest
from msgspec import inspect

from headrace.api.decode import decode, rewrite
from headrace.api.endpoint import Endpoint, Router
from headrace.api.permits import Permit
from headrace.asgi.types import Scope
from headrace.auth.objects import Target
from headrace.errors import Forbidden, InvalidParameter, NotFound
from headrace.resources import all_endpoints
from headrace.settings import Settings
from tests.support.messages import minimal, value_of

MINE, THEIRS = "11111", "31337"
ROUTER = Router(all_endpoints(Settings()), "")
# what names an object in some message of MLflow's
NAMES = (
    *("run_id", "run_uuid", "runId", "run_ids", "experiment_id", "experimentId", "experiment_ids", "experimentIds"),
    *("experiment_name", "model_id", "modelId", "trace_id", "traceId", "request_id", "requestId", "name", "path"),
    *("dataset_id", "datasetId", "source", "source_run_id", "sourceRunId", "version", "locations"),
)
DECLARED = [
    each for each in all_endpoints(Settings()) if each.target.checked and each.right.name in ("READ", "EDIT", "MANAGE")
]


# Fields that are texts of their owner's, or say more of an object that is checked, and name nothing of others'.
TEXTS: dict[str, set[str]] = {
    "2.0/mlflow/get-trace-artifact": {"path"},  # below the folder of the trace, or the run, that is checked
    "3.0/mlflow/get-trace-artifact": {"path"},
    "/get-artifact": {"path"},
    "2.0/mlflow/artifacts/list": {"path"},
    "2.0/mlflow/artifacts/presigned-upload-url": {"path"},
    "2.0/mlflow/artifacts/presigned-download-url": {"path"},
    "2.0/mlflow/upload-artifact": {"path"},
    "2.0/mlflow/logged-models": {"name"},
    "3.0/mlflow/datasets/create": {"name", "source"},
    "3.0/mlflow/issues": {"name"},
    "3.0/mlflow/issues/{issue_id}": {"name"},
    "3.0/mlflow/label-schemas/create": {"name"},
    "3.0/mlflow/label-schemas/update": {"name"},
    "3.0/mlflow/review-queues/update": {"name"},
    "3.0/mlflow/label-schemas/get-by-name": {"name"},  # of the experiment that is checked, as are those below
    "3.0/mlflow/review-queues/create": {"name"},
    "3.0/mlflow/review-queues/get-by-name": {"name"},
    "3.0/mlflow/scorers/register": {"name"},
    "3.0/mlflow/scorers/versions": {"name"},
    "3.0/mlflow/scorers/get": {"name", "version"},
    "3.0/mlflow/scorers/delete": {"name", "version"},
    "3.0/mlflow/scorers/online-config": {"name"},
    "3.0/mlflow/traces/batchGet": {"experiment_ids", "experimentIds"},  # narrow the traces that are checked
    "3.0/mlflow/traces/batchGetInfos": {"experiment_ids", "experimentIds"},
    "2.0/mlflow/runs/log-batch": {"metrics.run_id"},  # of answers; the run is the batch's
    # of a model's source that is checked; what is beside it must agree with it (resources/model_versions/source.py)
    "2.0/mlflow/model-versions/create": {"model_id", "modelId"},
    "/model-versions/get-artifact": {"version", "path"},  # the version is checked as "version/name"
    "2.0/mlflow/traces/link-prompts": {"prompt_versions.version", "prompt_versions.name"},  # written as a tag
}
# Messages that need more than MINE in every text to be good.
GOOD: dict[str, dict[str, Any]] = {
    "2.0/mlflow/model-versions/create": {"source": f"runs:/{MINE}/a"},
    "/model-versions/get-artifact": {"version": "1"},
    "3.0/mlflow/traces": {
        "trace": {
            "trace_info": {
                "trace_id": MINE,
                "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": MINE}},
                "request_time": "2026-01-01T00:00:00Z",
                "state": "OK",
            }
        }
    },
    "3.0/mlflow/traces/search": {
        "locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": MINE}}]
    },
}

# Fields that may hold anything, so that the decoding of a message does not see what they name; each was looked at: what
# stock, or the handler, does with the ids in it.
UNTYPED: dict[str, set[str]] = {
    # values, and a number or a name
    "3.0/mlflow/traces/{trace_id}/assessments": {
        "assessment.expectation.value", "assessment.feedback.value", "assessment.source.source_type"},
    "3.0/mlflow/traces/{trace_id}/assessments/{assessment_id}": {
        "assessment.expectation.value", "assessment.feedback.value", "assessment.source.source_type"},
    # nobody looks at the spans; ids of assessments are looked up (test_grants.py)
    "3.0/mlflow/traces": {"trace.spans", "trace.trace_info.assessments"},
    # paths below what is checked, pages of it, and numbers; an upload's id is S3's, and no other upload's
    "/get-artifact": {"page_token", "path"},
    "2.0/mlflow/artifacts/list": {"page_token", "path"},
    "2.0/mlflow/artifacts/presigned-upload-url": {"expiration", "path"},
    "2.0/mlflow/artifacts/presigned-download-url": {"expiration", "path"},
    "2.0/mlflow/upload-artifact": {"path"},
    **{f"2.0/mlflow-artifacts/mpu/{what}/{{path:path}}": {"num_parts", "parts", "upload_id"}
       for what in ("create", "complete", "abort")},
    "2.0/mlflow/logged-models/{model_id}/artifacts/directories": {"artifact_directory_path", "page_token"},
    "2.0/mlflow/logged-models/{model_id}/artifacts/files": {"artifact_file_path"},
    "/model-versions/get-artifact": {"path"},
}  # fmt: skip


class Limited:
    """The permit of a sender whose rights are limited, as decode and rewrite see it."""

    exact = True


@dataclass
class Request:
    """As it comes."""

    method: str
    path: str
    query: str = ""
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


def good(endpoint: Endpoint) -> tuple[str, dict[str, Any]]:
    """The path and the message's other fields, with MINE for every text."""
    path = endpoint.paths("")[0]
    for name in _parameters(path):
        path = path.replace("{" + name + ":path}", MINE).replace("{" + name + "}", MINE)
    return path, minimal(endpoint, MINE) | GOOD.get(endpoint.path, {})


def _parameters(path: str) -> list[str]:
    return [piece.partition("}")[0].partition(":")[0] for piece in path.split("{")[1:]]


def _items(endpoint: Endpoint) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The lists of the message whose items can name an object, each with an item that names THEIRS."""
    kind = inspect.type_info(endpoint.message)
    assert isinstance(kind, inspect.StructType)
    for field in kind.fields:
        item = getattr(field.type, "item_type", None)
        if isinstance(item, inspect.StructType):
            for name in {each.encode_name for each in item.fields}.intersection(NAMES):
                yield field.encode_name, name, value_of(item, MINE) | {name: THEIRS}


def _query(fields: dict[str, Any]) -> str:
    return "&".join(
        f"{name}={quote(each if isinstance(each, str) else json.dumps(each))}"
        for name, value in fields.items()
        for each in (value if isinstance(value, list) else [value])
    )


def ways(endpoint: Endpoint) -> Iterator[tuple[str, Request]]:
    """Requests that name MINE where it is read, and THEIRS elsewhere."""
    path, fields = good(endpoint)
    reads = endpoint.method == "GET" or endpoint.query
    head = tuple((name, MINE.encode()) for name, _ in endpoint.headers)
    usual = Request(endpoint.method, path, _query(fields) if reads else "", b"" if reads else _json(fields), head)

    def changed(**more: Any) -> Request:
        return Request(**{**usual.__dict__, **more})

    yield "as it should be", usual
    for field, name, item in _items(endpoint):
        if f"{field}.{name}" in TEXTS.get(endpoint.path, ()):
            continue
        yield f"{item} in {field}", changed(body=_json(fields | {field: [item]}))
    for name in NAMES:
        if name in TEXTS.get(endpoint.path, ()):
            continue
        for theirs in (THEIRS, [THEIRS]):
            extra = {name: theirs}
            yield f"{name} in the query", changed(query="&".join(filter(None, (usual.query, _query(extra)))))
            yield f"{name} in the query, first", changed(query="&".join(filter(None, (_query(extra), usual.query))))
            yield f"{name} in the body alone", changed(body=_json(extra))
            if not reads:
                yield (
                    f"{name} in the body, too",
                    changed(body=_json(fields | extra) if name not in fields else _twice(fields, extra)),
                )
                yield f"{name} in the body, first", changed(body=_twice(extra, fields))
        yield f"{name} in a JSON text", changed(query="", body=json.dumps(json.dumps(fields | {name: THEIRS})).encode())
        yield f"{name} nested", changed(body=_json(fields | {"params": {name: THEIRS}, "info": {name: THEIRS}}))
        for header in (name, "x-mlflow-" + name.replace("_", "-")):
            yield f"{header} as a header", changed(headers=(*head, (header.encode(), THEIRS.encode())))
    for known, _ in endpoint.headers:
        yield f"{known!r} twice", changed(headers=(*head, (known, THEIRS.encode())))
    yield (
        "the whole body a JSON text",
        changed(query="", body=json.dumps(_json(fields).decode().replace(MINE, THEIRS)).encode()),
    )
    yield "a list", changed(body=b"[" + _json(fields).replace(MINE.encode(), THEIRS.encode()) + b"]")
    yield "two objects", changed(body=_json(fields) + _json(fields).replace(MINE.encode(), THEIRS.encode()))
    if MINE in path:
        for odd in (
            f"{MINE}%2F..%2F{THEIRS}",
            f"{MINE}%252F..%252F{THEIRS}",
            f"{MINE}/../{THEIRS}",
            f"{MINE}%3F{THEIRS}",
        ):
            yield f"{odd} in the path", changed(path=path.replace(MINE, odd))


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


def _twice(first: dict[str, Any], second: dict[str, Any]) -> bytes:
    return _json(first)[:-1] + b", " + _json(second)[1:] if first and second else _json(first | second)


def reached(request: Request) -> tuple[list[str], str] | None:
    """The ids that are checked, and all that handler and stock get; None where the request is refused."""
    path = unquote_plus(request.path.replace("+", "%2B"))
    match = ROUTER.find(request.method, path)
    scope: Scope = {
        "method": request.method,
        "path": path,
        "raw_path": request.path.encode(),
        "query_string": request.query.encode(),
        "headers": list(request.headers),
    }
    if not match.endpoint.target.checked:
        return None  # refused to who is limited, whatever it names
    try:
        message = decode(match, scope, request.body, cast("Permit", Limited()))
        checked = [ref.id for ref in match.endpoint.target.objects(message)]
        body = rewrite(match, scope, message, request.body)
    except (InvalidParameter, Forbidden, NotFound):
        return None
    # headers that no declaration names say nothing to stock about objects
    declared = [value for name, value in scope["headers"] if name in dict(match.endpoint.headers)]
    parts = [scope["raw_path"], scope["query_string"], *declared]
    if not match.endpoint.raw:  # what is no JSON names nothing
        parts += [msgspec.json.encode(message), b"" if match.endpoint.query else body]
    return checked, unquote_plus(unquote_plus(b" ".join(parts).decode("utf-8", "replace")))


@pytest.mark.parametrize("endpoint", DECLARED, ids=lambda each: f"{each.method} {each.path}")
def test_what_was_checked_is_what_runs(endpoint: Endpoint) -> None:
    for how, request in ways(endpoint):
        found = reached(request)
        if how == "as it should be":
            assert found is not None
        if found is not None and THEIRS in found[1]:
            assert any(THEIRS in each for each in found[0]), (how, request, found)


def _untyped(kind: inspect.Type, path: str) -> Iterator[str]:
    """Where in a message there may be anything."""
    if isinstance(kind, inspect.AnyType | inspect.RawType):
        yield path
    elif isinstance(kind, inspect.StructType):
        for field in kind.fields:
            yield from _untyped(field.type, f"{path}.{field.encode_name}" if path else field.encode_name)
    elif isinstance(kind, inspect.UnionType):
        for each in kind.types:
            yield from _untyped(each, path)
    else:
        for inner in ("type", "item_type", "value_type"):
            if isinstance(item := getattr(kind, inner, None), inspect.Type):
                yield from _untyped(item, path)


def _checked(target: Target) -> set[str]:
    inner = getattr(target, "targets", ())
    return set(target.fields).union(*map(_checked, inner))


def test_what_may_hold_anything_was_looked_at() -> None:
    found: dict[str, set[str]] = {}
    for endpoint in DECLARED:
        fields = set(_untyped(inspect.type_info(endpoint.message), "")) - _checked(endpoint.target)
        if fields:
            found[endpoint.path] = found.get(endpoint.path, set()) | fields
    assert found == UNTYPED
