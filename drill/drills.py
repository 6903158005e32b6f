"""The drills: of servers, databases and clients; those of the machine are in machine.py."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import socket
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import requests
import urllib3
from bench.process import descendants, memory
from tests.server.conftest import Serving
from tests.server.test_connection_budget import Watch, ask
from tests.support.databases import Database
from tests.support.faults import TcpProxy
from tests.support.load import create_run
from tests.support.postgres import Postgres
from tests.support.processes import Process, free_port
from tests.support.servers import Server
from urllib3.exceptions import HTTPError

from drill import machine
from drill.field import Field
from drill.generated import Generator, things
from drill.outcome import Outcome
from drill.writers import API, Metrics, writing

Drill = Callable[[Field], Outcome]


def kills(field: Field) -> Outcome:
    """kill -9 of workers, of whole servers and of PostgreSQL, at random, under 32 writers."""
    outcome, database, port = Outcome("kill -9"), field.database(), free_port()
    server = field.serve(database, "--workers", "2", port=port)
    chance = random.Random(1)
    with writing(server.url) as running:
        for _ in range(1000 if field.long else 30):
            running.wait_for_progress()
            victim = chance.choice(["worker", "worker", "server", "database"])
            fault = time.monotonic()
            if victim == "worker":
                chance.choice(server.workers).kill()
            elif victim == "server":
                children = psutil.Process(server.process.pid).children(recursive=True)
                server.process.send_signal(signal.SIGKILL)
                psutil.wait_procs(children, 60)  # they notice by themselves
                server = field.serve(database, "--workers", "2", port=port)
            else:
                _crash(field.postgres)
            outcome.faults += 1
            outcome.back.append(running.back_after(fault))
    running.count(database, outcome)
    outcome.nothing_lost()
    return outcome


def _crash(postgres: Postgres) -> None:
    postgres.stop(signal.SIGKILL)
    for _ in range(3):
        with contextlib.suppress(AssertionError):  # processes of the old one still end
            postgres.start()
            return
    postgres.start()


def instances(field: Field) -> Outcome:
    """Three servers behind nginx; one is killed every five seconds, and comes back meanwhile."""
    outcome = Outcome("3 instances, nginx")
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        outcome.skipped = "there is no nginx: apt-get install nginx-light"
        return outcome
    database, ports = field.database(), [free_port() for _ in range(3)]

    def start(port: int) -> Serving:
        return field.serve(database, "--database-connections", "8", port=port)

    starting = ThreadPoolExecutor(3)
    servers = {port: starting.submit(start, port) for port in ports}
    wait(servers.values())
    with starting, _nginx(nginx, field.folder / "nginx", ports) as url, writing(url) as running:
        begin, seconds, late = time.monotonic(), 600 if field.long else 20, 0
        for number in itertools.count(1):
            time.sleep(max(0.0, begin + 5 * number - time.monotonic()))
            if time.monotonic() >= begin + seconds:
                break
            port = ports[number % 3]
            late += not servers[port].done()
            victim = servers[port].result()
            fault = time.monotonic()
            os.killpg(victim.process.pid, signal.SIGKILL)
            outcome.faults += 1
            outcome.back.append(running.back_after(fault))
            victim.stop()
            servers[port] = starting.submit(start, port)
        wait(servers.values())
    outcome.notes.append(
        f"{outcome.faults} killed in {seconds} s ({late} of them later than that, not back yet);"
        f" {running.refused()} answers asked to come again"
    )
    running.count(database, outcome)
    outcome.nothing_lost()
    return outcome


@contextmanager
def _nginx(program: str, folder: Path, ports: list[int]) -> Iterator[str]:
    folder.mkdir()
    port = free_port()
    upstream = " ".join(f"server 127.0.0.1:{each} max_fails=1 fail_timeout=1s;" for each in ports)
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; user root;\n"
        "events { worker_connections 512; }\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"upstream headrace {{ {upstream} }}\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://headrace; proxy_http_version 1.1;\n"
        "proxy_set_header Host localhost; proxy_connect_timeout 2s; } } }\n"
    )
    process = Process([program, "-c", configuration, "-p", folder], folder / "log")
    url = f"http://127.0.0.1:{port}"
    process.wait_until(lambda: Server("nginx", url, process).answers("/health"), "nginx answers")
    yield url
    process.stop()


def database_faults(field: Field) -> Outcome:
    """PostgreSQL restarts; its connections are reset; it falls silent; it is at another address."""
    outcome, database = Outcome("database away"), field.database()
    ways = [TcpProxy(field.postgres.port), TcpProxy(field.postgres.port)]
    uri = (
        f"postgresql://postgres@127.0.0.1:{ways[0].port},127.0.0.1:{ways[1].port}/{database.name}"
        "?target_session_attrs=read-write"
    )
    server = field.serve(Database("postgresql", database.name, uri))

    def restart() -> float:
        field.postgres.stop()
        field.postgres.start()
        return time.monotonic()

    def reset() -> float:
        for way in ways:
            way.reset()
        return time.monotonic()

    def silence() -> float:
        for way in ways:
            way.swallow()
        return time.monotonic()

    def failover() -> float:
        begin = time.monotonic()
        ways[0].stop()
        return begin

    goals: list[tuple[str, Callable[[], float], float]] = [
        ("restart", restart, 3), ("reset", reset, 3), ("silence", silence, 10), ("another address", failover, 5)
    ]  # fmt: skip
    with writing(server.url) as running:
        for name, cause, goal in goals:
            for _ in range(1 if cause is failover else 5 if field.long else 2):
                running.wait_for_progress()
                back = running.back_after(cause())
                outcome.faults += 1
                outcome.back.append(back)
                outcome.notes.append(f"{name}: {back:.1f} s")
                if field.judges_times:
                    outcome.expect(back <= goal, f"{name}: {back:.1f} s, which is more than {goal} s")
    running.count(database, outcome)
    outcome.nothing_lost()
    return outcome


def clients(field: Field) -> Outcome:
    """500 clients at once on 12 connections to the database."""
    outcome, database = Outcome("500 clients, 12 connections"), field.database()
    watch = Watch(database)
    watch.start()
    server = field.serve(database, "--workers", "2", "--database-connections", "12")
    run_id = create_run(server.url)
    host, port = server.url.removeprefix("http://").split(":")
    statuses: Counter[int] = Counter()
    times: list[float] = []

    async def client(number: int) -> None:
        connection = await asyncio.open_connection(host, int(port))
        for step in range(20 if field.long else 4):
            metric = {"run_id": run_id, "key": f"m{number}", "value": step, "timestamp": 1, "step": step}
            for path, body in (
                ("runs/log-metric", metric),
                (f"runs/get?run_id={run_id}", None),
                ("runs/search", {"experiment_ids": ["0"], "max_results": 5}),
            ):
                since = time.monotonic()
                statuses[await ask(server, connection, API + path, body)] += 1
                times.append(time.monotonic() - since)
        connection[1].close()

    async def storm() -> None:
        await asyncio.gather(*map(client, range(500)))

    asyncio.run(storm())
    most = watch.end()
    outcome.acknowledged = statuses[200]
    outcome.wrong = sum(statuses.values()) - statuses[200]
    quantiles = statistics.quantiles(times, n=100)
    outcome.notes.append(f"p50 {quantiles[49]:.2f} s, p99 {quantiles[98]:.2f} s, {most} connections at most")
    outcome.expect(most <= 12, f"{most} connections were open")
    outcome.nothing_lost()
    return outcome


def idle(field: Field) -> Outcome:
    """Thousands of connections on which nothing is sent, and some that send a byte now and then."""
    count = 10_000 if field.long else 1_000
    outcome, server = Outcome(f"{count:,} idle connections"), field.serve(field.database())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    address = server.url.removeprefix("http://").split(":")
    run_id, before = create_run(server.url), memory(descendants(server.process.pid))
    with contextlib.ExitStack() as stack:
        for number in range(count):
            connection = stack.enter_context(socket.create_connection((address[0], int(address[1])), timeout=30))
            if number % 10 == 0:
                connection.send(b"POST /api/2.0/mlflow/runs/log-metric HTTP/1.1\r\n")
        with writing(server.url, 2, [Metrics]) as running:
            for _ in range(20):
                since = time.monotonic()
                answer = requests.get(f"{server.url}{API}runs/get?run_id={run_id}", timeout=30)
                outcome.acknowledged += answer.status_code == 200
                outcome.wrong += answer.status_code != 200
                outcome.back.append(time.monotonic() - since)
        outcome.notes.append(
            f"{(memory(descendants(server.process.pid)) - before) * 1024 / count:.1f} kB of memory each"
        )
    outcome.unanswered += sum(len(each.unanswered) for each in running.writers)
    outcome.nothing_lost()
    return outcome


def generated(field: Field) -> Outcome:
    """Requests made from the declarations of all endpoints, with every kind of odd value, on both databases: no 500, no
    hang."""
    outcome = Outcome("generated requests")
    total, threads = (1_000_000 if field.long else 20_000), 8
    statuses: Counter[int] = Counter()
    bad: list[str] = []
    different: set[int] = set()
    slowest = [(0.0, "")] * threads

    def send(url: str, seed: int) -> None:
        pool = urllib3.connection_from_url(url, timeout=60, retries=False)
        known: dict[str, str] = {}
        for number in range(total // threads):
            if number % 200 == 0:  # what was there may be deleted by now
                try:
                    known = things(url)
                except requests.RequestException as error:
                    bad.append(f"things to ask for: {error}")
                generator = Generator(f"{field.seed} {seed} {number}", known)
            method, path, message, raw = generator.request()
            shown = f"{method} {path} {json.dumps(message)[:300] if raw is None else raw[:300]!r}"
            different.add(hash((method, path, raw or json.dumps(message))))
            since = time.monotonic()
            try:
                if method == "GET":
                    answer = pool.request(method, f"{path}?{urlencode(message, doseq=True)}")
                else:
                    body = json.dumps(message).encode() if raw is None else raw
                    answer = pool.request(method, path, body=body, headers={"Content-Type": "application/json"})
            except (HTTPError, HTTPException, OSError) as error:
                bad.append(f"{shown}: {type(error).__name__}")
                continue
            statuses[answer.status] += 1
            slowest[seed] = max(slowest[seed], (time.monotonic() - since, shown))
            if answer.status >= 500 and answer.status != 501 and path != "/ready":  # which tells of a busy machine
                bad.append(f"{shown}: {answer.status} {answer.data[:200]!r}")

    servers = [field.serve(database, "--workers", "2") for database in (field.database(), field.sqlite())]
    running = [threading.Thread(target=send, args=(servers[seed % 2].url, seed)) for seed in range(threads)]
    for each in running:
        each.start()
    told = 0
    for each in running:
        while each.is_alive():
            each.join(60)
            new, told = bad[told:], len(bad)
            print(f"{statuses.total():,} answered, {told} bad", *new, sep="\n  ", file=sys.stderr, flush=True)
    outcome.acknowledged = statuses.total()
    outcome.wrong = len(bad)
    outcome.notes.append(", ".join(f"{count:,} x {status}" for status, count in sorted(statuses.items())))
    took, shown = max(slowest)
    outcome.notes.append(f"{len(different):,} of them differ; the slowest answer took {took:.1f} s: {shown[:150]}")
    outcome.notes += bad[:5]
    for server in servers:
        outcome.expect("Traceback" not in server.process.log.read_text(errors="replace"), "the log has a traceback")
    outcome.nothing_lost()
    return outcome


def mixed(field: Field) -> Outcome:
    """Trainers, readers, traces and artifacts together: no error, no growth."""
    seconds = 3600.0 if field.long else 60.0
    outcome, database = Outcome("mixed use"), field.database()
    server = field.serve(database)
    sizes: list[tuple[float, float]] = []
    latencies: list[tuple[float, float]] = []
    errors: list[str] = []
    stopping = threading.Event()

    def read() -> None:
        session = requests.Session()
        run_id = create_run(server.url)
        file = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/file"
        asked: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", f"{server.url}{API}runs/search", {"json": {"experiment_ids": ["0"], "max_results": 50}}),
            ("GET", f"{server.url}{API}runs/get", {"params": {"run_id": run_id}}),
            ("PUT", file, {"data": b"x" * 100_000}),
            ("GET", file, {}),
            ("POST", f"{server.url}/api/3.0/mlflow/traces/search", {
                "json": {"locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}]}}),
        ]  # fmt: skip
        while not stopping.is_set():
            for method, url, options in asked:
                since = time.monotonic()
                answer = session.request(method, url, timeout=60, **options)
                latencies.append((since, time.monotonic() - since))
                if answer.status_code != 200:
                    errors.append(f"{method} {url}: {answer.status_code} {answer.text[:200]}")

    readers = [threading.Thread(target=read) for _ in range(2)]
    begin = time.monotonic()
    with writing(server.url, 1) as running:
        for each in readers:
            each.start()
        while time.monotonic() < begin + seconds:
            time.sleep(seconds / 120)
            sizes.append((time.monotonic() - begin, memory(descendants(server.process.pid))))
        stopping.set()
        for each in readers:
            each.join()
    running.count(database, outcome)
    outcome.acknowledged += len(latencies)
    outcome.unanswered += len(errors)
    outcome.notes += errors[:3]
    settled = [(at, megabytes) for at, megabytes in sizes if at > seconds / 6]
    # what is in flight at a moment comes on top of what stays: of each twelfth of the time the least counts
    twelfths = itertools.groupby(settled, key=lambda each: int(each[0] * 12 / seconds))
    least = [min(part, key=lambda each: each[1]) for _, part in twelfths]
    slope = statistics.linear_regression(*zip(*least, strict=True)).slope * 3600
    thirds = [
        statistics.quantiles([took for at, took in latencies if low <= at - begin < low + seconds / 3], n=100)[98]
        for low in (0.0, seconds / 3, 2 * seconds / 3)
    ]
    outcome.notes.append(
        f"memory {settled[0][1]:.1f} MB, then {settled[-1][1]:.1f} MB ({slope:+.1f} MB/h); "
        f"readers' p99 by thirds {', '.join(f'{each * 1000:.0f} ms' for each in thirds)}"
    )
    if field.long:
        outcome.expect(slope < 1, f"memory grows by {slope:.1f} MB/h")
    outcome.nothing_lost()
    return outcome


DRILLS: dict[str, Drill] = {
    each.__name__.replace("_", "-"): each
    for each in (
        *(
            kills,
            instances,
            database_faults,
            machine.packet_loss,
            machine.packet_loss_s3,
            clients,
            idle,
            generated,
            mixed,
            machine.clock,
        ),
        *(machine.descriptors, machine.small_memory, machine.full_disk, machine.full_disk_postgresql),
    )
}
