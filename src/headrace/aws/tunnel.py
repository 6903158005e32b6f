"""A port of this machine forwarded through Session Manager to a host, or through it to the database.

Amazon's session-manager-plugin carries the bytes; it is called as the AWS CLI calls it
(awscli/customizations/sessionmanager.py): the session's token in its environment, never in an argument.
"""

from __future__ import annotations

import contextlib
import functools
import json
import platform
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NoReturn

from headrace.aws.client import REFUSES_THE_CALLER, Cloud
from headrace.aws.stacks import Say
from headrace.errors import AwsError

PLUGIN = "session-manager-plugin"
_RESPONSE = "AWS_SSM_START_SESSION_RESPONSE"
# Both by https://docs.aws.amazon.com/systems-manager/latest/userguide/plugin-version-history.html, read 2026-11
_READS_ITS_ENVIRONMENT = (1, 2, 536, 0)
SUPPORTED = (1, 2, 764, 0)
"""The oldest that AWS supports: with an older one sessions "might not succeed"."""
_DOWNLOADS = "https://s3.amazonaws.com/session-manager-downloads/plugin/latest"
_MANUAL = (
    "https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html"
)
_SECONDS = 30  # until the plugin listens
_SHORTEST_SESSION = 10  # seconds; one that ends sooner will end again
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds between tries to connect again


def check_plugin() -> None:
    """Raises AwsError, with how to install it, where the plugin is missing, or too old to be started."""
    if shutil.which(PLUGIN) is None:
        raise AwsError(
            f"{PLUGIN} is not installed; it is what reaches hosts that have no open port.\n{how_to_install()}"
        )
    if (found := version()) is not None and found < _READS_ITS_ENVIRONMENT:
        raise AwsError(
            f"{PLUGIN} is {spelled(found)}, which reads no session from its environment; {spelled(SUPPORTED)} is the "
            f"oldest that AWS supports.\n{how_to_install()}"
        )


def version() -> tuple[int, ...] | None:
    """The plugin's that is installed; None where it does not tell."""
    path = shutil.which(PLUGIN)
    return None if path is None else _version(path)


@functools.cache  # a tunnel may be opened every few seconds
def _version(path: str) -> tuple[int, ...] | None:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.fullmatch(r"\d+(\.\d+){3}", said.strip())
    return None if found is None else tuple(int(part) for part in found[0].split("."))


def spelled(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def how_to_install() -> str:
    """The commands for this machine."""
    arm = platform.machine() in ("arm64", "aarch64")
    if platform.system() == "Darwin":
        return "Install it: brew install --cask session-manager-plugin"
    if shutil.which("dpkg"):
        folder = "ubuntu_arm64" if arm else "ubuntu_64bit"
        return (
            f"Install it: curl -o /tmp/smp.deb {_DOWNLOADS}/{folder}/session-manager-plugin.deb && "
            "sudo dpkg -i /tmp/smp.deb"
        )
    if shutil.which("rpm"):
        folder = "linux_arm64" if arm else "linux_64bit"
        return f"Install it: sudo dnf install -y {_DOWNLOADS}/{folder}/session-manager-plugin.rpm"
    return f"Install it: {_MANUAL}"


def session(cloud: Cloud, host: str, port: int, local_port: int, remote: str | None = None) -> subprocess.Popen[bytes]:
    """Start the plugin: 127.0.0.1:`local_port` leads to `port` of the host, or of `remote` as the host sees it."""
    check_plugin()
    parameters = {"portNumber": [str(port)], "localPortNumber": [str(local_port)]}
    document = "AWS-StartPortForwardingSession"
    if remote is not None:
        document = "AWS-StartPortForwardingSessionToRemoteHost"
        parameters["host"] = [remote]
    request = {"Target": host, "DocumentName": document, "Parameters": parameters}
    answer = cloud.call("ssm", "start_session", **request)
    response = {key: answer[key] for key in ("SessionId", "TokenValue", "StreamUrl")}
    endpoint = cloud.client("ssm").meta.endpoint_url
    return subprocess.Popen(
        [PLUGIN, _RESPONSE, cloud.region, "StartSession", cloud.profile or "", json.dumps(request), endpoint],
        env={**cloud.environment(), _RESPONSE: json.dumps(response)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,  # a terminal that closes would end it before its session; `opened` ends both
    )


class Tunnel:
    """An open tunnel: 127.0.0.1:`port`."""

    def __init__(self, port: int, plugin: subprocess.Popen[bytes]) -> None:
        self.port = port
        self._plugin = plugin

    def wait(self) -> NoReturn:
        """Until the session ends. Raises AwsError then."""
        output = self._plugin.communicate()[0].decode(errors="replace").strip()
        raise AwsError(
            f"The session has ended: {output[-500:] or 'the host is gone, or it was idle for long'}.\n"
            "Run the command again."
        )


@contextmanager
def opened(
    cloud: Cloud, host: str, port: int, remote: str | None = None, local_port: int | None = None
) -> Iterator[Tunnel]:
    """A tunnel for the time of the block, at a free local port if none is given. Raises AwsError."""
    local_port = local_port or _free_port()
    if _listens(local_port):
        raise AwsError(
            f"Port {local_port} of this machine is taken by another program. End it, or give another with --port."
        )
    plugin = session(cloud, host, port, local_port, remote)
    try:
        _wait(plugin, local_port, host)
        yield Tunnel(local_port, plugin)
    finally:
        plugin.send_signal(signal.SIGINT)  # on which it ends its session, too; SIGTERM leaves that open
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                plugin.wait(5)
        finally:  # of who presses Ctrl-C again meanwhile, too
            plugin.kill()
            plugin.wait()
            if plugin.stdout is not None:
                plugin.stdout.close()


def keep_open(
    connect: Callable[[], AbstractContextManager[Tunnel]], opened: Callable[[Tunnel], None], say: Say
) -> None:
    """A tunnel that is opened again when its session ends, or can't be opened for a while: until Ctrl-C.

    `opened` is told of the first. Raises AwsError where that fails or ends at once, and where AWS refuses the caller.
    """
    pause, proven = _FIRST_PAUSE, False
    while True:
        began: float | None = None
        try:
            with connect() as way:
                began = time.monotonic()
                if proven:
                    say("Connected again.")
                else:
                    opened(way)
                way.wait()
        except AwsError as error:
            lasted = began is not None and time.monotonic() - began >= _SHORTEST_SESSION
            proven = proven or lasted
            if not proven or error.code in REFUSES_THE_CALLER:
                raise
            what = str(error).partition("\n")[0]
            if lasted:
                pause = _FIRST_PAUSE
                say(f"{what} Connecting again.")
                continue
            say(f"{what} Trying again in {pause:.0f} s.")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _wait(plugin: subprocess.Popen[bytes], port: int, host: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not _listens(port):
        if plugin.poll() is not None or time.monotonic() > deadline:
            plugin.kill()
            output = plugin.stdout.read().decode(errors="replace").strip() if plugin.stdout else ""
            raise AwsError(
                f"The tunnel to {host} did not open: {output or f'no answer within {_SECONDS} s'}\n"
                "`headrace aws doctor` looks at the plugin and at the permissions (ssm:StartSession)."
            )
        time.sleep(0.1)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
