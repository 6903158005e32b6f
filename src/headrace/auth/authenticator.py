"""Who sends a request: tokens, passwords and sessions, verified once and then known for as long as nothing changes.

A worker keeps those whom it knows by the SHA-256 of what they showed. It looks every POLL_SECONDS whether the version
of the accounts has moved, and then forgets them all; so a revocation works within STALE_SECONDS on every worker.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import itertools
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from headrace.auth import sessions, tokens
from headrace.auth.accounts import Accounts, User
from headrace.auth.passwords import MAX_LENGTH, MIN_LENGTH, Passwords, is_werkzeugs
from headrace.auth.principals import ADMIN, JOBS, ROLES, SCOPES, Principal, Right
from headrace.auth.single_sign_on import Claims, SingleSignOn, is_jwt
from headrace.auth.throttle import Throttle
from headrace.clock import now_ms
from headrace.errors import InvalidParameter, Unauthenticated, Unavailable

POLL_SECONDS = 2.0
# Without a look at the database for so long, nobody is known any more.
STALE_SECONDS = 5.0
USED_EVERY = 15  # polls between two writes of when tokens were used
KEPT = 10_000
LOAD_BALANCER, JWT = "load balancer", "JWT"
USED_LINK = "This link was used already, or is too old. `headrace user link NAME` makes another."
# What is shown, each kind known by itself: one is checked for where it comes from, another is not.
HEADER, SESSION, ASSERTION = b"header ", b"session ", b"assertion "
_FAR = 2.0**53  # seconds; an integer in JSON may be more than a float can hold
HOW_TO = (
    "Set MLFLOW_TRACKING_TOKEN to a token, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD. "
    "In a browser, sign in in another tab, and try again."
)


class Authenticator:
    """For one worker. `start` it once there is an event loop.

    `admin_hashes`: a file of hashes that count as that of `admin_token`, and may change (renewal.py). `jobs_token`: the
    one of this server's start, for MLflow's jobs, which are an editor.
    """

    def __init__(self, accounts: Accounts, admin_token: str = "", admin_hashes: str = "", jobs_token: str = "") -> None:
        self._accounts = accounts
        self.single_sign_on: SingleSignOn | None = None
        self.of_jwt: Callable[[str], Awaitable[Claims]] | None = None
        self.of_load_balancer: Callable[[str], Awaitable[Claims]] | None = None
        self._admin_hashes = {tokens.hash_of(admin_token)} if admin_token else set()
        self._admin_file = admin_hashes
        self._jobs_hash = tokens.hash_of(jobs_token) if jobs_token else ""
        self._passwords = Passwords()
        self._throttle = Throttle(accounts)
        self._known: dict[bytes, Principal] = {}
        self._refused: set[bytes] = set()
        self._proved: set[bytes] = set()  # passwords that were right once, with their names; they outlast `forget`
        self._used: dict[str, float] = {}  # token id -> when, since the last write
        self._secret: bytes | None = None
        self._version = ""
        self.generation = 0  # moves when everybody is forgotten
        self._watching: asyncio.Task[None] | None = None
        self._read_admin_hashes()

    def start(self) -> None:
        """Begin to watch for changes."""
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Write what is left to be written."""
        if self._watching is not None:
            self._watching.cancel()
        self._passwords.close()
        with contextlib.suppress(Unavailable):
            await self._write_used()

    def known(self, credential: bytes, kind: bytes = HEADER) -> Principal | None:
        """Who showed this Authorization header, session or assertion before."""
        principal = self._known.get(_key(credential, kind))
        if principal is None:
            return None
        seconds = time.time()
        if principal.expires <= seconds:
            return None
        if principal.token_id is not None:
            self._used[principal.token_id] = seconds
        return principal

    async def identify(self, authorization: bytes, address: str) -> Principal:
        """Who shows this Authorization header.

        Raises Unauthenticated, TooManyAttempts, Unavailable.
        """
        scheme, _, rest = authorization.decode("latin-1").partition(" ")
        if scheme.lower() == "bearer" and self.of_jwt is not None and is_jwt(rest.strip()):
            key = _key(authorization, HEADER)
            return await self._identify(key, self._of_claims, JWT, await self.of_jwt(rest.strip()))
        if scheme.lower() == "bearer":
            return await self._identify(_key(authorization, HEADER), self._of_token, rest.strip())
        if scheme.lower() == "basic":
            name, password = _basic(rest.strip())
            if password.startswith(tokens.PREFIX) or self._is_admin_token(password) or self._is_jobs_token(password):
                return await self._identify(_key(authorization, HEADER), self._of_token, password)
            key = _key(authorization, HEADER)
            return await self._identify(key, self._of_password, name, password, address, authorization)
        raise Unauthenticated(f"The Authorization header is neither Bearer nor Basic. {HOW_TO}")

    async def identify_assertion(self, data: bytes) -> Principal:
        """Who a load balancer says that it is. Raises Unauthenticated, Forbidden, Unavailable."""
        assert self.of_load_balancer is not None
        claims = await self.of_load_balancer(data.decode("latin-1"))
        return await self._identify(_key(data, ASSERTION), self._of_claims, LOAD_BALANCER, claims)

    async def identify_session(self, cookie: str) -> Principal:
        """Whose session this is. Raises Unauthenticated, Unavailable."""
        return await self._identify(_key(cookie.encode(), SESSION), self._of_session, cookie)

    async def sign_in(self, name: str, password: str, address: str) -> str:
        """The cookie of a new session. Raises Unauthenticated, TooManyAttempts, Unavailable."""
        if password.startswith(tokens.PREFIX):
            raise Unauthenticated(
                "That is a token, which is for programs. `headrace user link NAME` makes a link that signs you in here."
            )
        if await self._of_password(name, password, address) is None:
            raise Unauthenticated("The user name or the password is wrong.")
        return await self.new_session(name)

    async def is_user(self, name: str) -> bool:
        """Whether there is a user of this name. Raises Unavailable."""
        return await self._user(name) is not None

    async def _user(self, name: str) -> User | None:
        return await self._accounts.user(name) if len(name) <= 256 and "\0" not in name else None

    async def new_session(self, name: str) -> str:
        """The cookie of a new session of a user who has proved who they are. Raises Unavailable."""
        issued = now_ms()
        session = sessions.Session(tokens.new_id(), name, issued, issued + sessions.LIFETIME_MS)
        return sessions.seal(session, await self.secret())

    async def user_of_link(self, link: str) -> str:
        """Whom a link signs in, if it still does. Raises Unauthenticated, Unavailable."""
        return (await self._link(link)).user

    async def sign_in_by_link(self, link: str, password: str) -> str:
        """The cookie of a new session, this once; a password that is not empty is the user's from now on.

        Raises Unauthenticated, InvalidParameter (the link can be used again), TooManyAttempts, Unavailable.
        """
        found = await self._link(link)
        if password and not MIN_LENGTH <= len(password) <= MAX_LENGTH:
            raise InvalidParameter(f"A password has {MIN_LENGTH} characters or more, and {MAX_LENGTH} at most.")
        hashed = await self._passwords.hash(password) if password else None
        if not await self._accounts.end_session(found.id, found.expires_at):
            raise Unauthenticated(USED_LINK)
        if hashed is not None:
            await self._accounts.set_password(found.user, hashed)
            self.forget()
        return await self.new_session(found.user)

    async def _link(self, link: str) -> sessions.Session:
        found = sessions.unseal(link, await self.secret(), now_ms(), "link")
        if found is None or await self._accounts.has_ended(found.id) or await self._user_of(found) is None:
            raise Unauthenticated(USED_LINK)
        return found

    async def secret(self) -> bytes:
        """What the database signs with. Raises Unavailable."""
        if self._secret is None:
            self._secret, _ = await self._accounts.state()
        return self._secret

    def forget(self) -> None:
        """Know nobody any more."""
        self.generation += 1
        self._known.clear()
        self._refused.clear()

    async def _identify(
        self, key: bytes, find: Callable[..., Awaitable[Principal | None]], *arguments: Any
    ) -> Principal:
        generation = self.generation
        principal = None if key in self._refused else await find(*arguments)
        if generation != self.generation:
            self.forget()  # what was read may be older than the change
        if principal is None:
            if find != self._of_password:  # a password may be another's tomorrow, and each try shall count
                self._refused.add(key)
            raise Unauthenticated(f"The token, password or session is wrong or not valid any more. {HOW_TO}")
        if generation == self.generation:
            if len(self._known) >= KEPT:
                self.forget()
            self._known[key] = principal
        return principal

    def _is_admin_token(self, token: str) -> bool:
        hashed = tokens.hash_of(token)
        return any(hmac.compare_digest(hashed, each) for each in self._admin_hashes)

    def _is_jobs_token(self, token: str) -> bool:
        return bool(self._jobs_hash) and hmac.compare_digest(tokens.hash_of(token), self._jobs_hash)

    def _read_admin_hashes(self) -> None:
        """Who came with one that counts no more is forgotten."""
        if not self._admin_file:
            return
        with contextlib.suppress(OSError):  # the server ends, and its folder has gone
            found = set(Path(self._admin_file).read_text(encoding="ascii").split())
            if found != self._admin_hashes:
                self._admin_hashes = found
                self.forget()

    async def _of_token(self, token: str) -> Principal | None:
        if self._is_admin_token(token):
            return Principal(ADMIN, Right.ADMIN, via="HEADRACE_ADMIN_TOKEN")
        if self._is_jobs_token(token):
            return Principal(JOBS, Right.MANAGE, via="a job")
        found = await self._accounts.token(tokens.hash_of(token))
        if found is None or (found.expires_at is not None and found.expires_at <= now_ms()):
            return None
        user = await self._accounts.user(found.user)
        if user is None or user.disabled_at is not None:
            return None
        expires = float("inf") if found.expires_at is None else found.expires_at / 1000
        self._used[found.id] = time.time()
        return _principal(user, via=f"token {found.name}", most=SCOPES[found.role], token_id=found.id, expires=expires)

    async def _of_password(
        self, name: str, password: str, address: str, credential: bytes | None = None
    ) -> Principal | None:
        """Raises TooManyAttempts."""

        async def verify() -> Principal | None:
            if credential is not None and (known := self.known(credential)) is not None:
                return known  # while this one waited, another with the same was verified
            user = await self._user(name)
            hashed = user.password if user is not None and user.disabled_at is None else None
            if len(password) > MAX_LENGTH or not await self._passwords.verify(hashed, password) or user is None:
                return None
            if hashed is not None and is_werkzeugs(hashed):
                await self._accounts.rehash_password(name, hashed, await self._passwords.hash(password))
            return _principal(user, via="password")

        if credential is None:
            return await self._throttle.attempt(name, address, verify)
        key = _key(credential, HEADER)
        if key in self._proved:  # whoever fails at this name with other passwords does not hold this one up
            async with self._throttle.lock(key.hex()):
                if (found := await verify()) is not None:
                    return found
            self._proved.discard(key)
        found = await self._throttle.attempt(name, address, verify)
        if found is not None:
            if len(self._proved) >= KEPT:
                self._proved.clear()
            self._proved.add(key)
        return found

    async def _of_claims(self, via: str, claims: Claims) -> Principal:
        """Raises Unauthenticated, Forbidden."""
        assert self.single_sign_on is not None
        user = await self.single_sign_on.user(claims, is_login=via != JWT)
        return _principal(user, via=via, expires=float(min(claims["exp"], _FAR)))

    async def _of_session(self, cookie: str) -> Principal | None:
        session = sessions.unseal(cookie, await self.secret(), now_ms())
        if session is None or await self._accounts.has_ended(session.id):
            return None
        user = await self._user_of(session)
        if user is None:
            return None
        return _principal(user, via="session", session_id=session.id, expires=session.expires_at / 1000)

    async def _user_of(self, session: sessions.Session) -> User | None:
        """Who may still use it."""
        user = await self._accounts.user(session.user)
        if user is None or user.disabled_at is not None or session.issued_at < user.sessions_after:
            return None
        return user

    async def _watch(self) -> None:
        for turn in itertools.count(1):
            try:
                async with asyncio.timeout(STALE_SECONDS - POLL_SECONDS):
                    self._secret, version = await self._accounts.state()
                if version != self._version:
                    self._version = version
                    self.forget()
                self._refused.clear()
                self._read_admin_hashes()
                if turn % USED_EVERY == 0:
                    await self._write_used()
                    await self._throttle.forget_old()
            except (Unavailable, TimeoutError):
                self.forget()  # what changed meanwhile can't be seen
            await asyncio.sleep(POLL_SECONDS)

    async def _write_used(self) -> None:
        used, self._used = self._used, {}
        if used:
            await self._accounts.used({token_id: int(seconds * 1000) for token_id, seconds in used.items()})


def _principal(user: User, **fields: Any) -> Principal:
    return Principal(user.name, ROLES[user.role], groups=user.groups, **fields)


def _key(credential: bytes, kind: bytes) -> bytes:
    return hashlib.sha256(kind + credential).digest()


def _basic(encoded: str) -> tuple[str, str]:
    """User and password of a Basic header (RFC 7617). Raises Unauthenticated."""
    try:
        name, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = ""
    if not colon:
        raise Unauthenticated(f"The Authorization header is not Basic as RFC 7617 has it. {HOW_TO}")
    return name, password
