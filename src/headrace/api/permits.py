"""What a role alone does not decide: the objects that a request names are looked up and checked before it goes on.

It is the same for native answers and for what passes through. Where the answer matters, too, it is looked at on its way
back: a new experiment or model is granted to who made it, a renamed model keeps its grants, a deleted one loses them,
and a list that stock gives whole is cut to what is granted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

import msgspec

from headrace.asgi.body import read_body
from headrace.asgi.responses import SEEN_BY, Receive, Scope, Send
from headrace.auth.access import Access, grantees
from headrace.auth.accounts import Accounts, Grant
from headrace.auth.objects import Named, named, needs_body
from headrace.auth.principals import Principal, Right
from headrace.auth.routes import Rule
from headrace.errors import Forbidden, PayloadTooLarge

# the body of an answer that went well -> the body to send
Revision = Callable[[bytes], Awaitable[bytes]]
_UNCHECKED = ("new-experiment", "new-model", "filtered", "filtered-models")


class Permit(NamedTuple):
    """What a request that may go on goes on with."""

    receive: Receive
    revise: Revision | None = None


class Permits:
    """For one worker."""

    def __init__(self, accounts: Accounts, access: Access, max_body_bytes: int) -> None:
        self._accounts, self._access, self._max_body_bytes = accounts, access, max_body_bytes

    async def permit(
        self, who: Principal, rule: Rule, parameters: dict[str, str], scope: Scope, receive: Receive
    ) -> Permit:
        """Let a request go on. Raises Forbidden, PayloadTooLarge, Unavailable."""
        enough = self._access.allows(who, rule)
        moves = rule.target == "model" and rule.right is Right.MANAGE
        if enough and not moves:
            return Permit(receive)
        headers = dict(scope["headers"])
        body = b""
        if needs_body(rule.target):
            if headers.get(b"content-encoding", b"identity") != b"identity":
                raise Forbidden("A compressed request can't be checked. Send it as it is.")
            body, receive = await self._read(receive)
        if enough:
            with contextlib.suppress(Forbidden):  # what can't be understood is stock's to refuse
                return Permit(receive, self._moved(scope["query_string"], body))
            return Permit(receive)
        objects = named(rule.target, parameters, scope["query_string"], body, headers)
        if rule.target not in _UNCHECKED:
            await self._access.check(who, rule, objects)
        if self._access.is_limited(who):
            if rule.target in ("filtered", "graphql"):
                scope[SEEN_BY] = grantees(who)
            elif rule.target == "filtered-models":
                return Permit(receive, self._only_granted(who))
            elif rule.target in ("new-experiment", "new-model"):
                return Permit(receive, self._granted_to_maker(who, objects))
        return Permit(receive, self._moved(scope["query_string"], body) if moves else None)

    async def _read(self, receive: Receive) -> tuple[bytes, Receive]:
        """The whole body, and a `receive` that gives it again."""
        body = await read_body(receive, self._max_body_bytes)
        if body is None:
            raise Forbidden("The connection ended.")
        if len(body) > self._max_body_bytes:
            raise PayloadTooLarge(f"The body is larger than the {self._max_body_bytes} bytes that can be checked.")
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> MutableMapping[str, Any]:
            return messages.pop() if messages else await receive()

        return body, again

    def _granted_to_maker(self, who: Principal, objects: list[Named]) -> Revision:
        async def revise(answer: bytes) -> bytes:
            made = msgspec.json.decode(answer)
            if "experiment_id" in made:
                kind, name = "experiment", made["experiment_id"]
            else:
                kind, name = "model", made["registered_model"]["name"]
            await self._accounts.grant_new(Grant(f"user:{who.user}", kind, name, "manage"))
            return answer

        return revise

    def _moved(self, query: bytes, body: bytes) -> Revision:
        """After registered-models/rename and delete."""
        before = {each.id for each in named("model", {}, query, body, {}) if each.kind == "model"}

        async def revise(answer: bytes) -> bytes:
            renamed = msgspec.json.decode(answer or b"{}").get("registered_model", {}).get("name")
            for name in before - {renamed}:
                await self._accounts.move_grants("model", name, renamed)
            self._access.forget()
            return answer

        return revise

    def _only_granted(self, who: Principal) -> Revision:
        """For registered-models/search and model-versions/search: a page may come shorter than it was asked for."""

        async def revise(answer: bytes) -> bytes:
            models = {grant.object for grant in await self._accounts.grants(grantees(who)) if grant.kind == "model"}
            page = msgspec.json.decode(answer)
            for field in ("registered_models", "model_versions"):
                if field in page:
                    page[field] = [each for each in page[field] if each["name"] in models]
            return msgspec.json.encode(page)

        return revise


def revising(scope: Scope, send: Send, revise: Revision) -> Send:
    """A `send` that holds back an answer with status 200 until it is whole, and sends what `revise` makes of it."""
    scope["extensions"] = {}  # an answer must come through `send`
    scope["headers"] = [header for header in scope["headers"] if header[0] != b"accept-encoding"]
    start: MutableMapping[str, Any] | None = None
    parts: list[bytes] = []

    async def held(message: MutableMapping[str, Any]) -> None:
        nonlocal start
        if message["type"] == "http.response.start" and message["status"] == 200:
            start = message
        elif start is None:
            await send(message)
        else:
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                body = await revise(b"".join(parts))
                kept = [header for header in start["headers"] if header[0].lower() != b"content-length"]
                start["headers"] = [*kept, (b"content-length", b"%d" % len(body))]
                await send(start)
                await send({"type": "http.response.body", "body": body})

    return held
