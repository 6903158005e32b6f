"""A running server with auth, and its database."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from click.testing import CliRunner

from headrace.cli.commands import cli
from tests.support.databases import Database
from tests.support.processes import clean_environment
from tests.support.servers import STOCK_SECONDS, Server, start_headrace

PASSWORD = "correct horse battery"
ADMIN_TOKEN = "0123456789abcdef0123456789abcdef"


@dataclass
class Guarded:
    """`headrace serve --auth`; its administrator's token is ADMIN_TOKEN."""

    server: Server
    database: Database
    folder: Path

    def headrace(self, *arguments: str, stdin: str = "") -> str:
        """What the command prints, which must work. In this process: dozens of them set up what the tests ask.

        In a thread: Playwright has an event loop in that of the tests.
        """
        clean = clean_environment()
        runner = CliRunner(env={name: clean.get(name) for name in os.environ})
        command = [*arguments, "--backend-store-uri", self.database.uri]
        with contextlib.chdir(self.folder), ThreadPoolExecutor(1) as thread:
            done = thread.submit(runner.invoke, cli, command, input=stdin).result()
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout.strip()

    def request(self, method: str, path: str, token: str | None = None, **more: Any) -> requests.Response:
        headers = ({"Authorization": f"Bearer {token}"} if token else {}) | more.pop("headers", {})
        return requests.request(method, self.server.url + path, headers=headers, timeout=STOCK_SECONDS + 30, **more)

    def status(self, method: str, path: str, token: str | None = None, **more: Any) -> int:
        return self.request(method, path, token, **more).status_code


def start_guarded(
    database: Database,
    folder: Path,
    *options: str,
    users: Mapping[str, str],
    until: str = "/health",
    env: Mapping[str, str] | None = None,
) -> Guarded:
    """A server with these users, name -> role, who all have PASSWORD; ready when ADMIN_TOKEN gets `until`."""
    server = start_headrace(
        database,
        folder,
        "--auth",
        *options,
        env={"HEADRACE_ADMIN_TOKEN": ADMIN_TOKEN} | dict(env or {}),
        until="/health",
    )
    guarded = Guarded(server, database, folder)
    for name, role in users.items():
        guarded.headrace("user", "add", name, "--role", role, stdin=PASSWORD)
    server.process.wait_until(lambda: guarded.status("GET", until, ADMIN_TOKEN) == 200, f"{until} answers")
    return guarded
