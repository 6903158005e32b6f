"""Secrets that change under a running server: the database's password and the first administrator's token.

Where they are in AWS Systems Manager the supervisor keeps them as files in the server's folder for sockets, which only
its user can enter, and which is in memory in a container (`--tmpfs /tmp`). Whoever connects to the database reads the
password file then: workers, stock MLflow's libpq, the tools. On SIGUSR1 the supervisor reads Systems Manager anew; so
`headrace aws rotate` replaces a secret, and nothing starts again.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import msgspec

from headrace import log, ssm
from headrace.database_url import PostgresURL, parse
from headrace.errors import ConfigurationError
from headrace.settings import Settings

PASSFILE, ADMIN_TOKENS = "passfile", "admin-tokens"
REVISION = "secrets"
"""The file that says which secrets the others have; it comes last. `rotate` waits for it."""
_PASSWORD_IN_URL = re.compile(r"(//[^:@/]*):[^@]*@")


class Renewal:
    """Of one server. `directory` is its own (0700)."""

    def __init__(self, prefix: str, directory: str, environment: Mapping[str, str]) -> None:
        self._prefix, self._directory, self._environment = prefix, Path(directory), environment
        self._wanted = threading.Event()

    def begin(self, settings: Settings) -> Settings:
        """Write the files; the settings that lead to them, without the password. Raises ConfigurationError."""
        database = parse(settings.backend_store_uri)
        assert isinstance(database, PostgresURL)
        self._renew()
        signal.signal(signal.SIGUSR1, lambda *_: self._wanted.set())
        threading.Thread(target=self._run, name="renewal", daemon=True).start()
        url = _PASSWORD_IN_URL.sub(r"\1@", settings.backend_store_uri, count=1)
        url += f"?passfile={quote(str(self._directory / PASSFILE), safe='')}"
        return msgspec.structs.replace(
            settings, backend_store_uri=url, admin_hashes=str(self._directory / ADMIN_TOKENS)
        )

    def _run(self) -> None:
        while self._wanted.wait():
            self._wanted.clear()
            try:
                self._renew()
            except ConfigurationError as error:
                log.say(f"The secrets stay as they are: {error}", "ERROR")
            else:
                log.say("The secrets were read anew.")

    def _renew(self) -> None:
        secrets = ssm.read_secrets(self._prefix, self._environment)
        lines = [f"*:*:*:*:{_escaped(password)}" for password in secrets.passwords]
        self._write(PASSFILE, "\n".join(lines))
        hashes = [hashlib.sha256(token.encode()).hexdigest() for token in secrets.admin_tokens]
        self._write(ADMIN_TOKENS, "\n".join(hashes))
        self._write(REVISION, secrets.revision)

    def _write(self, name: str, text: str) -> None:
        """All of it or nothing, as who reads it sees it; nobody else may (libpq wants that, too)."""
        new = self._directory / f"{name}.new"
        new.touch(mode=0o600)
        new.write_text(f"{text}\n", encoding="utf-8")
        os.replace(new, self._directory / name)


def begun(settings: Settings, directory: str) -> Settings:
    """As `Renewal.begin`, where the secrets are in Systems Manager; otherwise the settings as they are."""
    if settings.ssm_prefix is None:
        return settings
    return Renewal(settings.ssm_prefix, directory, os.environ).begin(settings)


def _escaped(password: str) -> str:
    return password.replace("\\", "\\\\").replace(":", "\\:")
