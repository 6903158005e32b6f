"""Child processes and the loop that keeps them running.

A child is `python -m MODULE`. Its configuration, secrets included, goes through a socket pair that is its
standard input: nothing of it shows in `ps`, neither as an argument nor in the child's environment. A socket that the
child serves goes the same way. The pair stays open for the child's life. Through it the child says `ready`, and its end
tells the child that we are gone, after `kill -9` too (headrace.child).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from headrace import log
from headrace.uri import redact

if TYPE_CHECKING:
    from headrace.listeners import Listener

# These go to a child through the pair, not through its environment, which `ps e` shows.
_PRIVATE = ("MLFLOW_", "_MLFLOW_", "AWS_", "PG", "PASSWORD")
# Ours reach a child as settings, where it needs them at all; stock must not see the administrator's token.
_OURS = "HEADRACE_"
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LONGEST_WAIT = 1.0  # seconds that a connection waits for the next start of the child that is to serve it
_HEALTHY_AFTER = 60.0  # seconds of readiness after which a crash counts as the first one again


class BackOff:
    """How long to wait before the next start: `first` seconds, doubling to `most`."""

    def __init__(self, first: float, most: float = 30.0) -> None:
        self.first, self.most = first, most
        self._next = first

    def after(self, healthy_for: float) -> float:
        """Seconds to wait, given for how long the child that died had been ready."""
        if healthy_for >= _HEALTHY_AFTER:
            self._next = self.first
        delay = self._next
        self._next = min(self.most, delay * 2)
        return delay


class Child:
    """One process of ours, started again when it dies.

    `stage` orders the stop: all of stage 0 end before stage 1 is told to. `essential`: if it ends by itself before
    it was ever ready, the whole program ends. `source`: what it prints goes to our log, under this name.
    """

    def __init__(
        self,
        name: str,
        module: str,
        *,
        stage: int,
        back_off: BackOff,
        essential: bool = False,
        source: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.module = name, module
        self.stage, self.back_off, self.essential, self.source = stage, back_off, essential, source
        self.environment = dict(environment or {})
        self.configuration: dict[str, Any] | None = None
        self.listener: Listener | None = None
        self._public: dict[str, str] = {}
        self.popen: subprocess.Popen[bytes] | None = None
        self.channel: socket.socket | None = None
        self.ready_since: float | None = None
        self.was_ready = False
        self.resting = False  # it ends because nobody needs it, and stays so until it is started
        self.start_at: float | None = None

    def spawn(self) -> None:
        """Start the process; it imports what it needs and waits for its configuration."""
        ours, theirs = socket.socketpair()
        self._public = _public_environment()
        with theirs:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", self.module],
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE if self.source else None,
                stderr=subprocess.STDOUT if self.source else None,
                env=self._public | self.environment,
                start_new_session=True,  # Ctrl-C is for us; we tell the children
            )
        self.channel, self.ready_since, self.start_at, self.resting = ours, None, None, False
        if self.configuration is not None:
            self._send()

    def has_todays_environment(self) -> bool:
        """Whether it was spawned with the environment that it would be spawned with now."""
        return self._public == _public_environment()

    def configure(self, configuration: dict[str, Any], listener: Listener | None = None) -> None:
        """Set what the child is told and given at each start, and tell it now if it is running."""
        self.configuration, self.listener = configuration, listener
        if self.channel is not None:
            self._send()

    def _send(self) -> None:
        private = {name: text for name, text in os.environ.items() if name.startswith(_PRIVATE)}
        line = json.dumps({"environ": private, **(self.configuration or {})})
        with contextlib.suppress(OSError):  # it died already: the loop sees that
            assert self.channel is not None
            if self.listener is not None:
                socket.send_fds(self.channel, [b" "], [self.listener.fileno()])
            self.channel.sendall(line.encode() + b"\n")

    def signal(self, number: int) -> None:
        """Send a signal, if the process is there."""
        if self.popen is not None and self.popen.poll() is None:
            self.popen.send_signal(number)

    def end(self) -> None:
        """End the process at once."""
        assert self.popen is not None
        self.popen.kill()
        self.popen.wait()
        self.clear()

    def clear(self) -> None:
        """Close what belonged to a process that has ended."""
        assert self.popen is not None
        assert self.channel is not None
        self.channel.close()
        if self.popen.stdout is not None:
            self.popen.stdout.close()
        self.popen = self.channel = None


def run_once(module: str, configuration: dict[str, Any], source: str) -> int:
    """Run a child to its end and return its exit code. What it prints is logged as of `source`."""
    child = Child(module, module, stage=0, back_off=BackOff(0), source=source)
    child.configuration = configuration
    child.spawn()
    assert child.popen is not None
    assert child.popen.stdout is not None
    output = child.popen.stdout.fileno()
    lines = _Lines(source, output)
    try:
        while child.popen.poll() is None:
            select.select([output], [], [], 0.1)
            lines.pump()
        lines.pump()
        return child.popen.wait()
    finally:
        child.end()


def _public_environment() -> dict[str, str]:
    """What of ours a child's environment has; `ps e` shows it."""
    public = {name: text for name, text in os.environ.items() if not name.startswith((*_PRIVATE, _OURS))}
    if os.path.expanduser("~") == "~":  # a uid without a name: MLflow's import fails without a home
        public["HOME"] = "/"  # as Docker has it
    return public


class _Lines:
    """What a child prints, to our log: whole lines, and URIs without passwords."""

    def __init__(self, source: str, fd: int) -> None:
        self._relay, self.fd = log.Relay(source), fd
        self._partial = b""
        os.set_blocking(fd, False)

    def pump(self) -> None:
        """Pass on what there is now."""
        while True:
            try:
                data = os.read(self.fd, 65536)
            except BlockingIOError:
                return
            *lines, self._partial = (self._partial + data).split(b"\n")
            if not data or len(self._partial) > 65536:  # the end, or no line at all
                lines, self._partial = [*lines, self._partial], b""
            for line in lines:
                self._write(line)
            if not data:
                return

    def _write(self, line: bytes) -> None:
        if text := line.decode(errors="replace").rstrip():
            self._relay.write(redact(text))


class Supervisor:
    """Runs children until a signal or an essential child's failure, then stops them stage by stage."""

    def __init__(self, *, stop_timeout: float) -> None:
        self.children: list[Child] = []
        self.stop_timeout = stop_timeout
        self.on_all_ready: Callable[[], None] | None = None
        self.on_stop: Callable[[], None] | None = None
        self.exit_code = 0
        self._stop_requests = 0
        self._stage = -1
        self._deadline = float("inf")
        self._selector = selectors.DefaultSelector()
        self._timers: dict[Callable[[], None], float] = {}

    def watch(self, file: socket.socket, callback: Callable[[], None]) -> None:
        """Call back in the loop whenever `file` is readable."""
        self._selector.register(file, selectors.EVENT_READ, callback)

    def add(self, child: Child) -> None:
        """Put a child, spawned or not, under supervision."""
        self.children.append(child)
        if child.popen is not None:
            self._listen_to(child)

    def start(self, child: Child) -> None:
        """Spawn a child that is under supervision."""
        child.spawn()
        self._listen_to(child)

    def rest(self, child: Child) -> None:
        """End a child that nobody needs at the moment."""
        child.resting, child.start_at = True, None
        child.signal(signal.SIGTERM)

    def wake(self, child: Child) -> bool:
        """Start a child that rests or never ran; False where it runs or is about to."""
        if child.popen is None and child.start_at is None:
            self.start(child)
            return True
        child.resting = False  # one that is just ending starts again at its end
        return False

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call back in the loop at `when` (time.monotonic), instead of the time that was said before."""
        self._timers[callback] = when

    def stop(self, exit_code: int = 0) -> None:
        """Begin to stop; a second call ends everything at once."""
        self.exit_code = self.exit_code or exit_code
        self._stop_requests += 1
        if self.on_stop is not None:
            callback, self.on_stop = self.on_stop, None
            callback()

    def run(self) -> int:
        """The loop. Returns the exit code when every child has ended."""
        wake, woken = socket.socketpair()
        with wake, woken:
            wake.setblocking(False)
            self.watch(woken, lambda: self._on_signals(woken.recv(256)))
            # The handlers do nothing; the wake-up descriptor tells the loop.
            numbers = [*_STOP_SIGNALS, signal.SIGCHLD]
            if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup
                numbers.remove(signal.SIGHUP)
            before = {number: signal.signal(number, lambda *_: None) for number in numbers}
            signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
            try:
                while self._step():
                    for key, _ in self._selector.select(self._timeout()):
                        key.data()
            finally:
                self.kill()
                signal.set_wakeup_fd(-1)
                for number, handler in before.items():
                    signal.signal(number, handler)
        return self.exit_code

    def kill(self) -> None:
        """End every child at once."""
        for child in self.children:
            child.signal(signal.SIGKILL)

    def _step(self) -> bool:
        """Look after the children; False when there is nothing left to do."""
        if not self._stop_requests:
            for callback in [each for each, when in self._timers.items() if when <= time.monotonic()]:
                del self._timers[callback]
                callback()
        for child in self.children:
            if child.popen is not None and (code := child.popen.poll()) is not None:
                self._forget(child)
                self._on_end(child, code)
        if self._stop_requests:
            return self._stop_step()
        now = time.monotonic()
        for child in self.children:
            if child.start_at is not None and child.start_at <= now:
                self.start(child)
        return True

    def _stop_step(self) -> bool:
        running = [child for child in self.children if child.popen is not None]
        stage = min((child.stage for child in running), default=None)
        if stage is None:
            return False
        if self._stop_requests > 1 or time.monotonic() >= self._deadline:
            for child in running:
                if self._stop_requests > 1 or child.stage == stage:
                    child.signal(signal.SIGKILL)
        elif stage != self._stage:
            self._stage, self._deadline = stage, time.monotonic() + self.stop_timeout
            for child in running:
                if child.stage == stage:
                    child.signal(signal.SIGTERM)
        return True

    def _timeout(self) -> float | None:
        if self._stop_requests:
            times = [self._deadline]
        else:
            starts = [child.start_at for child in self.children if child.start_at is not None]
            times = [*starts, *self._timers.values()]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _on_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number in _STOP_SIGNALS:
                self.stop()

    def _on_end(self, child: Child, code: int) -> None:
        if self._stop_requests:
            return
        killed = code < 0  # kill -9, or for want of memory: the next start may do better
        if child.essential and not child.was_ready and not killed:
            log.say(f"{child.name} could not start ({_how(code)})", "ERROR")
            self.stop(exit_code=code if code in (2, 3) else 1)
            return
        if child.resting:
            child.ready_since = None
            return
        now = time.monotonic()
        delay = child.back_off.after(now - child.ready_since if child.ready_since is not None else 0.0)
        child.ready_since, child.start_at = None, now + delay
        if child.listener is not None and delay > _LONGEST_WAIT:
            child.listener.withdraw()
        log.say(f"{child.name} ended ({_how(code)}); it starts again in {delay:g} s", "WARNING")

    def _listen_to(self, child: Child) -> None:
        assert child.popen is not None
        assert child.channel is not None
        child.channel.setblocking(False)
        self.watch(child.channel, lambda: self._on_message(child))
        if child.popen.stdout is not None:
            lines = _Lines(child.source, child.popen.stdout.fileno())
            self._selector.register(child.popen.stdout, selectors.EVENT_READ, lines.pump)

    def _forget(self, child: Child) -> None:
        assert child.popen is not None
        assert child.channel is not None
        if child.channel in self._selector.get_map():
            self._selector.unregister(child.channel)
        if child.popen.stdout is not None:
            self._selector.get_key(child.popen.stdout).data()  # its last words
            self._selector.unregister(child.popen.stdout)
        child.clear()

    def _on_message(self, child: Child) -> None:
        assert child.channel is not None
        try:
            message = child.channel.recv(256)
        except OSError:
            message = b""
        if not message:
            self._selector.unregister(child.channel)  # SIGCHLD will follow
            return
        child.ready_since, child.was_ready = time.monotonic(), True
        if self.on_all_ready is not None and all(c.was_ready for c in self.children if c.essential):
            callback, self.on_all_ready = self.on_all_ready, None
            callback()


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
