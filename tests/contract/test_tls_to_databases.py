"""TLS as libpq's sslmode has it, against PgBouncer, which answers as PostgreSQL does (the tests' own has no TLS)."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psycopg2
import pytest

from headrace.database_url import PostgresURL, parse
from headrace.db.connection_errors import explain, is_temporary
from headrace.db.connections import connect
from headrace.db.tls import Unreadable
from tests.support.pgbouncer import PROGRAM, PgBouncer
from tests.support.postgres import Postgres
from tests.support.tls import certificate

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="PgBouncer is not installed")
HOST = "db.example.com"


class Servers:
    """One with a certificate that is good, one whose has expired, and one without TLS."""

    def __init__(self, postgres: Postgres, folder: Path) -> None:
        self.postgres = postgres
        self.root: dict[str, Path] = {}
        self.poolers: dict[str, PgBouncer] = {}
        for name, days in (("good", 1), ("expired", -1)):
            (folder / name).mkdir()
            made = certificate(folder / name, HOST, days)
            self.root[name] = made[0]
            self.poolers[name] = PgBouncer(postgres, "session", tls=made)
            self.poolers[name].start()

    def url(self, server: str, parameters: str) -> PostgresURL:
        port = self.postgres.port if server == "plain" else self.poolers[server].port
        root = self.root.get(server, Path("/none"))
        url = parse(
            f"postgresql://postgres@{HOST}:{port}/postgres?hostaddr=127.0.0.1&{parameters.replace('ROOT', str(root))}",
            {},
        )
        assert isinstance(url, PostgresURL)
        return url


@pytest.fixture(scope="module")
def servers(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    made = Servers(postgres, tmp_path_factory.mktemp("tls"))
    yield made
    for pooler in made.poolers.values():
        pooler.remove()


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("server", "parameters", "encrypted"),
    [
        ("plain", "sslmode=disable", False),
        ("plain", "sslmode=allow", False),
        ("plain", "sslmode=prefer", False),
        ("good", "sslmode=allow", True),
        ("good", "sslmode=prefer", True),
        ("good", "sslmode=require", True),
        ("good", "sslmode=require&sslsni=0", True),
        ("good", "sslmode=require&sslcert=/gone", True),
        ("good", "sslmode=require&sslcertmode=disable", True),
        ("expired", "sslmode=require", True),
        ("good", "sslmode=verify-ca&sslrootcert=ROOT", True),
        ("good", "sslmode=verify-full&sslrootcert=ROOT", True),
        ("good", "sslmode=verify-full&sslrootcert=ROOT&ssl_min_protocol_version=TLSv1.3", True),
    ],
)
async def test_what_works_works_in_libpq_too(servers: Servers, server: str, parameters: str, encrypted: bool) -> None:
    url = servers.url(server, parameters)
    connection = await connect(url)
    assert (connection._transport.get_extra_info("ssl_object") is not None) is encrypted
    assert await connection.fetchval("SELECT 7") == 7
    await connection.close()
    theirs = psycopg2.connect(**url.for_libpq())
    assert theirs.info.ssl_in_use is encrypted
    theirs.close()


@pytest.mark.parametrize(
    ("server", "parameters", "says"),
    [
        ("plain", "sslmode=require", "rejected SSL upgrade"),
        ("good", "sslmode=disable", "TLS|SSL"),
        ("good", "sslmode=verify-full", "needs the certificate of who signed"),
        ("good", "sslmode=verify-full&sslrootcert=/gone", "a certificate or key can't be read"),
        ("good", "sslmode=verify-full&sslrootcert=system", "can't be trusted: self-signed certificate"),
        ("expired", "sslmode=verify-full&sslrootcert=ROOT", "can't be trusted: certificate has expired"),
        ("good", "sslmode=require&sslcert=ROOT&sslkey=/gone", "a certificate or key can't be read"),
    ],
)
async def test_what_is_refused_is_refused_by_libpq_too(
    servers: Servers, server: str, parameters: str, says: str
) -> None:
    url = servers.url(server, parameters)
    with pytest.raises((OSError, asyncpg.PostgresError)) as raised:
        await connect(url)
    explained = explain(raised.value, url)
    assert re.search(says, str(explained)), explained
    if isinstance(raised.value, ssl.SSLCertVerificationError | Unreadable):
        assert not is_temporary(raised.value)
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(**url.for_libpq())


async def test_another_hosts_certificate(servers: Servers) -> None:
    url = servers.url("good", "sslmode=verify-full&sslrootcert=ROOT&host=other.example.com")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        await connect(url)
    with pytest.raises(psycopg2.OperationalError, match="does not match host name"):
        psycopg2.connect(**url.for_libpq())
