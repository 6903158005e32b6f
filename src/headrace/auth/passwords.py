"""Passwords, as argon2id (RFC 9106's profile for little memory: 64 MiB, 3 passes), never in the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from headrace.errors import TooManyAttempts

MIN_LENGTH = 12
MAX_LENGTH = 1024
# At a time, 64 MiB each; and how many more may wait for them.
AT_ONCE = 2
WAITING = 32

_hasher = PasswordHasher()


def hash_password(password: str) -> str:
    """argon2's own text form, with its parameters and salt. Takes about 50 ms."""
    return _hasher.hash(password)


class Passwords:
    """Verifies passwords in threads of its own, an unknown user's as slowly as a known one's."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="password")
        self._waiting = 0
        self._nobody: str | None = None

    async def verify(self, hashed: str | None, password: str) -> bool:
        """Whether the password is the one of the hash; never for None. Raises TooManyAttempts."""
        if self._waiting >= AT_ONCE + WAITING:
            raise TooManyAttempts(1)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._verify, hashed, password)
        finally:
            self._waiting -= 1

    def _verify(self, hashed: str | None, password: str) -> bool:
        if self._nobody is None:
            self._nobody = hash_password("nobody's")
        try:
            return _hasher.verify(hashed or self._nobody, password) and hashed is not None
        except (VerificationError, InvalidHashError):
            return False

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False)
