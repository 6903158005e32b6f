"""How much more often traces meet two filters at once than by chance: normalized pointwise mutual information.

Source: mlflow/store/analytics/trace_correlation.py.
"""

from __future__ import annotations

import math

# Jeffreys' prior: half a trace is added to each of the four counts
SMOOTHED = 0.5


def npmi(both: int, first: int, second: int, total: int, prior: float = 0.0) -> float | None:
    """-1 for never together, 0 for chance, 1 for always together; None where there is nothing to tell."""
    counts = (both, first - both, second - both, total - first - second + both)
    if total <= 0 or not first or not second or min(counts) < 0:
        return None
    if not prior and not both:
        return -1.0
    if counts[1:] == (0, 0, 0):
        return 1.0
    together, only_first, only_second, neither = (count + prior for count in counts)
    everything = together + only_first + only_second + neither
    log_together, log_everything = math.log(together), math.log(everything)
    information = (log_together + log_everything) - (math.log(together + only_first) + math.log(together + only_second))
    return max(-1.0, min(1.0, information / -(log_together - log_everything)))
