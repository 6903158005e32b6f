"""How many generated cases a test tries.

`make test` tries some, the same each time: a change is judged by what it changes. `make test-long` tries TIMES as many,
others each time; what differs is shown whole, so that it can become a case of its own.
"""

from __future__ import annotations

import os
import random
from typing import Any

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("HEADRACE_TIMES", "1"))
LONG = TIMES > 1


def cases(some: int, **more: Any) -> settings:
    """Hypothesis' settings for `some` cases; a test with it is marked `generated`."""
    return settings(
        max_examples=some * TIMES,
        derandomize=not LONG,
        print_blob=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )


def dice(seed: int) -> random.Random:
    """Where a loop makes its own cases: `seed`, or none."""
    return random.Random(None if LONG else seed)
