"""What an endpoint is, said once: where it is found, its message, the right that it needs and on what, its statements,
its handler. Routing, the schema contract, permission, audit and docs/reference/endpoints.md all come from that.

    @endpoint("GET", "2.0/mlflow/registered-models/get", READ, RegisteredModel("name"), MODEL, TAGS, LATEST)
    async def get_registered_model(call: Call, message: GetRegisteredModel) -> object:

What stock alone answers is declared, too, without a handler (stock_only.py). What has no declaration needs an
administrator.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from functools import cache, lru_cache, reduce
from inspect import unwrap
from typing import Any, NamedTuple, TypeVar

from msgspec import Struct

from headrace.api.message import Message, Reader
from headrace.asgi.types import Headers
from headrace.auth.objects import NOTHING, Target
from headrace.auth.principals import Principal, Right
from headrace.db.database import Database
from headrace.db.query import Sql
from headrace.errors import ApiError
from headrace.events.notes import NOBODY, Events
from headrace.settings import Settings

# Stock's streaming routes of artifacts know no --static-prefix; server-info is there with and without it.
_WITHOUT_PREFIX = re.compile(r"2\.0/mlflow-artifacts/artifacts/|3\.0/mlflow/server-info")
AJAX = ("ajax-api",)
APIS = ("api", "ajax-api")


class Call(Struct, frozen=True):
    """What a handler works with, beside the message.

    `grantees`: the names under which grants reach the sender, whose lists show only what is granted to one of them;
    None for a sender who may see everything. `sender`: None where the server asks nobody. `events`: who has subscribed.
    """

    db: Database
    settings: Settings
    workspace: str = "default"
    grantees: tuple[str, ...] | None = None
    sender: Principal | None = None
    events: Events = NOBODY


class Response(NamedTuple):
    """An answer that is not 200 with JSON."""

    body: bytes
    status: int = 200
    content_type: bytes = b"application/json"
    headers: Headers = ()


class ArtifactFile(NamedTuple):
    """An answer that is the file `path` in the folder `uri`, where artifacts are; `absent` where it is not there."""

    uri: str
    path: str
    absent: ApiError


# What a handler answers with: a Response, an ArtifactFile, JSON already (bytes), something that msgspec can encode, or
# None for {}.
Answer = Any
Handler = Callable[[Call, Any], Awaitable[Answer]]
# Notes what became of a request that stock has answered with 200, from the answer's body.
Note = Callable[[bytes], Awaitable[None]]
H = TypeVar("H", bound=Handler)


class _Unknown(Message, forbid_unknown_fields=False):
    """The message of what has no declaration."""


class Endpoint(Struct, frozen=True, eq=False):
    """A declaration.

    `path`: below /api/ and /ajax-api/ (`apis`), or from "/" on as it is; {name} is one part of it, {name:path} one or
    more. `target`: the objects that the message names, on which `right` is needed. `tables`: what the schema contract
    must find unchanged. `audited`: "changes", or "often" for what a training does all the time, which only --audit all
    writes. `headers`: (name in lower case, field of the message that holds it). `raw`: the body is no JSON; the message
    has it in its field `body`. `query`: it is in the query, as a GET's is, whatever the body. `form`: the body is a
    form of one of our pages. `own_page`: a page of Headrace's own, which the gate answers (ui/pages.py). `replica`: a
    search or a history, which a read replica may answer. `check`: without a handler, what every message must pass on
    its way to stock, beside its types. `noted`: for what the handler leaves to stock, looks before stock gets it, and
    gives what notes the event.
    """

    method: str
    path: str
    right: Right
    target: Target
    message: type[Message]
    handler: Handler | None = None
    tables: frozenset[str] = frozenset()
    apis: tuple[str, ...] = APIS
    audited: str = "changes"
    raw: bool = False
    headers: tuple[tuple[bytes, str], ...] = ()
    reader: Reader[Any] | None = None
    form: bool = False
    own_page: bool = False
    replica: bool = False
    query: bool = False
    check: Callable[[Any], None] | None = None
    noted: Callable[[Call, Any], Awaitable[Note]] | None = None

    def paths(self, prefix: str) -> list[str]:
        """Where it is found on a server with this --static-prefix."""
        if self.path.startswith("/"):
            return [prefix + self.path]
        starts = {prefix, ""} if _WITHOUT_PREFIX.match(self.path) else {prefix}
        paths = [f"{start}/{api}/{self.path}" for start in starts for api in self.apis]
        if self.path.startswith("2.0/mlflow/"):  # MLflow 1.x and the clients written for it
            rest = self.path.removeprefix("2.0/mlflow/")
            paths += [f"{prefix}/{api}/2.0/preview/mlflow/{rest}" for api in self.apis]
        return paths


# All declarations, in the order in which they are looked at.
ENDPOINTS: list[Endpoint] = []


def endpoint(
    method: str,
    path: str,
    right: Right,
    target: Target = NOTHING,
    *statements: Sql | str,
    apis: tuple[str, ...] = APIS,
    audited: str = "changes",
    raw: bool = False,
    headers: tuple[tuple[bytes, str], ...] = (),
    replica: bool = False,
    query: bool = False,
    form: bool = False,
    noted: Callable[[Call, Any], Awaitable[Note]] | None = None,
) -> Callable[[H], H]:
    """Declare the endpoint that a handler answers. `statements`: its SQL, or the names of tables that it works on.

    The message is what the handler's second parameter is annotated with. A handler may have several declarations.
    """

    def declare(handler: H) -> H:
        tables = frozenset[str]().union(*({s} if isinstance(s, str) else s.tables for s in statements))
        message = _message_of(handler)
        ENDPOINTS.append(
            Endpoint(
                *(method, path, right, target, message, handler, tables, apis, audited, raw, headers, Reader(message)),
                replica=replica,
                query=query,
                form=form,
                noted=noted,
            )
        )
        return handler

    return declare


def _message_of(handler: Any) -> type[Message]:
    """The class that its annotation names; typing.get_type_hints of all would be a tenth of a worker's start."""
    name, *attributes = handler.__annotations__["message"].split(".")
    message: type[Message] = reduce(getattr, attributes, unwrap(handler).__globals__[name])
    return message


class Match(NamedTuple):
    """The endpoint of a request, and the path's parameters. Found once, and kept in the request's scope."""

    endpoint: Endpoint
    parameters: dict[str, str]


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# What has no declaration.
UNDECLARED = Match(Endpoint("", "", Right.ADMIN, NOTHING, _Unknown, reader=Reader(_Unknown)), {})
# A browser's question before a request, which carries no credentials.
PREFLIGHT = Match(Endpoint("OPTIONS", "", Right.OPEN, NOTHING, _Unknown, reader=Reader(_Unknown)), {})


class Router:
    """Finds the endpoint of a request on a server with this --static-prefix."""

    def __init__(self, endpoints: Iterable[Endpoint], prefix: str) -> None:
        self._prefix = prefix
        self._exact: dict[tuple[str, str], Match] = {}
        self._patterns: dict[str, list[tuple[str, str, Endpoint]]] = {}  # literal start, path, endpoint
        for each in endpoints:
            self.add(each)
        self._find_pattern = lru_cache(maxsize=4096)(self._look_up)

    def add(self, each: Endpoint) -> None:
        """Another endpoint; GET stands for HEAD, too, unless that has its own."""
        for path in each.paths(self._prefix):
            for method in ("GET", "HEAD") if each.method == "GET" else (each.method,):
                if "{" in path:
                    self._patterns.setdefault(method, []).append((path.partition("{")[0], path, each))
                else:
                    self._exact.setdefault((method, path), Match(each, {}))

    def add_page(self, method: str, path: str, right: Right, target: Target = NOTHING) -> None:
        """A page of our own, whose path has the prefix."""
        page = Endpoint(method, path, right, target, _Unknown, own_page=True)
        for each in ("GET", "HEAD") if method == "GET" else (method,):
            self._exact[each, path] = Match(page, {})

    def find(self, method: str, path: str) -> Match:
        """A literal path wins over a pattern, as it does in stock."""
        return self._exact.get((method, path)) or self._find_pattern(method, path)

    def methods(self, path: str) -> list[str]:
        """Those that have a declaration for this path."""
        return [method for method in METHODS if self.find(method, path) is not UNDECLARED]

    def knows(self, path: str) -> bool:
        """Whether a method has a declaration for this path, with a slash at its end or without: stock leads from one to
        the other, and from a doubled slash to a single one."""
        return "//" in path or any(map(self.methods, (path, path.rstrip("/"), f"{path}/")))

    def _look_up(self, method: str, path: str) -> Match:
        if method == "OPTIONS":
            return PREFLIGHT
        for start, pattern, each in self._patterns.get(method, ()):
            if path.startswith(start) and (match := _pattern(pattern).fullmatch(path)):
                return Match(each, match.groupdict())
        return UNDECLARED


@cache
def _pattern(path: str) -> re.Pattern[str]:
    """Compiled when the first request has come so far: all of them would be a tenth of a worker's start."""
    pieces = re.split(r"\{(\w+)(:path)?\}", path)
    text = re.escape(pieces[0])
    for name, many, literal in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        text += f"(?P<{name}>{'.+' if many else '[^/]+'}){re.escape(literal)}"
    return re.compile(text, re.DOTALL)
