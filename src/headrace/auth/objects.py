"""Which objects a request names: in its path, its query, its JSON body.

Stock takes a field under its protobuf name and in camel case, from the query or from the body, and in messages within
messages. So every value under every such name is collected, and each of them must be allowed: whichever stock uses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from headrace.errors import Forbidden

MAX_DEPTH = 32


class Named(NamedTuple):
    """An object: `kind` is experiment, experiment-name, run, trace, logged-model or model."""

    kind: str
    id: str


_FIELDS = {
    "experiment": ("experiment_id", "experiment_ids"),
    "experiment-name": ("experiment_name",),
    "run": ("run_id", "run_uuid", "run_ids", "source_run_id"),
    "trace": ("trace_id", "trace_ids", "request_id", "request_ids"),
    "logged-model": ("model_id", "model_ids"),
}


def _camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda letter: letter[1].upper(), name)


_KINDS = {each: kind for kind, names in _FIELDS.items() for name in names for each in (name, _camel(name))}
# target of a route's row -> the kinds of which one must be named
_WANTED = {
    "experiment": {"experiment"},
    "experiment-name": {"experiment-name"},
    "run": {"run"},
    "run-in-query": {"run"},
    "run-and-traces": {"run"},
    "trace": {"trace"},
    "new-trace": {"experiment"},
    "trace-locations": {"experiment"},
    "logged-model": {"logged-model"},
    "model": {"model"},
    "model-source": {"model"},
    "path": {"experiment"},
    "folder": {"experiment"},
    "experiment-header": {"experiment"},
    "filtered": set(),
    "graphql": set(),
    "filtered-models": set(),
    "new-experiment": set(),
    "new-model": set(),
}
# What comes in a body of these is not read: it is a file, or protobuf.
_OPAQUE = {"path", "experiment-header", "run-in-query"}
OBJECTS = _WANTED.keys()
_FOLDER = re.compile(r"([0-9]+)(/(?!\.\.?(/|$))[^/\\%]+)*/?\Z")


def needs_body(target: str) -> bool:
    """Whether objects may be named in the body."""
    return target in _WANTED and target not in _OPAQUE


def named(
    target: str, parameters: Mapping[str, str], query: bytes, body: bytes, headers: Mapping[bytes, bytes]
) -> list[Named]:
    """All objects of a request, at least one of the target's kind. Raises Forbidden where that can't be told."""
    fields = [*parameters.items(), *_query(query), *_body(body)]
    found = {Named(_KINDS[name], text) for name, value in fields if name in _KINDS for text in _texts(value)}
    if target in ("model", "model-source", "new-model"):
        found |= {Named("model", text) for name, value in fields if name == "name" for text in _texts(value)}
    if target == "path":
        found.add(_folder(parameters["path"]))
    elif target == "folder":
        found |= {_folder(text) for name, value in fields if name == "path" for text in _texts(value)}
    elif target == "experiment-header":
        found.add(Named("experiment", headers.get(b"x-mlflow-experiment-id", b"").decode("latin-1")))
    elif target == "new-experiment" and any(name in ("artifact_location", "artifactLocation") for name, _ in fields):
        raise Forbidden("With grants on, only an administrator may choose an artifact_location.")
    elif target == "model-source":
        found |= {_source(text) for name, value in fields if name == "source" for text in _texts(value)}
    if _WANTED[target] and _WANTED[target].isdisjoint(name.kind for name in found):
        raise Forbidden("The request does not say on what it works in a way that can be checked.")
    return sorted(found)


def _query(query: bytes) -> list[tuple[str, object]]:
    try:
        return [*parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")]
    except ValueError:
        raise Forbidden("The request's query is not UTF-8, and can't be checked.") from None


def _body(body: bytes) -> Iterator[tuple[str, object]]:
    """The fields of a JSON body, those of messages within messages too."""
    if body.strip():
        try:
            yield from _walk(json.loads(body, object_pairs_hook=_pairs), MAX_DEPTH)
        except (ValueError, RecursionError):
            raise Forbidden("The request's body is not JSON, and can't be checked.") from None


class _pairs(list[tuple[str, Any]]):
    """A JSON object with every pair that was written, repeated names too."""


def _walk(value: object, depth: int) -> Iterator[tuple[str, object]]:
    if depth == 0:
        raise ValueError
    if isinstance(value, _pairs):
        for name, item in value:
            yield name, item
            yield from _walk(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item, depth - 1)


def _texts(value: object) -> list[str]:
    """The ids in a field's value. Raises Forbidden for what is neither a text nor a number, nor a list of them."""
    values = value if isinstance(value, list) and not isinstance(value, _pairs) else [value]
    texts = []
    for each in values:
        if each is None or each == "":
            continue
        if isinstance(each, bool) or not isinstance(each, str | int) or "\0" in str(each):
            raise Forbidden("The request names an object in a way that can't be checked.")
        texts.append(str(each))
    return texts


def _folder(path: str) -> Named:
    """The experiment whose folder a path of artifacts is in: experiments have theirs under their number."""
    found = _FOLDER.match(path)
    if found is None:
        raise Forbidden("With grants on, artifacts are reached in the folder of an experiment, by its number.")
    return Named("experiment", found[1])


def _source(text: str) -> Named:
    """The object that a model version's source lies in."""
    scheme, _, rest = text.partition(":")
    rest = rest.lstrip("/")
    if scheme == "mlflow-artifacts":
        return _folder(rest)
    if scheme == "runs":
        return Named("run", rest.partition("/")[0])
    if scheme == "models" and rest.startswith("m-"):
        return Named("logged-model", rest.partition("/")[0])
    raise Forbidden("With grants on, a model version's source is a run, a logged model, or in an experiment's folder.")
