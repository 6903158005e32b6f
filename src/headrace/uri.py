"""Store URIs as `mlflow server` takes them: parsed as SQLAlchemy parses them, and shown without passwords."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode

import msgspec

# SQLAlchemy's own pattern (sqlalchemy.engine.url._parse_url), so that a URI means the same to stock and to
# us: a password may hold any character but "@" without being quoted.
_PATTERN = re.compile(
    r"""
    (?P<scheme>[\w+]+)://
    (?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?
    (?:(?:\[(?P<ipv6>[^/?]+)\]|(?P<host>[^/:?]+))?(?::(?P<port>[^/?]*))?)?
    (?:/(?P<database>[^?]*))?
    (?:\?(?P<query>.*))?
    """,
    re.X,
)
_POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg2", "postgresql+psycopg")
_IN_TEXT = re.compile(r"(://[^:/@\s]*):\S*@")
_IN_QUERY = re.compile(r"((?:ssl)?password=)[^&\s]+")


class DatabaseURI(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a database URI, unquoted. `database` of SQLite is the file's path."""

    scheme: str
    user: str | None = None
    password: str | None = None
    host: str | None = None
    port: int | None = None
    database: str = ""
    query: dict[str, str] = {}

    @property
    def kind(self) -> str:
        """`postgresql` with a driver that we replace by ours, or the scheme (`sqlite`, `mysql+pymysql`)."""
        return "postgresql" if self.scheme in _POSTGRESQL else self.scheme

    def render(self, scheme: str | None = None) -> str:
        """The URI again, with every part quoted, under another scheme if one is given."""
        text = f"{scheme or self.scheme}://"
        if self.user is not None:
            text += quote(self.user, safe="")
            text += "" if self.password is None else ":" + quote(self.password, safe="")
            text += "@"
        if self.host:
            text += f"[{self.host}]" if ":" in self.host else self.host
        text += "" if self.port is None else f":{self.port}"
        text += "/" + (self.database if self.kind == "sqlite" else quote(self.database, safe=""))
        return text + ("?" + urlencode(self.query, quote_via=quote) if self.query else "")


def parse(uri: str) -> DatabaseURI | None:
    """Take a database URI apart; None for what is none (a path, `file:...`).

    Raises ValueError for a port that is not a number.
    """
    match = _PATTERN.match(uri)
    if match is None or match["scheme"] in ("file", "http", "https", "databricks"):
        return None
    part = {name: None if text is None else unquote(text) for name, text in match.groupdict().items()}
    return DatabaseURI(
        scheme=match["scheme"],
        user=part["user"],
        password=part["password"],
        host=part["host"] or part["ipv6"],
        port=int(match["port"]) if match["port"] else None,
        database=part["database"] or "",
        query=dict(parse_qsl(match["query"] or "")),
    )


def for_stock(uri: str) -> str:
    """The URI for stock, its driver named: with SQLAlchemy 2.1 a bare `postgresql://` means psycopg 3."""
    parsed = parse(uri)
    if parsed is None or parsed.kind != "postgresql":
        return uri
    return "postgresql+psycopg2" + uri[uri.index("://") :]


def redact(text: str, *uris: str | None) -> str:
    """`text` with the passwords of every URI in it, and those of `uris` wherever they appear, as `***`."""
    text = _IN_QUERY.sub(r"\1***", _IN_TEXT.sub(r"\1:***@", text))
    for uri in uris:
        parsed = parse(uri) if uri else None
        if parsed is not None and parsed.password:
            for secret in {parsed.password, quote(parsed.password, safe="")}:
                text = text.replace(secret, "***")
    return text
