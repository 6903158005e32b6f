"""`connect` over sessions that end and tunnels that do not open. Hosts and the plugin are fakes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from headrace.aws import execute, hosts, tunnel
from headrace.aws.client import Cloud
from headrace.aws.hosts import Host
from headrace.cli.aws import aws
from headrace.cli.commands import run
from headrace.errors import AwsError, BrokenOff
from tests.support.processes import free_port

ENDS = "The session has ended: it was idle for long.\nRun the command again."
Play = list[AwsError | type[BaseException] | str]


class Plugin:
    """What becomes of each tunnel in turn: it does not open (AwsError), or a session that is "long" or "short" ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, play: Play) -> None:
        self.play = play
        self.now = 0.0
        self.slept: list[float] = []
        monkeypatch.setattr(tunnel, "check_plugin", lambda: None)
        monkeypatch.setattr(execute, "required", lambda *_: None)
        monkeypatch.setattr(hosts, "serving", lambda *_: Host("i-1", "InService", "Healthy", True))
        monkeypatch.setattr(tunnel, "opened", self.opened)
        monkeypatch.setattr("headrace.aws.tunnel.time.monotonic", lambda: self.now)
        monkeypatch.setattr("headrace.aws.tunnel.time.sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    @contextmanager
    def opened(self, *_: Any, **__: Any) -> Iterator[Any]:
        if isinstance(self.play[0], AwsError):
            raise self.play.pop(0)  # type: ignore[misc]
        yield self

    def wait(self) -> None:
        what = self.play.pop(0)
        if what is KeyboardInterrupt:
            raise KeyboardInterrupt
        self.now += 3600 if what == "long" else 1
        raise AwsError(ENDS)


def connect(monkeypatch: pytest.MonkeyPatch, *play: Any) -> tuple[Any, Plugin]:
    plugin = Plugin(monkeypatch, list(play))
    return CliRunner().invoke(aws, ["connect"], env={"AWS_REGION": "eu-central-1"}), plugin


def test_a_tunnel_that_does_not_open_again_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is being replaced, a laptop without its network: it takes a while."""
    gone = AwsError("i-1 is not connected", "TargetNotConnected")
    cut = AwsError("AWS can't be reached: no route.\nLook at the network", "EndpointConnectionError")
    done, plugin = connect(monkeypatch, "long", gone, cut, cut, "long", gone, KeyboardInterrupt)
    assert isinstance(done.exception, BrokenOff)
    assert plugin.play == []
    assert plugin.slept == [1, 2, 4, 1], "each pause longer, until a session has lasted"
    assert "i-1 is not connected Trying again in 1 s." in done.stderr
    assert "AWS can't be reached: no route. Trying again in 4 s." in done.stderr
    assert done.stdout.count("MLflow is at http://localhost:5000") == 1
    assert done.stderr.count("Connected again") == 2
    assert str(done.exception) == "Broken off. The tunnel is closed."


def test_sessions_that_end_at_once_are_slowed_down(monkeypatch: pytest.MonkeyPatch) -> None:
    done, plugin = connect(monkeypatch, "long", *8 * ["short"], KeyboardInterrupt)
    assert isinstance(done.exception, BrokenOff)
    assert plugin.slept == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize("first", [AwsError("Port 5000 is taken"), "short"])
def test_what_never_worked_is_not_tried_again(monkeypatch: pytest.MonkeyPatch, first: Any) -> None:
    done, plugin = connect(monkeypatch, first)
    assert isinstance(done.exception, AwsError)
    assert plugin.slept == []


@pytest.mark.parametrize("code", ["ExpiredTokenException", "AccessDeniedException"])
def test_who_must_log_in_again_is_told(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    done, plugin = connect(monkeypatch, "long", AwsError("no longer", code))
    assert isinstance(done.exception, AwsError)
    assert plugin.slept == []


def test_ctrl_c_while_it_waits_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = Plugin(monkeypatch, ["long", AwsError("i-1 is not connected", "TargetNotConnected")])

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("headrace.aws.tunnel.time.sleep", interrupted)
    done = CliRunner().invoke(aws, ["connect"], env={"AWS_REGION": "eu-central-1"})
    assert isinstance(done.exception, BrokenOff)
    assert plugin.play == []


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_what_is_no_port(port: str) -> None:
    done = CliRunner().invoke(aws, ["connect", "--port", port])
    assert done.exit_code == 2
    assert "Invalid value for '--port'" in done.output


def test_ctrl_c_twice_leaves_no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second while it waits for a plugin that takes its time to end its session."""
    script = (
        "import signal, socket, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "listener = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"
    )
    port, started = free_port(), []

    def session(*_: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", script, str(port)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        return started[0]

    def again(_: float | None = None) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(tunnel, "session", session)
    with pytest.raises(KeyboardInterrupt), tunnel.opened(Cloud(region="eu-central-1"), "i-1", 5000, local_port=port):
        monkeypatch.setattr(started[0], "wait", again)
        raise KeyboardInterrupt
    assert started[0].poll() == -signal.SIGKILL


# What each says on Ctrl-C while AWS keeps it waiting.
_CONTINUES = " What AWS has under way goes on; the same command, run again, continues from there."
_ON_THE_HOST = " What has begun on the host goes on there."
COMMANDS = {
    "doctor": "",
    "selftest": "",
    "plan": "",
    "up --yes": _CONTINUES,
    "status": "",
    "logs --follow": "",
    "connect": " The tunnel is closed.",
    "exec ls": _ON_THE_HOST,
    "user list": _ON_THE_HOST,
    "upgrade v1 --yes": _CONTINUES,
    "rollback --yes": _CONTINUES,
    "rotate --yes": _CONTINUES,
    "restore --snapshot s --yes": _CONTINUES,
    "down --yes": _CONTINUES,
    "export connect-policy": "",
}


def test_each_command_is_tried() -> None:
    assert {command.partition(" ")[0] for command in COMMANDS} == set(aws.commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_is_a_line_and_130(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tunnel, "check_plugin", lambda: None)
    monkeypatch.setattr(Cloud, "call", interrupted)
    monkeypatch.setattr(Cloud, "pages", interrupted)
    monkeypatch.setattr(Cloud, "client", interrupted)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setattr(sys, "argv", ["headrace", "aws", *command.split()])
    with pytest.raises(SystemExit) as ended:
        run()
    assert (ended.value.code, capsys.readouterr().err) == (130, f"headrace: Broken off.{COMMANDS[command]}\n")
