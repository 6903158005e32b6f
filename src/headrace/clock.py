"""The time, as MLflow's tables and Headrace's own have it."""

from __future__ import annotations

import time

DAY_MS = 24 * 3600 * 1000


def now_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)
