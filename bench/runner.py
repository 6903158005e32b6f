"""Runs the measurements: interleaved rounds (each peer once, then each again), one server under load at a time."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import api, startup
from bench.databases import Database, Databases
from bench.load import LoadError
from bench.machine import OthersMeter
from bench.peers import Peer
from bench.process import ServerFailed, ServerProcess, cpu_seconds
from bench.report import Results, number
from bench.workloads import READY, Effort, Measurement, Server, Workload

FAILED = (api.ApiFailure, LoadError, ServerFailed, OSError, subprocess.SubprocessError)
# a set-up of a family that is so many times as slow as the family's best after the first round is out
OUT_OF_THE_RACE = 2.0
# so many cores' work of processes that are not the bench's is worth a remark
NOTABLE = 0.1


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass
class Progress:
    """Says on standard error what runs, and how long the rest will take if it goes on like this."""

    steps: int
    done: int = 0
    started: float = field(default_factory=time.monotonic)

    def step(self, text: str) -> None:
        elapsed = time.monotonic() - self.started
        left = elapsed / self.done * (self.steps - self.done) if self.done else 0
        eta = f", {left // 60:.0f}:{left % 60:02.0f} left" if self.done else ""
        self.done += 1
        say(f"[{self.done}/{self.steps}{eta}] {text}")

    def skip(self) -> None:
        self.steps -= 1


@dataclass
class Running:
    """A peer that is up."""

    peer: Peer
    server: Server
    process: ServerProcess | None


# makes a server that is up ready for the workloads
Preparation = Callable[[Server], Server]


def with_experiment(server: Server) -> Server:
    """A new experiment, made through the server's own API."""
    made = {"name": f"bench-{uuid.uuid4().hex[:8]}"}
    answer = api.call(server.port, "POST", "experiments/create", made, patience=60)
    return replace(server, experiment_id=answer["experiment_id"])


class Runner:
    def __init__(
        self,
        databases: Databases,
        folder: Path,
        effort: Effort,
        rounds: int,
        progress: Progress,
        prepare: Preparation = with_experiment,
    ) -> None:
        self.databases = databases
        self.prepare = prepare
        self.folder = folder
        self.effort = effort
        self.rounds = rounds
        self.progress = progress
        self.results = Results()

    def start_up(self, peers: Sequence[Peer]) -> None:
        """Time to ready and memory, of each peer by itself."""
        made: dict[str, Database] = {}  # one a family: its set-ups start on the same
        for number_ in range(1, self.rounds + 1):
            for peer in peers:
                self.progress.step(f"start and memory, round {number_} of {self.rounds}: {peer.name}")
                folder = self.folder / f"start-{peer.name}"
                try:
                    if peer.family not in made:
                        made[peer.family] = self.databases.create("postgresql", f"start-{peer.family}", peer.migrated)
                        self._start_once(peer, made[peer.family], folder)
                    rows = startup.measure(peer, made[peer.family], folder)
                except FAILED as failure:
                    say(f"    FAILED: {failure}")
                    self.results.add("start", READY, peer.name, _failed(failure))
                    continue
                for row, measurement in rows:
                    self.results.add("start", row, peer.name, measurement)
                say("    " + ", ".join(f"{row.name} {number(m.value, row.unit)}" for row, m in rows))

    def _start_once(self, peer: Peer, database: Database, folder: Path) -> None:
        """The family's first start on a database: it may make tables or experiments of its own."""
        process = peer.start(database, folder)
        try:
            process.wait_ready()
            if not peer.start_only:
                startup.wake(peer, process)
        finally:
            process.stop()

    def load(self, kind: str, peers: Sequence[Peer], workloads: Sequence[Workload]) -> None:
        """All workloads on one kind of database, with all peers up and one of them under load at a time."""
        with contextlib.ExitStack() as stack:
            running = [up for peer in peers if (up := self._bring_up(kind, peer, stack)) is not None]
            _wait_until_idle(running)
            for workload in workloads:
                if kind not in workload.kinds:
                    continue
                taking_part = [up for up in running if up.peer.family in workload.families]
                for number_ in range(1, self.rounds + 1):
                    for up in taking_part:
                        if not self._in_the_race(kind, workload, up.peer, taking_part):
                            self.progress.skip()
                            continue
                        title = f"{kind} {workload.row.name}, round {number_} of {self.rounds}: {up.peer.name}"
                        self.progress.step(title)
                        self._measure(kind, workload, up)

    def _bring_up(self, kind: str, peer: Peer, stack: contextlib.ExitStack) -> Running | None:
        say(f"starting {peer.name} on {kind}")
        database = self.databases.create(kind, peer.name, peer.migrated) if peer.needs_database else None
        if peer.command is None:
            return Running(peer, Server(0, peer.family, database), None)
        try:
            process = peer.start(database, self.folder / f"{kind}-{peer.name}")
            stack.callback(process.stop)
            process.wait_ready()
            server = Server(process.port, peer.family, database)
            if database:
                server = self.prepare(server)
        except FAILED as failure:
            say(f"    FAILED to start: {failure}")
            self.results.add("start", READY, peer.name, _failed(failure))
            return None
        return Running(peer, server, process)

    def _measure(self, kind: str, workload: Workload, up: Running) -> None:
        meter = OthersMeter([os.getpid(), self.databases.postgres.pid])
        try:
            if up.process is None:
                assert up.server.database is not None
                measurement = workload.measure_raw(up.server.database, self.effort)
            else:
                measurement = workload.measure(up.server, self.effort)
        except FAILED as failure:
            measurement = _failed(failure)
        measurement.detail["other_cores"] = others = meter.cores()
        self.results.add(kind, workload.row, up.peer.name, measurement)
        busy = [f"others kept {others:.2f} cores busy"] if others > NOTABLE else []
        say("    " + "; ".join([number(measurement.value, workload.row.unit), *measurement.faults, *busy]))

    def _in_the_race(self, kind: str, workload: Workload, peer: Peer, others: Sequence[Running]) -> bool:
        """Whether a set-up can still be its family's best. The first round measures every one."""
        measured = self.results.measured.get((kind, workload.row.name), {})
        if peer.name not in measured:
            return True
        own = measured[peer.name][0].value
        firsts = [
            measured[o.peer.name][0].value for o in others if o.peer.family == peer.family and o.peer.name in measured
        ]
        return all(workload.row.times_as_good(first, own) < OUT_OF_THE_RACE for first in firsts)


def _failed(failure: BaseException) -> Measurement:
    return Measurement(math.nan, {}, [f"could not be measured: {failure}"])


def _wait_until_idle(running: Sequence[Running], patience: float = 180.0, seconds: float = 2.0) -> None:
    """Idle peers share the machine with the measured one: wait until none uses more than 5 % of a core."""
    processes = {up.peer.name: up.process for up in running if up.process}
    give_up = time.monotonic() + patience
    while True:
        before = {name: cpu_seconds(process.tree()) for name, process in processes.items()}
        time.sleep(seconds)
        busy = {name: (cpu_seconds(process.tree()) - before[name]) / seconds for name, process in processes.items()}
        if max(busy.values(), default=0) <= 0.05 or time.monotonic() > give_up:
            break
    say("idle: " + ", ".join(f"{name} uses {share:.1%} of a core" for name, share in busy.items()))


def parts(peers: Sequence[Peer], kind: str) -> list[Peer]:
    """The peers that run on one kind of database."""
    return [peer for peer in peers if kind in peer.databases and not peer.start_only]


def steps(peers: Sequence[Peer], kind: str, workloads: Sequence[Workload]) -> Iterator[tuple[Workload, Peer]]:
    """Each workload with each peer that takes part in it."""
    taking_part = (w for w in workloads if kind in w.kinds)
    return ((w, peer) for w in taking_part for peer in parts(peers, kind) if peer.family in w.families)
