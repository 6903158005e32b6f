"""Secrets that change under a running server: the database's password, or tokens of IAM in its place, and the first
administrator's token.

The supervisor keeps them as files in the server's folder for sockets, which only
its user can enter, and which is in memory in a container (`--tmpfs /tmp`). Whoever connects to the database reads the
password file then: workers, stock MLflow's libpq, the tools. On SIGUSR1 the supervisor reads Systems Manager anew; so
`headrace aws rotate` replaces a secret, and nothing starts again. A token of IAM, good for the connections of
fifteen minutes, is made anew every five. Where the parameter DB_AUTH changes the way in (`headrace aws up --db-auth`),
both a token and the password are tried for as long as there are both.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec

from headrace import log, rds_token
from headrace.database_url import PostgresURL
from headrace.errors import ConfigurationError
from headrace.settings import Settings, checks
from headrace.settings.resolve import without_password
from headrace.ssm import Secrets, read_secrets

PASSFILE, ADMIN_TOKENS = "passfile", "admin-tokens"
REVISION = "secrets"
"""The file that says which secrets the others have; it comes last. `rotate` waits for it."""
TOKEN_EVERY = 300.0  # seconds
_AGAIN = 10.0  # seconds, where it could not be had


class Renewal:
    """Of one server. `directory` is its own (0700)."""

    def __init__(self, settings: Settings, directory: str, environment: Mapping[str, str]) -> None:
        database = settings.database
        assert isinstance(database, PostgresURL)
        self._settings, self._database = settings, database
        self._directory, self._environment = Path(directory), environment
        self._wanted = threading.Event()
        self._by_token = settings.db_auth == "iam"

    def begin(self) -> Settings:
        """Write the files; the settings that lead to them, without the password. Raises ConfigurationError."""
        self._renew()
        signal.signal(signal.SIGUSR1, lambda *_: self._wanted.set())
        threading.Thread(target=self._run, name="renewal", daemon=True).start()
        settings = without_password(self._settings, str(self._directory / PASSFILE))
        return msgspec.structs.replace(settings, admin_hashes=str(self._directory / ADMIN_TOKENS))

    def _run(self) -> None:
        pause = TOKEN_EVERY
        while True:
            asked = self._wanted.wait(pause if self._by_token else None)
            self._wanted.clear()
            try:
                self._renew()
            except ConfigurationError as error:
                log.say(f"The secrets stay as they are: {error}", "ERROR")
                pause = _AGAIN
            else:
                pause = TOKEN_EVERY
                if asked:
                    log.say("The secrets were read anew.")

    def _renew(self) -> None:
        prefix = self._settings.ssm_prefix
        secrets = Secrets((), (), "", "") if prefix is None else read_secrets(prefix, self._environment)
        passwords = secrets.passwords
        self._by_token = (secrets.db_auth or self._settings.db_auth) == "iam"
        if self._by_token:
            checks.check_takes_tokens(self._settings, self._database)
            host = self._database.hosts[0]
            token = rds_token.make(host.name, host.port, self._database.user, self._environment)
            passwords = (token, *passwords)
        self._write(PASSFILE, "\n".join(f"*:*:*:*:{_escaped(password)}" for password in passwords))
        tokens = secrets.admin_tokens or (self._settings.admin_token,)
        self._write(ADMIN_TOKENS, "\n".join(hashlib.sha256(each.encode()).hexdigest() for each in tokens if each))
        self._write(REVISION, secrets.revision)

    def _write(self, name: str, text: str) -> None:
        """All of it or nothing, as who reads it sees it; nobody else may (libpq wants that, too)."""
        new = self._directory / f"{name}.new"
        new.touch(mode=0o600)
        new.write_text(f"{text}\n", encoding="utf-8")
        os.replace(new, self._directory / name)


def begun(settings: Settings, directory: str) -> Settings:
    """As `Renewal.begin`, where secrets are in Systems Manager or IAM's; otherwise the settings as they are."""
    if not isinstance(settings.database, PostgresURL) or (settings.ssm_prefix is None and settings.db_auth != "iam"):
        return settings
    return Renewal(settings, directory, os.environ).begin()


def _escaped(password: str) -> str:
    return password.replace("\\", "\\\\").replace(":", "\\:")
