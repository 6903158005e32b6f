"""`connect` over sessions that end and tunnels that do not open. Hosts and the plugin are fakes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from headrace.aws import execute, hosts, tunnel
from headrace.aws.hosts import Host
from headrace.cli.aws import aws
from headrace.errors import AwsError

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
        monkeypatch.setattr(hosts, "wait_online", lambda *_: [Host("i-1", "InService", "Healthy", True)])
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
    assert (done.exit_code, plugin.play) == (0, []), (done.output, done.exception)
    assert plugin.slept == [1, 2, 4, 1], "each pause longer, until a session has lasted"
    assert "i-1 is not connected Trying again in 1 s." in done.stderr
    assert "AWS can't be reached: no route. Trying again in 4 s." in done.stderr
    assert done.stdout.count("MLflow is at http://localhost:5000") == 1
    assert done.stderr.count("Connected again") == 2
    assert done.stderr.endswith("closed\n")


def test_sessions_that_end_at_once_are_slowed_down(monkeypatch: pytest.MonkeyPatch) -> None:
    done, plugin = connect(monkeypatch, "long", *8 * ["short"], KeyboardInterrupt)
    assert done.exit_code == 0, (done.output, done.exception)
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
    assert (done.exit_code, plugin.play) == (0, [])
    assert done.stderr.endswith("closed\n")
