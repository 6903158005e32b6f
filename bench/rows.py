"""The table's rows: how a workload is shown, and what Headrace must reach in it. No measuring here."""

from __future__ import annotations

from dataclasses import dataclass

MORE_IS_BETTER = frozenset({"requests/s", "MB/s"})


@dataclass(frozen=True)
class Ratio:
    """Headrace is at least so many times as fast (or as small) as another family's best; None: only stated.

    `against` may add up latencies ("bare+raw"), and name one peer of a family.
    """

    against: str
    at_least: float | None


@dataclass(frozen=True)
class AtMost:
    """Headrace's value is at most this, in the row's unit."""

    value: float


Target = Ratio | AtMost


@dataclass(frozen=True)
class Row:
    """`unit`: requests/s, MB/s (more is better), or ms, s, MB (less is better)."""

    name: str
    title: str
    unit: str
    targets: tuple[Target, ...]
    on_sqlite: tuple[Target, ...] = ()

    def targets_on(self, kind: str) -> tuple[Target, ...]:
        return self.on_sqlite if kind == "sqlite" else self.targets

    @property
    def more_is_better(self) -> bool:
        return self.unit in MORE_IS_BETTER

    def times_as_good(self, value: float, other: float) -> float:
        """How many times as good `value` is as `other`; 0 where one of them is missing (0, infinite, not a number)."""
        better, worse = (value, other) if self.more_is_better else (other, value)
        if not (0 < better < float("inf") and 0 < worse < float("inf")):
            return 0.0
        return better / worse
