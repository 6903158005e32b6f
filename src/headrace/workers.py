"""The worker processes of `headrace serve`.

The first begins before the command line is read: it imports for longer than that takes.
"""

from __future__ import annotations

from headrace.process import BackOff, Child

_begun: Child | None = None


def begin_first() -> None:
    """Start the first worker, which `make` takes over."""
    global _begun
    _begun = _worker()
    _begun.spawn()


def end_first() -> None:
    """End one that nobody took over: there is no server."""
    global _begun
    if _begun is not None:
        _begun.end()
        _begun = None


def make(count: int) -> list[Child]:
    """That many workers, which wait for their configurations."""
    global _begun
    if _begun is not None and not _begun.has_todays_environment():  # a file or a parameter has changed it since
        end_first()
    workers = [_begun or _worker(), *(_worker() for _ in range(count - 1))]
    _begun = None
    for number, worker in enumerate(workers):
        worker.name = "the worker" if count == 1 else f"worker {number + 1}"
        if worker.popen is None:
            worker.spawn()
    return workers


def _worker() -> Child:
    return Child(
        "the worker",
        "headrace.worker",
        stage=0,
        back_off=BackOff(0.1),
        essential=True,
        # obstore's threads, as many as there are cores, pass 400 kB buffers on to other threads. With glibc's heap for
        # each thread 32 downloads from S3 took 111 MiB at 16 threads; with one for all, 21 MiB, and no more time.
        environment={"MALLOC_ARENA_MAX": "1"},
    )
