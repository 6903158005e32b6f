"""Regular expressions of clients, by RE2: no pattern takes longer than linear time, or much memory.

Python's own engine goes back and forth: for `^(a+)+$` each letter doubles its time, and it holds the interpreter's lock
for all of it. RE2 knows no look-around and no back references, which PostgreSQL has.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from headrace.errors import InvalidParameter

_MAX_BYTES = 8 * 1024 * 1024


@lru_cache(maxsize=32)
def _compiled(pattern: str) -> Any:
    import re2  # 4 MB, which a server without such searches does without

    options = re2.Options()
    options.max_mem = _MAX_BYTES
    options.log_errors = False
    return re2.compile(pattern, options)


def check(pattern: str) -> None:
    """Raises InvalidParameter for what is no pattern here."""
    import re2

    try:
        _compiled(pattern)
    except re2.error as error:
        said = error.args[0]
        raise InvalidParameter(
            f"Invalid regular expression {pattern[:200]!r}: {said.decode() if isinstance(said, bytes) else said}"
        ) from None


def search(pattern: str, text: str) -> bool:
    """Whether the pattern is found in the text, anywhere."""
    return _compiled(pattern).search(text) is not None
