"""The loop that keeps children running, with real processes."""

from __future__ import annotations

import os
import pwd
import signal
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.process import BackOff, Child, Supervisor, run_once
from headrace.stock.probe import Probe
from tests.support.processes import PATIENCE_SECONDS

READY = """
    parent.ready()
    import time
    while True: time.sleep(1)
"""


@pytest.fixture
def child(tmp_path: Path) -> Callable[..., Child]:
    """Make a child that runs `body` when it has its configuration."""

    def make(body: str, **options: Any) -> Child:
        module = f"child_{len(list(tmp_path.glob('*.py')))}"
        head = "import os, sys\nfrom headrace.child import Parent\nparent = Parent()\nc = parent.read_configuration()\n"
        (tmp_path / f"{module}.py").write_text(head + textwrap.dedent(body))
        given: dict[str, Any] = {"name": "it", "stage": 0, "back_off": BackOff(0.01)}
        made = Child(module=module, environment={"PYTHONPATH": str(tmp_path)}, **given | options)
        made.configuration = {}
        return made

    return make


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor(stop_timeout=PATIENCE_SECONDS)


def test_back_off() -> None:
    back_off = BackOff(0.5, most=3)
    assert [back_off.after(0) for _ in range(5)] == [0.5, 1, 2, 3, 3]
    assert back_off.after(healthy_for=61) == 0.5
    assert back_off.after(0) == 1


def test_an_essential_child_that_cannot_start_ends_it_all(
    child: Callable[..., Child], supervisor: Supervisor, capfd: pytest.CaptureFixture[str]
) -> None:
    supervisor.add(child("sys.exit(3)", essential=True, name="the worker"))
    supervisor.add(child(READY, stage=1))
    for one in supervisor.children:
        supervisor.start(one)
    assert supervisor.run() == 3
    assert capfd.readouterr().err.endswith(" ERROR headrace: the worker could not start (exit code 3)\n")


@pytest.mark.parametrize("ready", ["parent.ready()", "pass"])
def test_a_child_that_was_ready_or_killed_is_started_again(
    ready: str, child: Callable[..., Child], supervisor: Supervisor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    count = tmp_path / "count"
    body = f"""
        open({str(count)!r}, "a").write("x")
        if os.path.getsize({str(count)!r}) < 3:
            {ready}
            os.kill(os.getpid(), 9)
    """
    supervisor.add(child(body + textwrap.indent(READY, "    "), essential=True))
    supervisor.start(supervisor.children[0])
    stop_when(lambda: count.exists() and count.stat().st_size == 3)
    assert supervisor.run() == 0
    assert capfd.readouterr().err.count("it ended (SIGKILL); it starts again") == 2


def stop_when(done: Callable[[], bool]) -> None:
    """Send this process a SIGTERM, as an administrator would, when `done`."""

    def wait() -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not done() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait).start()


def test_stages_end_one_after_the_other(child: Callable[..., Child], supervisor: Supervisor, tmp_path: Path) -> None:
    order = tmp_path / "order"
    body = f"""
        import signal, time
        def end(*_):
            time.sleep(0.2)
            open({str(order)!r}, "a").write(c["number"])
            sys.exit()
        signal.signal(signal.SIGTERM, end)
    """
    for number, stage in (("2", 1), ("1", 0)):
        supervisor.add(child(body + textwrap.indent(READY, "    "), stage=stage))
        supervisor.children[-1].configuration = {"number": number}
        supervisor.start(supervisor.children[-1])
    stop_when(lambda: all(one.was_ready for one in supervisor.children))
    assert supervisor.run() == 0
    assert order.read_text() == "12"


def test_nohup(child: Callable[..., Child], supervisor: Supervisor, tmp_path: Path) -> None:
    """What was told to ignore SIGHUP goes on after one."""
    beats = tmp_path / "beats"
    body = f"""
        import time
        parent.ready()
        while True:
            open({str(beats)!r}, "a").write("x")
            time.sleep(0.01)
    """
    supervisor.add(child(body))
    supervisor.start(supervisor.children[0])
    seen: list[int] = []

    def done() -> bool:
        if not seen and supervisor.children[0].was_ready and beats.exists():
            os.kill(os.getpid(), signal.SIGHUP)
            seen.append(beats.stat().st_size)
        return bool(seen) and beats.stat().st_size > seen[0] + 20

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop_when(done)
        assert supervisor.run() == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert beats.stat().st_size > seen[0] + 20


def test_a_uid_without_a_name_has_a_home(
    child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    one = child("print(os.environ.get('HOME'), end='')")
    monkeypatch.setenv("PYTHONPATH", one.environment["PYTHONPATH"])
    for home, known, shown in (("/a", False, "/a"), (None, False, "/"), (None, True, "None")):
        monkeypatch.delenv("HOME", raising=False)
        if home:
            monkeypatch.setenv("HOME", home)
        with monkeypatch.context() as patch:
            if not known:
                patch.setattr(pwd, "getpwuid", nobody)  # as for a uid that /etc/passwd does not have
            run_once(one.module, {}, source="it")
        assert capfd.readouterr().err.endswith(f" INFO it: {shown}\n")


def nobody(uid: int) -> None:
    raise KeyError(uid)


def test_a_child_that_ignores_the_signal_is_killed(child: Callable[..., Child]) -> None:
    supervisor = Supervisor(stop_timeout=0.2)
    supervisor.add(child("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + textwrap.dedent(READY)))
    supervisor.start(supervisor.children[0])
    stop_when(lambda: supervisor.children[0].was_ready)
    assert supervisor.run() == 0


def test_the_environment_of_a_child_has_no_secrets_but_its_os_environ_has(
    child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "postgresql://me:h1dden@db/d")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "h1dden")
    body = """
        import psutil
        print("h1dden" in str(psutil.Process().environ()), os.environ["AWS_SECRET_ACCESS_KEY"] == "h1dden")
        print("my store is", os.environ["MLFLOW_BACKEND_STORE_URI"], end="")
        sys.exit(4)
    """
    one = child(body)
    monkeypatch.setenv("PYTHONPATH", one.environment["PYTHONPATH"])
    assert run_once(one.module, {}, source="it") == 4
    said = [line.partition(" ")[2] for line in capfd.readouterr().err.splitlines()]
    assert said == ["INFO it: False True", "INFO it: my store is postgresql://me:***@db/d"]


# The first one does, after two answers; a probe that has lost its patience before may be gone by then.
HANGS = """
    import contextlib, signal, socket
    listener = socket.socket(socket.AF_UNIX)
    first = not os.path.exists(c["path"])
    if not first: os.unlink(c["path"])
    listener.bind(c["path"])
    listener.listen()
    parent.ready()
    answered = 0
    while not first or answered < 2:
        client, _ = listener.accept()
        with contextlib.suppress(OSError), client:
            client.recv(100)
            client.sendall(b"HTTP/1.1 200 OK")
        answered += 1
    os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_process_that_no_longer_answers_is_started_again(
    child: Callable[..., Child], supervisor: Supervisor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one = child(HANGS, name="stock")
    path = str(tmp_path / "socket")
    one.configuration = {"path": path}
    supervisor.add(one)
    supervisor.start(one)
    first = one.popen
    Probe(one, path, print, pause=0.05, patience=0.3, failures=3).start()
    stop_when(lambda: one.popen not in (None, first) and one.ready_since is not None)
    assert supervisor.run() == 0
    said = capfd.readouterr()
    assert said.out == "stock did not answer 3 times in a row; it is ended\n"
    assert "WARNING headrace: stock ended (SIGKILL)" in said.err


ENDS_SLOWLY = """
    import signal, time
    open(c["starts"], "a").write("x")
    def end(*_):
        while not os.path.exists(c["may end"]): time.sleep(0.01)
        sys.exit()
    signal.signal(signal.SIGTERM, end)
"""


def test_a_child_that_rests_stays_away_until_it_is_woken(
    child: Callable[..., Child], supervisor: Supervisor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    starts, may_end = tmp_path / "starts", tmp_path / "may end"
    one = child(ENDS_SLOWLY + READY, name="it")
    one.configuration = {"starts": str(starts), "may end": str(may_end)}
    supervisor.add(one)
    looks: list[tuple[str, bool, int]] = []

    def look(what: str, done: bool) -> None:
        looks.append((what, done, starts.stat().st_size if starts.exists() else 0))

    def every_few_ms() -> None:
        supervisor.call_at(time.monotonic() + 0.01, every_few_ms)
        if not looks:
            look("woken first", supervisor.wake(one))
        elif len(looks) == 1 and one.ready_since is not None:
            supervisor.rest(one)
            look("told to end", one.resting)
            look("wanted while it ends", supervisor.wake(one))  # not yet again: it ends first
            may_end.touch()
        elif len(looks) == 3 and one.ready_since is not None and starts.stat().st_size == 2:
            supervisor.rest(one)
            look("told to end again", one.resting)
        elif len(looks) == 4 and one.popen is None:
            look("stays away", one.start_at is None)
            supervisor.stop()

    supervisor.call_at(0, every_few_ms)
    assert supervisor.run() == 0
    assert looks == [
        ("woken first", True, 0),
        ("told to end", True, 1),
        ("wanted while it ends", False, 1),
        ("told to end again", True, 2),
        ("stays away", True, 2),
    ]
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith(" WARNING headrace: it ended (exit code 0); it starts again in 0.01 s")
