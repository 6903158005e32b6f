"""What a database URL means: to our own connections, to stock MLflow's and to the tools alike.

Taken apart as SQLAlchemy does it (sqlalchemy.engine.url._parse_url), since `mlflow server` takes URLs for SQLAlchemy.
Then, on PostgreSQL, completed as libpq does it: from the service file, the PG* variables and the defaults
(https://www.postgresql.org/docs/18/libpq-connect.html, -envars, -pgservice). What comes out says everything, so
that asyncpg here and libpq in stock can only mean the same server, database, schema and role. docs/database.md has the
table for people.
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode

import msgspec

from headrace.errors import ConfigurationError
from headrace.uri import redact, scheme_of

# SQLAlchemy's own pattern, but that several hosts may have a port each, as in libpq's URLs: a password may hold
# any character but "@" without being quoted.
_PATTERN = re.compile(
    r"""
    (?P<scheme>[\w+]+)://
    (?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?
    (?P<hosts>[^/?]*)
    (?:/(?P<database>[^?]*))?
    (?:\?(?P<query>.*))?
    """,
    re.X,
)
# hostname:port:database:username:password; a backslash before a colon or a backslash that belongs to one of them
_PASSWORD_LINE = re.compile(r"((?:\\.|[^:\\])*):" * 4 + "(.*)")
_HOST = re.compile(r"(?:\[(?P<ipv6>[^\]]+)\]|(?P<host>[^:\[\]]*))(?::(?P<port>\d*))?")
_POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg2", "postgresql+psycopg")
_SQLITE = ("sqlite", "sqlite+pysqlite")
# what SQLAlchemy reads of a file's URL (SQLiteDialect_pysqlite.create_connect_args)
_SQLITE_PARAMETERS = frozenset({"timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements"})
# SQLAlchemy's drivers of MLflow's other databases -> what must be installed
_DRIVERS = {
    "mysql": "MySQLdb",
    "mysql+mysqldb": "MySQLdb",
    "mysql+pymysql": "pymysql",
    "mysql+mysqlconnector": "mysql.connector",
    "mssql": "pyodbc",
    "mssql+pyodbc": "pyodbc",
    "mssql+pymssql": "pymssql",
    "postgresql+pg8000": "pg8000",
    "postgresql+asyncpg": "",  # asynchronous, which MLflow is not
}
_NO_DATABASE = ("file", "http", "https", "databricks", "databricks-uc", "uc")
# what MLflow's file store and libpq's defaults for sockets are, where the packages of the distributions have them
SOCKET_DIRECTORIES = ("/var/run/postgresql", "/tmp")  # noqa: S108
DEFAULT_PORT = "5432"

# Seconds and milliseconds. A host that vanished, or a firewall that forgot the connection, is noticed within 10 s: by
# libpq in stock, too, which else waits for the kernel's quarter of an hour.
DEFAULTS = {
    "connect_timeout": "5",
    "keepalives_idle": "4",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}

_TLS = "asyncpg, which makes Headrace's connections, can't do that; use sslmode=verify-full, which proves who the "
_TLS += "server is before it gets the password"
_KERBEROS = "asyncpg, which makes Headrace's connections, can't do that; leave it out and use sslmode=verify-full"
_OAUTH = "asyncpg, which makes Headrace's connections, can't do that; use a password or a client certificate"


class Parameter(NamedTuple):
    """One of libpq's. `allowed`: the values that work, a pattern; others are refused with `instead`."""

    variable: str = ""
    allowed: str = ""
    instead: str = ""


_YEAR = 31_536_000
_PORTS = r"\d*(,\d*)*"
_NUMBER = r"-?\d{1,9}"  # of 32 bits, as the system takes them
PARAMETERS: Mapping[str, Parameter] = {
    "service": Parameter("PGSERVICE"),
    "host": Parameter("PGHOST"),
    "hostaddr": Parameter("PGHOSTADDR"),
    "port": Parameter("PGPORT", _PORTS, "a port is a number up to 65535, such as 5432"),
    "dbname": Parameter("PGDATABASE"),
    "user": Parameter("PGUSER"),
    "password": Parameter("PGPASSWORD"),
    "passfile": Parameter("PGPASSFILE"),
    "require_auth": Parameter("PGREQUIREAUTH", "", _TLS),
    "channel_binding": Parameter("PGCHANNELBINDING", "disable|prefer", _TLS),
    "connect_timeout": Parameter("PGCONNECT_TIMEOUT", _NUMBER, "it is a number of seconds, of nine digits at most"),
    "client_encoding": Parameter(
        "PGCLIENTENCODING", "(?i)auto|utf-?8|unicode", "MLflow's texts are UTF-8; leave it out"
    ),
    "options": Parameter("PGOPTIONS"),
    "application_name": Parameter("PGAPPNAME"),
    "fallback_application_name": Parameter(),
    "keepalives": Parameter("", _NUMBER, "it is 1 or 0"),
    "keepalives_idle": Parameter("", _NUMBER, "it is a number of seconds, of nine digits at most"),
    "keepalives_interval": Parameter("", _NUMBER, "it is a number of seconds, of nine digits at most"),
    "keepalives_count": Parameter("", _NUMBER, "it is a number, of nine digits at most"),
    "tcp_user_timeout": Parameter("", _NUMBER, "it is a number of milliseconds, of nine digits at most"),
    "replication": Parameter("", "(?i)false|off|no|0", "a replication connection runs no queries; leave it out"),
    "gssencmode": Parameter("PGGSSENCMODE", "disable|prefer", _KERBEROS),
    "sslmode": Parameter(
        "PGSSLMODE",
        "disable|allow|prefer|require|verify-ca|verify-full",
        "it is disable, allow, prefer, require, verify-ca or verify-full",
    ),
    "sslnegotiation": Parameter("PGSSLNEGOTIATION", "postgres|direct", "it is postgres or direct"),
    "sslcompression": Parameter("PGSSLCOMPRESSION", "0|1", "it is 0 or 1, and does nothing"),
    "sslcert": Parameter("PGSSLCERT"),
    "sslkey": Parameter("PGSSLKEY", r"(?!\w+:).*", "a key in an OpenSSL engine can't be used; name a file"),
    "sslkeylogfile": Parameter(),
    "sslpassword": Parameter(),
    "sslcertmode": Parameter("PGSSLCERTMODE", "disable|allow", _TLS),
    "sslrootcert": Parameter("PGSSLROOTCERT"),
    "sslcrl": Parameter("PGSSLCRL"),
    "sslcrldir": Parameter("PGSSLCRLDIR"),
    "sslsni": Parameter("PGSSLSNI", "0|1", "it is 0 or 1"),
    "requirepeer": Parameter(
        "PGREQUIREPEER",
        "",
        "asyncpg, which makes Headrace's connections, can't do that; let only PostgreSQL's user write to the socket's "
        "directory",
    ),
    "ssl_min_protocol_version": Parameter(
        "PGSSLMINPROTOCOLVERSION", r"TLSv1(\.[123])?", "it is TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3"
    ),
    "ssl_max_protocol_version": Parameter(
        "PGSSLMAXPROTOCOLVERSION", r"TLSv1(\.[123])?", "it is TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3"
    ),
    "min_protocol_version": Parameter("PGMINPROTOCOLVERSION", r"3\.0", "asyncpg and stock speak protocol 3.0"),
    "max_protocol_version": Parameter("PGMAXPROTOCOLVERSION", r"3\.[02]|latest", "it is 3.0, 3.2 or latest"),
    "krbsrvname": Parameter("PGKRBSRVNAME"),
    "gsslib": Parameter("PGGSSLIB", "gssapi", "sspi is Windows'; leave it out"),
    "gssdelegation": Parameter("PGGSSDELEGATION", "0", _KERBEROS),
    "scram_client_key": Parameter("", "", _OAUTH),
    "scram_server_key": Parameter("", "", _OAUTH),
    "oauth_issuer": Parameter("", "", _OAUTH),
    "oauth_client_id": Parameter("", "", _OAUTH),
    "oauth_client_secret": Parameter("", "", _OAUTH),
    "oauth_scope": Parameter("", "", _OAUTH),
    "target_session_attrs": Parameter(
        "PGTARGETSESSIONATTRS", "any|read-write|primary", "the server writes: use read-write, primary or any"
    ),
    "load_balance_hosts": Parameter("PGLOADBALANCEHOSTS", "disable|random", "it is disable or random"),
}
# psycopg2-binary carries libpq 17, which knows nothing of these.
_NEW_IN_18 = ("min_protocol_version", "max_protocol_version", "sslkeylogfile")
_INSTEAD = {
    "ssl": "sslmode=require",
    "database": "dbname",
    "username": "user",
    "timeout": "connect_timeout",
    "pool_size": "--database-connections",
    "search_path": "options=-csearch_path=NAME",
    "schema": "options=-csearch_path=NAME",
    "currentSchema": "options=-csearch_path=NAME",
    "pgbouncer": "nothing: a pooler is found out by itself",
}


class Host(NamedTuple):
    """Where a server may be. `name` may be a socket's directory; `address` is where to connect to, if that differs."""

    name: str
    address: str
    port: int

    @property
    def is_socket(self) -> bool:
        """Whether it is a Unix socket, "@" before one in the abstract namespace."""
        return self.address.startswith(("/", "@"))


class PostgresURL(msgspec.Struct, frozen=True, kw_only=True):
    """A database on PostgreSQL. `parameters` are libpq's, complete: user, dbname, host and port are always there."""

    url: str
    parameters: dict[str, str]

    kind = "postgresql"

    @property
    def user(self) -> str:
        """The role."""
        return self.parameters["user"]

    @property
    def name(self) -> str:
        """The database's name."""
        return self.parameters["dbname"]

    @property
    def hosts(self) -> list[Host]:
        """In the order in which they are tried."""
        names = self.parameters["host"].split(",")
        addresses = self.parameters.get("hostaddr", "").split(",")
        ports = self.parameters["port"].split(",")
        addresses = addresses * len(names) if addresses == [""] else addresses
        ports = ports * len(names) if len(ports) == 1 else ports
        if not len(names) == len(ports) == len(addresses):
            raise ConfigurationError(
                f"{redact(self.url)} names {len(names)} hosts, {len(addresses)} addresses and {len(ports)} ports. "
                "Give each host one, or all of them one port."
            )
        parts = zip(names, addresses, ports, strict=True)
        return [Host(name or address, address or name, int(port or DEFAULT_PORT)) for name, address, port in parts]

    @property
    def settings(self) -> dict[str, str]:
        """What `options` sets in the server, by name: `-c name=value` and `--name=value`, as postgres takes them."""
        settings = {}
        words = _words(self.parameters.get("options", ""))
        while words:
            word = words.pop(0)
            if word == "-c" and words:
                word = words.pop(0)
            elif word.startswith(("-c", "--")):
                word = word[2:]
            else:
                word = ""
            name, equals, value = word.partition("=")
            if not equals:
                raise ConfigurationError(
                    f"`options` of {redact(self.url)} has more than settings. Write -cNAME=VALUE for each."
                )
            settings[name.replace("-", "_")] = value
        return settings

    @property
    def shown(self) -> str:
        """For people, without passwords: where it is, however that was said."""
        where = ",".join(f"{host.name}:{host.port}" for host in self.hosts)
        return f"postgresql://{self.user}@{where}/{self.name}"

    def passwords_for(self, host: Host) -> list[str]:
        """The password, or what the password file has for this host (libpq-pgpass), read anew each time.

        While a password is replaced (renewal.py) the file has two lines: the second is tried where the first is
        refused, and the first once more, since the database may have taken it in between. Empty where there is none.
        """
        if password := self.parameters.get("password"):
            return [password]
        file = self.parameters.get("passfile") or _of_home(".pgpass")
        try:
            path = Path(file)
            if not path.is_file() or path.stat().st_mode & 0o077:  # libpq ignores one that others can read
                return []
            lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except OSError:
            return []
        passwords = []
        names = {host.name, "localhost"} if host.is_socket else {host.name}
        for line in lines:
            found = None if line.startswith("#") else _PASSWORD_LINE.fullmatch(line)
            if found is not None:
                fields = [re.sub(r"\\(.)", r"\1", field) for field in found.groups()]
                wanted = ({*names, "*"}, {str(host.port), "*"}, {self.name, "*"}, {self.user, "*"})
                if all(field in allowed for field, allowed in zip(fields, wanted, strict=False)):
                    passwords.append(fields[4])
        return [*passwords, passwords[0]] if len(passwords) > 1 else passwords

    def for_libpq(self) -> dict[str, str]:
        """The parameters for the libpq that stock's driver carries."""
        given = DEFAULTS | self.parameters
        given = {name: value for name, value in given.items() if name not in _NEW_IN_18}
        if given.get("sslrootcert") == "system":  # its OpenSSL looks where it was built
            given["sslrootcert"] = _system_certificates() or "system"
        return given

    def stock_url(self) -> str:
        """The URL for SQLAlchemy, with the driver in full: with SQLAlchemy 2.1 `postgresql://` means psycopg 3."""
        given = self.for_libpq()
        login = quote(given.pop("user"), safe="")
        if password := given.pop("password", ""):
            login += ":" + quote(password, safe="")
        authority = ""
        if len(self.hosts) == 1 and not self.hosts[0].is_socket:
            host = given.pop("host")
            authority = f"{f'[{host}]' if ':' in host else host}:{given.pop('port')}"
        path = quote(given.pop("dbname"), safe="")
        return f"postgresql+psycopg2://{login}@{authority}/{path}?{urlencode(given, quote_via=quote)}"


class SqliteURL(msgspec.Struct, frozen=True, kw_only=True):
    """A file. `timeout`: seconds to wait for somebody else's transaction, if given; the rest is stock's."""

    url: str
    path: str
    timeout: float | None = None

    kind = "sqlite"

    @property
    def shown(self) -> str:
        """For people."""
        return self.url

    def stock_url(self) -> str:
        """SQLAlchemy's URL."""
        return self.url


class OtherURL(msgspec.Struct, frozen=True, kw_only=True):
    """One that stock MLflow works on alone: MySQL, SQL Server, SQLite with a URI of its own."""

    url: str
    kind: str

    @property
    def shown(self) -> str:
        """For people, without a password."""
        return redact(self.url)

    def stock_url(self) -> str:
        """SQLAlchemy's URL."""
        return self.url


DatabaseURL = PostgresURL | SqliteURL | OtherURL


def parse(url: str, environment: Mapping[str, str] | None = None) -> DatabaseURL | None:
    """What a store's URL says, with what the environment adds; None for what is no database (a path, `file:...`).

    Raises ConfigurationError, whose text shows no password.
    """
    environment = os.environ if environment is None else environment
    if url != url.strip() or "\n" in url:
        raise ConfigurationError(
            f"{redact(url)!r} has a blank or a new line at its end or in it. Take it out; `echo` and files add one."
        )
    if url[:1] in "\"'" and url:
        raise ConfigurationError(
            f"{redact(url)} has quotes around it. Take them out: docker's --env-file and systemd's lists keep them."
        )
    match = _PATTERN.match(url)
    if match is None:
        _check_scheme(url)
        return None
    scheme = match["scheme"]
    if scheme in _NO_DATABASE:
        return None
    query = _query(url, match["query"] or "")
    if scheme in _SQLITE:
        if match["user"] is not None or match["hosts"]:
            raise ConfigurationError(
                f"{redact(url)} names a host, and SQLite has none. Write sqlite:///PATH, three slashes."
            )
        return _sqlite(url, unquote(match["database"] or ""), query)
    if scheme in _POSTGRESQL:
        return PostgresURL(url=url, parameters=_complete(url, _given(url, match, query), environment))
    if scheme.partition("+")[0] in ("mysql", "mssql", "sqlite", "postgresql"):
        _check_driver(url, scheme)
        return OtherURL(url=url, kind=scheme)
    _check_plugin(url, scheme)
    return None


def _check_scheme(url: str) -> None:
    """Raises ConfigurationError for what is no URL of a database and no folder either: postgresql:h/d, jdbc:...

    The slashes of one are easily lost; MLflow takes what is before a colon for the kind of the store, and fails later.
    """
    scheme = scheme_of(url)
    if scheme and scheme not in _NO_DATABASE:
        _check_plugin(url, scheme)
    elif not scheme and "://" in url:
        raise ConfigurationError(
            f"{redact(url)} is no URL: before :// belongs postgresql or sqlite, and nothing before that."
        )
    beginning = re.match(r"[\w+]+(?=//)", url)
    if beginning is not None and beginning[0] in (*_SQLITE, *_POSTGRESQL, *_DRIVERS):
        raise ConfigurationError(f"{redact(url)} lacks the colon of a URL. Write {beginning[0]}://.")


def _check_plugin(url: str, scheme: str) -> None:
    """Raises ConfigurationError unless a plugin of MLflow's has such stores."""
    from importlib.metadata import entry_points  # 20 ms that no start in order waits for

    if not any(plugin.name == scheme for plugin in entry_points(group="mlflow.tracking_store")):
        raise ConfigurationError(
            f"{redact(url)} is no store that MLflow knows. Use postgresql://, sqlite:///PATH, mysql+pymysql://, "
            "mssql+pyodbc:// or a folder."
        )


def stock_url(url: str) -> str:
    """A store's URL for stock."""
    database = parse(url)
    return url if database is None else database.stock_url()


def _query(url: str, text: str) -> dict[str, list[str]]:
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(text):
        query.setdefault(name, []).append(value)
    for name, values in query.items():
        if len(values) > 1 and name != "host":
            raise ConfigurationError(f"{redact(url)} has {name} twice. Leave one out.")
    return query


def _sqlite(url: str, path: str, query: dict[str, list[str]]) -> SqliteURL | OtherURL:
    if "uri" in query:  # sqlite:///file:PATH?mode=ro&uri=true: SQLite's own URIs
        return OtherURL(url=url, kind="sqlite")
    if unknown := sorted(query.keys() - _SQLITE_PARAMETERS):
        raise ConfigurationError(
            f"{url} has {unknown[0]}, which SQLAlchemy takes no notice of there. Leave it out; SQLite's own parameters "
            "are read of sqlite:///file:PATH?...&uri=true."
        )
    if "\0" in path or any(len(os.fsencode(part)) > 255 for part in path.split("/")) or len(os.fsencode(path)) > 4000:
        raise ConfigurationError(f"{url[:200]} has a path that no disk takes: a NUL in it, or a name that is too long.")
    [timeout] = query.get("timeout", [""])
    try:
        seconds = float(timeout or 0)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < _YEAR:
        raise ConfigurationError(f"{url} has the timeout {timeout!r}, which is no number of seconds.")
    return SqliteURL(url=url, path=path, timeout=seconds if timeout else None)


def _check_driver(url: str, scheme: str) -> None:
    needed = _DRIVERS.get(scheme)
    if needed == "":
        raise ConfigurationError(f"{redact(url)} names a driver that MLflow can't use. Write postgresql://.")
    if needed is not None and not is_installed(needed):
        raise ConfigurationError(
            f"{redact(url)} needs the Python module {needed}, which is not installed. Install it beside MLflow, or "
            "name a driver that is there (mysql+pymysql://, mssql+pyodbc://)."
        )


def is_installed(module: str) -> bool:
    """Whether Python finds it, without importing it."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


def _given(url: str, match: re.Match[str], query: dict[str, list[str]]) -> dict[str, str]:
    """libpq's parameters that stand in the URL."""
    names, ports = [], []
    hosts = match["hosts"]
    several = query.pop("host", [])
    if "@" in hosts:
        raise ConfigurationError(f"{redact(url)} has two @. Write one that belongs to the password as %40.")
    if len(several) > 1:  # SQLAlchemy's way to name several
        hosts = ",".join(several)
    for each in hosts.split(","):
        found = _HOST.fullmatch(each)
        if found is None:
            raise ConfigurationError(f"{redact(url)} has a port that is no number. Look at it after the host.")
        names.append(unquote(found["ipv6"] or found["host"]))
        ports.append(found["port"] or "")
    if not any(ports[:-1]):  # one port at the end is everybody's, as SQLAlchemy has it
        ports = ports[-1:]
    given = {
        "user": unquote(match["user"] or ""),
        "password": unquote(match["password"] or ""),
        "host": ",".join(names),
        "port": ",".join(ports),
        "dbname": unquote(match["database"] or ""),
    }
    if len(several) == 1:
        given["host"] = several[0]
        if (found := re.fullmatch(r"([A-Za-z0-9.-]+):(\d+)", several[0])) and "port" not in query:
            given["host"], given["port"] = found[1], found[2]
    given |= {name: values[0] for name, values in query.items()}
    return {name: value for name, value in given.items() if value}


def _complete(url: str, given: dict[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """In libpq's order: the URL, the service, the variables, the defaults (fe-connect.c, conninfo_add_defaults)."""
    sources = dict.fromkeys(given, redact(url))
    service = given.pop("service", "") or environment.get("PGSERVICE", "")
    if service:
        for name, value in _of_service(service, environment).items():
            if name not in given:
                given[name], sources[name] = value, f"the service {service}"
    for name, parameter in PARAMETERS.items():
        if name not in given and name != "service" and (value := environment.get(parameter.variable, "")):
            given[name], sources[name] = value, parameter.variable
    if "sslmode" not in given and environment.get("PGREQUIRESSL", "").startswith("1"):
        given["sslmode"] = "require"  # libpq's old word for it
    for name, value in given.items():
        if name in PARAMETERS and PARAMETERS[name].allowed in (_NUMBER, _PORTS):
            given[name] = value.strip()  # as libpq reads numbers
        _check(name, given[name], sources.get(name, "PGREQUIRESSL"))
    if given.get("sslrootcert") == "system":
        given.setdefault("sslmode", "verify-full")
        if given["sslmode"] != "verify-full":
            raise ConfigurationError(f"sslrootcert=system in {redact(url)} needs sslmode=verify-full.")
    mode = given.get("sslmode", "prefer")
    if given.get("sslnegotiation") == "direct" and mode in ("disable", "allow", "prefer"):
        raise ConfigurationError(f"sslnegotiation=direct in {redact(url)} needs sslmode=require or more.")
    if given.get("sslsni") == "0" and mode == "verify-full":
        raise ConfigurationError(f"sslsni=0 in {redact(url)} hides the name that sslmode=verify-full checks.")
    if "user" not in given:
        given["user"] = _operating_system_user(url)
    given.setdefault("dbname", given["user"])
    given.setdefault("port", DEFAULT_PORT)
    if "host" not in given:
        given["host"] = given.get("hostaddr") or _socket_directory(given["port"])
    if "," in given["host"]:
        # the first that answers may be a standby, and the server writes
        given.setdefault("target_session_attrs", "read-write")
        if "," not in given["port"]:  # everybody's; SQLAlchemy wants it said of each
            given["port"] = ",".join([given["port"]] * len(given["host"].split(",")))
    database = PostgresURL(url=url, parameters=given)
    _ = database.hosts, database.settings  # both complain of what they can't read
    return given


def _check(name: str, value: str, source: str) -> None:
    parameter = PARAMETERS.get(name)
    if parameter is None:
        import difflib

        near = _INSTEAD.get(name) or next(iter(difflib.get_close_matches(name, PARAMETERS)), "")
        advice = f" Write {near}." if near else " Leave it out; docs/database.md lists what there is."
        raise ConfigurationError(f"{source} has {name}, which is no parameter of PostgreSQL's libpq.{advice}")
    if "\0" in value:
        raise ConfigurationError(f"{source} has a NUL (%00) in {name}, which PostgreSQL takes nowhere. Take it out.")
    if name == "host" and (wrong := next((host for host in value.split(",") if not _is_host(host)), None)):
        raise ConfigurationError(
            f"{source} has the host {wrong[:80]!r}, which is no host's name. Look for two dots, or a part that is too "
            "long."
        )
    if name == "hostaddr" and (
        wrong := next((each for each in value.split(",") if each and not _is_address(each)), None)
    ):
        raise ConfigurationError(
            f"{source} has the hostaddr {wrong[:80]!r}, which is no IP address. A name is the host's."
        )
    is_beyond = name == "port" and any(port.isdecimal() and int(port[:9]) > 65535 for port in value.split(","))
    if parameter.instead and (is_beyond or not re.fullmatch(parameter.allowed, value)):
        shown = name if "password" in name or "secret" in name else f"{name}={value}"
        raise ConfigurationError(f"{source} has {shown}, but {parameter.instead}.")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_host(host: str) -> bool:
    """Whether it can be looked up: a folder of sockets, or what the system's resolver is handed."""
    try:
        host.encode("idna")
    except UnicodeError:
        return host.startswith(("/", "@"))
    return True


def _of_service(service: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The parameters of a service, from the user's file or the system's."""
    files = [environment.get("PGSERVICEFILE") or _of_home(".pg_service.conf")]
    if folder := environment.get("PGSYSCONFDIR"):
        files.append(os.path.join(folder, "pg_service.conf"))
    for file in files:
        try:
            lines = Path(file).read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
        except OSError:
            continue
        found: dict[str, str] = {}
        inside = here = False
        for line in map(str.strip, lines):
            if line.startswith("["):
                here = line == f"[{service}]"
                inside = inside or here
            elif here and line and not line.startswith("#"):
                name, equals, value = line.partition("=")
                if not equals:
                    raise ConfigurationError(
                        f"The service {service} in {file} has a line that is no NAME=VALUE: {line}"
                    )
                found.setdefault(name.strip(), value.strip())
        if inside:
            return found
    raise ConfigurationError(
        f"There is no service {service} in {' or '.join(files)}. Look at `service` (or PGSERVICE) and PGSERVICEFILE."
    )


def _words(options: str) -> list[str]:
    """Parted at blanks; a backslash keeps the character behind it (PGOPTIONS)."""
    return [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|\S)+", options)]


def _of_home(name: str) -> str:
    return os.path.join(os.path.expanduser("~"), name)


def _operating_system_user(url: str) -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise ConfigurationError(
            f"{redact(url)} names no user, and the user {os.geteuid()} that runs this has no name. Name one in the URL "
            "or in PGUSER."
        ) from None


def _socket_directory(port: str) -> str:
    for folder in SOCKET_DIRECTORIES:
        if os.path.exists(f"{folder}/.s.PGSQL.{port}"):
            return folder
    return SOCKET_DIRECTORIES[0]


def _system_certificates() -> str | None:
    import ssl

    paths = ssl.get_default_verify_paths()
    return paths.cafile or (paths.openssl_cafile if os.path.exists(paths.openssl_cafile) else None)
