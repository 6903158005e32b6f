"""Passwords, as argon2id (RFC 9106's profile for little memory: 64 MiB, 3 passes), never in the event loop.

Those that were imported from MLflow's basic-auth are Werkzeug's, METHOD$SALT$HEX, until their user's next sign-in.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.errors import TooManyAttempts

if TYPE_CHECKING:
    from argon2 import PasswordHasher

MIN_LENGTH = 12
MAX_LENGTH = 1024
# At a time, 64 MiB each; and how many more may wait for them.
AT_ONCE = 2
WAITING = 32

Result = TypeVar("Result")


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher  # a server without users does without

    return PasswordHasher()


def hash_password(password: str) -> str:
    """argon2's own text form, with its parameters and salt. Takes about 50 ms."""
    return _hasher().hash(password)


def is_werkzeugs(hashed: str) -> bool:
    """Whether this is a hash of Werkzeug's that can be verified."""
    return _werkzeugs(hashed, "") is not None


def _werkzeugs(hashed: str, password: str) -> bool | None:
    """Whether the password is the one of a hash of Werkzeug's; None where it is none of the two kinds that it makes."""
    method, salt, digest = [*hashed.split("$"), "", ""][:3]
    try:
        match method.split(":"):
            case ["scrypt", n, r, p]:
                cost, most = {"n": int(n), "r": int(r), "p": int(p)}, 132 * int(n) * int(r) * int(p)
                made = hashlib.scrypt(password.encode(), salt=salt.encode(), maxmem=most, **cost)
            case ["pbkdf2", algorithm, rounds]:
                made = hashlib.pbkdf2_hmac(algorithm, password.encode(), salt.encode(), int(rounds))
            case _:
                return None
    except ValueError:
        return None
    return hmac.compare_digest(made.hex().encode(), digest.encode())


class Passwords:
    """Verifies passwords in threads of its own, an unknown user's as slowly as a known one's."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="password")
        self._waiting = 0
        self._nobody: str | None = None

    async def verify(self, hashed: str | None, password: str) -> bool:
        """Whether the password is the one of the hash; never for None. Raises TooManyAttempts."""
        return await self._in_thread(self._verify, hashed, password)

    async def hash(self, password: str) -> str:
        """What is kept of a password. Raises TooManyAttempts."""
        return await self._in_thread(hash_password, password)

    async def _in_thread(self, work: Callable[..., Result], *arguments: Any) -> Result:
        if self._waiting >= AT_ONCE + WAITING:
            raise TooManyAttempts(1)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        finally:
            self._waiting -= 1

    def _verify(self, hashed: str | None, password: str) -> bool:
        if self._nobody is None:
            self._nobody = hash_password("nobody's")
        if hashed is not None and (right := _werkzeugs(hashed, password)) is not None:
            return right
        from argon2.exceptions import InvalidHashError, VerificationError

        try:
            return _hasher().verify(hashed or self._nobody, password) and hashed is not None
        except (VerificationError, InvalidHashError):
            return False

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False)
