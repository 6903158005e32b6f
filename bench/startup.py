"""Start and memory: each peer started alone on a database that is initialised, weighed when it has settled, ended."""

from __future__ import annotations

from pathlib import Path

from bench import api
from bench.databases import Database
from bench.peers import Peer
from bench.process import ServerProcess
from bench.rows import Row
from bench.workloads import MEMORY, MEMORY_LAZY, READY, Measurement


def wake(peer: Peer, server: ServerProcess) -> None:
    """Have all of it running: Headrace starts stock when it is wanted. Raises ServerFailed."""
    if peer.migrated:  # MLflow's own tables, and its API
        server.wait_ready(api.PASSED_THROUGH)


def measure(peer: Peer, database: Database, folder: Path) -> list[tuple[Row, Measurement]]:
    """The rows that one start of a peer gives values for.

    `headrace-lazy` has not started stock when it is weighed, `headrace` has: it has passed a call through.
    """
    server = peer.start(database, folder)
    try:
        ready = server.wait_ready()
        if peer.start_only:
            return [(MEMORY_LAZY, Measurement(server.settled_memory()))]
        wake(peer, server)
        weight = Measurement(server.settled_memory(), {"processes": len(server.tree())})
    finally:
        server.stop()
    rows = [(READY, Measurement(ready)), (MEMORY, weight)]
    return rows if peer.family == "headrace" else [*rows, (MEMORY_LAZY, weight)]
