"""Stands for Amazon's session-manager-plugin, which needs Amazon's servers: forwards its local port to a port here.

TUNNELS is JSON: {"5000": port} for a host's ports, {"remote": port} for what the host reaches by name; "host:port" is
of another machine. {"hosts": folder} is for several hosts: a file of each has its port, and its sessions end with the
file. It takes the true plugin's arguments, and fails as that does where the session's response is not in
the environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from pathlib import Path


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


def main() -> None:
    _, response, _region, operation, _profile, request, _endpoint = sys.argv
    assert json.loads(os.environ[response])["TokenValue"] == "secret-token"
    assert operation == "StartSession"
    session, tunnels = json.loads(request), json.loads(os.environ["TUNNELS"])
    parameters = session["Parameters"]
    (port,), (local_port,) = parameters["portNumber"], parameters["localPortNumber"]
    if "hosts" in tunnels:
        file = Path(tunnels["hosts"], session["Target"])
        tunnels["5000"] = json.loads(file.read_text())["port"]
        threading.Thread(target=end_with, args=[file], daemon=True).start()
    asyncio.run(forward_all(tunnels["remote" if "host" in parameters else port], int(local_port)))


def end_with(file: Path) -> None:
    while file.exists():
        time.sleep(0.2)
    os._exit(0)


async def forward_all(target: object, local_port: int) -> None:
    host, _, remote_port = str(target).rpartition(":")

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(host or "127.0.0.1", int(remote_port))
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)

    server = await asyncio.start_server(forward, "127.0.0.1", local_port)
    await server.serve_forever()


def install(folder: Path, version: str = "1.2.764.0") -> None:
    """Put it into a folder, to be named in PATH."""
    plugin = folder / "session-manager-plugin"
    told = f'if [ "$1" = --version ]; then echo {version}; exit; fi'
    plugin.write_text(f'#!/bin/sh\n{told}\nexec {sys.executable} {Path(__file__).resolve()} "$@"\n')
    plugin.chmod(0o755)


if __name__ == "__main__":
    main()
