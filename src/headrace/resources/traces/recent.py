"""The traces that a worker has written of late: they are likely to be there, others to be new. It says which of two
statements is tried first; either answers what it could not do."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.db.postgres import Session

_TRACES, _MOST = "traces", 10_000


def of(session: Session) -> Collection[str]:
    """Their ids."""
    ids: dict[str, None] = session.memory.setdefault(_TRACES, {})
    return ids


def add(session: Session, trace_ids: Iterable[str]) -> None:
    """Remember these, too, and of all the last."""
    ids: dict[str, None] = session.memory.setdefault(_TRACES, {})
    ids.update(dict.fromkeys(trace_ids))
    while len(ids) > _MOST:
        del ids[next(iter(ids))]
