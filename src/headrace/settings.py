"""Every setting of `headrace serve`, in one table: its name, flag, environment variable, default and help.

The table makes the command's options, their validation and docs/reference/settings.md. Names, and what they
mean, are those of `mlflow server` (mlflow/cli/__init__.py, mlflow/utils/cli_args.py) where it has them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec

from headrace import database_url, log, rds_token, ssm, stock_options, uri
from headrace.errors import ConfigurationError

DATA_DIRECTORY = "headrace-data"
DATABASE_CONNECTIONS = 12
_LEAST_OF_STOCK = 2  # some of stock's requests need two at once
_LEAST_OF_WORKER = 2  # one that writes, one that reads
_BUILDER = 1  # builds the indexes


class Connections(NamedTuple):
    """How many connections to PostgreSQL stock and each worker may have; one worker builds indexes on one more."""

    stock: int
    worker: int


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one server runs with, resolved and checked; made by `resolve`."""

    host: str = "127.0.0.1"
    port: int = 5000
    workers: int = 1
    static_prefix: str = ""
    backend_store_uri: str = f"sqlite:///{DATA_DIRECTORY}/mlflow.db"
    read_replica_backend_store_uri: str | None = None
    registry_store_uri: str | None = None
    default_artifact_root: str = "mlflow-artifacts:/"
    artifacts_destination: str = f"./{DATA_DIRECTORY}/artifacts"
    serve_artifacts: bool = True
    artifacts_only: bool = False
    artifact_transfer: str = "proxy"
    allowed_hosts: str | None = None
    cors_allowed_origins: str | None = None
    x_frame_options: str = "SAMEORIGIN"
    disable_security_middleware: bool = False
    secrets_cache_ttl: int = 60
    secrets_cache_max_size: int = 1000
    ssm_prefix: str | None = None
    stock: str = "lazy"
    stock_idle: float = 600.0
    stock_wait: float = 20.0
    max_body_bytes: int = 64 * 1024 * 1024
    queue_limit: int = 10_000
    connections_per_client: int = 2000
    db_auth: str = "password"
    database_connections: int | None = None
    database_wait: float = 60.0
    trace_retention: float | None = None  # seconds
    gc_after: float | None = None  # seconds
    quota: str = ""
    quota_every: float | None = None  # seconds
    compress_json: str = "remote"
    access_log: str = "off"
    expose_prometheus: str | None = None
    shutdown_delay: float = 0.0
    shutdown_timeout: float = 8.0
    keep_alive: float = 75.0
    auth: bool = False
    insecure_no_auth: bool = False
    grants: bool = False
    admin_token: str = ""
    trusted_proxies: str = ""
    audit: str = "changes"
    audit_table: bool = False
    oidc_issuer: str = ""
    oidc_client_id: str = ""
    oidc_client_secret: str = ""
    oidc_audience: str = ""
    oidc_scopes: str = "openid profile email"
    oidc_user_claim: str = "email"
    oidc_groups_claim: str = "groups"
    oidc_roles: str = ""
    alb_arn: str = ""
    app_name: str | None = None
    trace_archival_config: str | None = None
    enable_all: bool = False
    enable_jobs: bool = False
    enable_ai_gateway: bool = False
    enable_assistant: bool = False
    enable_webhooks: bool = False
    events_allow_private: bool = False
    enable_workspaces: bool = False
    workspace_store_uri: str | None = None
    log_level: str = "info"
    log_format: str = "text"
    admin_hashes: str = ""  # a file of those of admin tokens, which may change; filled in by serve
    jobs_token: str = ""  # with which jobs come back to this server; made by serve
    stock_socket: str = ""  # the Unix socket's path; filled in by serve
    builds_indexes: bool = True  # one worker of a server does; filled in by serve

    def __repr__(self) -> str:
        """Without passwords and tokens, for logs and tracebacks."""
        secret = {setting.name for setting in SETTINGS if setting.secret} | {"jobs_token"}
        fields = msgspec.to_builtins(self)
        shown = {name: "***" if name in secret and value else value for name, value in fields.items()}
        return f"Settings({uri.redact(repr(shown))})"

    @property
    def database(self) -> database_url.DatabaseURL | None:
        """What the backend store's URI means; None for a file store."""
        return database_url.parse(self.backend_store_uri)

    @property
    def replica(self) -> database_url.PostgresURL | None:
        """What the read replica's URI means, where there is one."""
        replica = database_url.parse(self.read_replica_backend_store_uri or "")
        return replica if isinstance(replica, database_url.PostgresURL) else None

    @property
    def native(self) -> bool:
        """Whether Headrace reads and writes this store itself; otherwise stock answers everything."""
        if self.artifacts_only and not self.protected:  # no database at all
            return False
        return isinstance(self.database, database_url.PostgresURL | database_url.SqliteURL)

    @property
    def protected(self) -> bool:
        """Whether requests need a user or a token: on every address but a loopback one, unless it was turned off."""
        return not self.insecure_no_auth and (self.auth or not is_loopback(self.host))

    @property
    def connections(self) -> Connections:
        """The budget of --database-connections, shared out. Of 12, one worker gets 7 and stock 4."""
        of_stock, of_workers = _least(self)
        budget = self.database_connections or max(DATABASE_CONNECTIONS, of_stock + of_workers)
        stock = of_stock and max(of_stock, min(budget // 3, budget - of_workers))
        return Connections(stock, max(_LEAST_OF_WORKER, (budget - stock - _BUILDER) // self.workers))

    @property
    def url(self) -> str:
        """Where people on this machine find the server."""
        host = {"0.0.0.0": "localhost", "::": "localhost"}.get(self.host, self.host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}{self.static_prefix}"

    @property
    def models_here(self) -> bool:
        """Whether registered models are in the backend store's database."""
        return self.registry_store_uri in (None, self.backend_store_uri)


class Setting(NamedTuple):
    """One row of the table. `default` is the text shown; the value itself is the field's in Settings."""

    name: str
    environment: str
    parse: Callable[[str], Any]
    default: str
    help: str
    short: str = ""
    choices: tuple[str, ...] = ()
    from_mlflow: bool = True
    secret: bool = False  # never an argument, which `ps` shows

    @property
    def flag(self) -> str:
        """The option's name on the command line; that of the environment variable for a secret, which has none."""
        return self.environment if self.secret else "--" + self.name.replace("_", "-")


def _number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not low <= (value := int(text)) <= high:
            raise ValueError
        return value

    parse.__doc__ = f"a whole number from {low} to {high}"
    return parse


def _seconds(text: str) -> float:
    """a number of seconds, 0 or more"""
    if not 0 <= (value := float(text)) < 86400:
        raise ValueError
    return value


_AGE = re.compile(r"(?:([0-9.]{1,9})d)?(?:([0-9.]{1,9})h)?(?:([0-9.]{1,9})m)?(?:([0-9.]{1,9})s)?")


def parse_age(text: str) -> float:
    """a time such as 30d, 12h, 90m or 2d8h"""
    match = _AGE.fullmatch(text.strip())
    parts = match.groups() if match else ()
    seconds = sum(float(part) * unit for part, unit in zip(parts, (86_400, 3_600, 60, 1), strict=False) if part)
    if not seconds:
        raise ValueError
    return seconds


_AMOUNT = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)([kMGT]?)B?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_quota(text: str) -> dict[str, dict[str, int]]:
    """Experiment ("" for each that has none of its own) -> artifacts (bytes) or metrics (points) -> at most so many."""
    quotas: dict[str, dict[str, int]] = {}
    for part in filter(None, (each.strip() for each in text.split(";"))):
        experiment, _, amounts = part.rpartition(":")
        for each in amounts.split(","):
            what, _, amount = each.strip().partition("=")
            match = _AMOUNT.fullmatch(amount)
            if what not in ("artifacts", "metrics") or match is None:
                raise ValueError
            quotas.setdefault(experiment.strip(), {})[what] = int(float(match[1]) * _UNITS[match[2]])
    return quotas


def _quota(text: str) -> str:
    """artifacts=50GB,metrics=10M for each experiment, and ;NAME:artifacts=1TB for one"""
    if not parse_quota(text):
        raise ValueError
    return text


def parse_boolean(text: str) -> bool:
    """true or false"""
    if (lower := text.strip().lower()) in ("1", "true", "t", "yes", "y", "on"):
        return True
    if lower in ("0", "false", "f", "no", "n", "off"):
        return False
    raise ValueError


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    parse.__doc__ = "one of " + ", ".join(choices)
    return parse


def _prefix(text: str) -> str:
    """a path that begins with "/", does not end with one, and has no braces"""
    if not text.startswith("/") or text.endswith("/") or "{" in text or "}" in text:
        raise ValueError
    return text


def _text(text: str) -> str:
    """a text"""
    return text


def _admin_token(text: str) -> str:
    """a random text of 32 characters or more without spaces, such as `openssl rand -hex 32` makes"""
    if len(text) < 32 or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError
    return text


def _networks(text: str) -> str:
    """addresses or networks separated by commas, such as 10.0.0.0/16"""
    return ",".join(str(ipaddress.ip_network(part.strip())) for part in text.split(","))


def _issuer(text: str) -> str:
    """an https:// address (http:// on this machine only)"""
    parts = urlsplit(text)
    local = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if not parts.hostname or not (local or parts.scheme == "https") or parts.query or parts.fragment:
        raise ValueError
    return text


def _roles(text: str) -> str:
    """GROUP=ROLE separated by commas, with the roles viewer, editor and admin"""
    for part in text.split(","):
        group, _, role = part.rpartition("=")
        if not group.strip() or role.strip() not in ("viewer", "editor", "admin"):
            raise ValueError
    return text


def _load_balancer(text: str) -> str:
    """an ARN such as arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/mlflow/0123456789abcdef"""
    if not re.fullmatch(r"arn:aws[\w-]*:elasticloadbalancing:[a-z0-9-]+:\d+:loadbalancer/app/\S+", text):
        raise ValueError
    return text


def _app(text: str) -> str:
    """basic-auth, which is taken for --auth; other apps of MLflow's plugins would not see what Headrace answers"""
    if text != "basic-auth":
        raise ValueError
    return text


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


_LEVELS = ("debug", "info", "warning", "error")
_STOCK = ("lazy", "background", "never")
_DB_AUTH = ("password", "iam")
_ACCESS_LOG = ("off", "text", "json")
_AUDIT = ("changes", "all", "off")
_COMPRESS = ("remote", "always", "never")
_TRANSFER = ("proxy", "direct", "always-proxy")

# What stock does that is off here unless it is asked for.
OF_STOCK = ("enable_jobs", "enable_ai_gateway", "enable_assistant", "enable_webhooks")

SETTINGS = (
    Setting(
        "host",
        "MLFLOW_HOST",
        _text,
        "127.0.0.1",
        "The network interface to listen on; 0.0.0.0 for every one.",
        "-h",
    ),
    Setting("port", "MLFLOW_PORT", _number(0, 65535), "5000", "The port to listen on; 0 takes a free one.", "-p"),
    Setting(
        "workers",
        "MLFLOW_WORKERS",
        _number(1, 256),
        "1",
        "Worker processes; on SQLite, which has one writer, always one.",
        "-w",
    ),
    Setting(
        "static_prefix",
        "MLFLOW_STATIC_PREFIX",
        _prefix,
        "none",
        "A prefix for every path, behind a proxy that keeps it.",
    ),
    Setting(
        "backend_store_uri",
        "MLFLOW_BACKEND_STORE_URI",
        _text,
        f"sqlite:///{DATA_DIRECTORY}/mlflow.db",
        "Where experiments and runs are kept: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE. "
        "What else MLflow supports works too, but stock MLflow answers all of it.",
    ),
    Setting(
        "read_replica_backend_store_uri",
        "MLFLOW_READ_REPLICA_BACKEND_STORE_URI",
        _text,
        "none",
        "A standby of the backend store's PostgreSQL, which answers searches and histories while it is up to date: "
        "what was written is always read back. See docs/database.md.",
    ),
    Setting(
        "registry_store_uri",
        "MLFLOW_REGISTRY_STORE_URI",
        _text,
        "the backend store",
        "Where registered models are kept.",
    ),
    Setting(
        "default_artifact_root",
        "MLFLOW_DEFAULT_ARTIFACT_ROOT",
        _text,
        "mlflow-artifacts:/ with --serve-artifacts, otherwise ./mlruns",
        "Where the artifacts of new experiments go; experiments that exist keep theirs.",
    ),
    Setting(
        "artifacts_destination",
        "MLFLOW_ARTIFACTS_DESTINATION",
        _text,
        f"./{DATA_DIRECTORY}/artifacts, or ./mlartifacts when a backend store is given",
        "Where --serve-artifacts keeps the artifacts that pass through this server, such as s3://BUCKET.",
    ),
    Setting(
        "serve_artifacts",
        "MLFLOW_SERVE_ARTIFACTS",
        parse_boolean,
        "true",
        "Let artifacts pass through this server, so that clients need no access to the storage behind it.",
    ),
    Setting(
        "artifacts_only",
        "MLFLOW_ARTIFACTS_ONLY",
        parse_boolean,
        "false",
        "Serve artifacts and nothing else: everything about runs and models is answered 501. Without users it needs no "
        "database; with them, --backend-store-uri is where they are.",
    ),
    Setting(
        "allowed_hosts",
        "MLFLOW_SERVER_ALLOWED_HOSTS",
        _text,
        "localhost and private addresses",
        "Host headers to answer, separated by commas, * as wildcard: against DNS rebinding.",
    ),
    Setting(
        "cors_allowed_origins",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS",
        _text,
        "localhost",
        "Other web origins that may call this server, separated by commas.",
    ),
    Setting(
        "x_frame_options",
        "MLFLOW_SERVER_X_FRAME_OPTIONS",
        _text,
        "SAMEORIGIN",
        "The X-Frame-Options header: SAMEORIGIN, DENY, or NONE for no header.",
    ),
    Setting(
        "disable_security_middleware",
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE",
        parse_boolean,
        "false",
        "Check neither Host nor Origin. Dangerous outside of tests.",
    ),
    Setting(
        "secrets_cache_ttl",
        "MLFLOW_SERVER_SECRETS_CACHE_TTL",
        _number(10, 300),
        "60",
        "Seconds for which stock MLflow keeps decrypted gateway secrets.",
    ),
    Setting(
        "secrets_cache_max_size",
        "MLFLOW_SERVER_SECRETS_CACHE_MAX_SIZE",
        _number(1, 10_000),
        "1000",
        "How many decrypted gateway secrets stock MLflow keeps.",
    ),
    Setting(
        "access_log",
        "HEADRACE_ACCESS_LOG",
        _choice(*_ACCESS_LOG),
        "off",
        "A line for each request on the standard output: who, what, status, bytes, seconds, answered by whom.",
        choices=_ACCESS_LOG,
        from_mlflow=False,
    ),
    Setting(
        "expose_prometheus",
        "MLFLOW_EXPOSE_PROMETHEUS",
        _text,
        "a folder that ends with the server",
        "The folder where the workers keep what /metrics answers, which is there with and without this option.",
    ),
    Setting(
        "ssm_prefix",
        "HEADRACE_SSM_PREFIX",
        _text,
        "none",
        "A prefix in AWS Systems Manager, such as /mlflow, below which the server finds DB_HOST, DB_USER and DB_PASS "
        "and, where they are there, DB_PORT, DB_NAME, BUCKET, ADMIN_TOKEN, and any setting, such as settings/grants. "
        "They win over the container's variables.",
        from_mlflow=False,
    ),
    Setting(
        "stock",
        "HEADRACE_STOCK",
        _choice(*_STOCK),
        "lazy",
        "When stock MLflow runs: from the first request that only it can answer until --stock-idle (lazy), from the "
        "start on (background), or never: what only it can answer is then a 501.",
        choices=_STOCK,
        from_mlflow=False,
    ),
    Setting(
        "trace_retention",
        "HEADRACE_TRACE_RETENTION",
        parse_age,
        "no end",
        "Delete traces that began longer ago than this, such as 30d, 12h or 90m; they can't be brought back.",
        from_mlflow=False,
    ),
    Setting(
        "gc_after",
        "HEADRACE_GC_AFTER",
        parse_age,
        "never",
        "Remove for good, rows and files, what was deleted longer ago than this, such as 30d; see `headrace gc`.",
        from_mlflow=False,
    ),
    Setting(
        "stock_idle",
        "HEADRACE_STOCK_IDLE",
        _seconds,
        "600",
        "With --stock lazy: seconds without a request for stock MLflow after which it ends.",
        from_mlflow=False,
    ),
    Setting(
        "stock_wait",
        "HEADRACE_STOCK_WAIT",
        _seconds,
        "20",
        "Seconds for which a request waits while stock MLflow starts, before it is answered 503.",
        from_mlflow=False,
    ),
    Setting(
        "artifact_transfer",
        "HEADRACE_ARTIFACT_TRANSFER",
        _choice(*_TRANSFER),
        "proxy",
        "With direct, a download of more than 8 MiB from S3 is answered with a redirect to the bucket, whose URL this "
        "server signs. With always-proxy no client gets such a URL, MLflow's own neither: for a store that clients "
        "don't reach. See docs/artifacts.md.",
        choices=_TRANSFER,
        from_mlflow=False,
    ),
    Setting(
        "max_body_bytes",
        "HEADRACE_MAX_BODY_BYTES",
        _number(1024, 2**31),
        str(64 * 1024 * 1024),
        "The largest request body, unpacked, too; artifacts are not limited.",
        from_mlflow=False,
    ),
    Setting(
        "queue_limit",
        "HEADRACE_QUEUE_LIMIT",
        _number(1, 1_000_000),
        "10000",
        "How many writes may wait for the database in one worker; more are answered 503 with Retry-After.",
        from_mlflow=False,
    ),
    Setting(
        "connections_per_client",
        "HEADRACE_CONNECTIONS_PER_CLIENT",
        _number(0, 1_000_000),
        "2000",
        "How many connections an address may have to one worker, 0 for any number; more are answered 503. This machine "
        "and --trusted-proxies are not counted.",
        from_mlflow=False,
    ),
    Setting(
        "db_auth",
        "HEADRACE_DB_AUTH",
        _choice(*_DB_AUTH),
        "password",
        "How the server logs in at PostgreSQL: with the URL's password, or with tokens of IAM, which it makes and "
        "renews by itself. RDS takes them of roles that are in rds_iam; the connection must be sslmode=verify-full.",
        choices=_DB_AUTH,
        from_mlflow=False,
    ),
    Setting(
        "database_connections",
        "HEADRACE_DATABASE_CONNECTIONS",
        _number(1, 10_000),
        "12, or 3 and 2 for each worker where that is more",
        "How many connections to PostgreSQL this server has at most, all workers and stock MLflow together; "
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE and _MAX_OVERFLOW follow from it.",
        from_mlflow=False,
    ),
    Setting(
        "database_wait",
        "HEADRACE_DATABASE_WAIT",
        _seconds,
        "60",
        "Seconds that a start waits for a database that is not up yet; 0 gives up at once.",
        from_mlflow=False,
    ),
    Setting(
        "quota",
        "HEADRACE_QUOTA",
        _quota,
        "none",
        "How much an experiment may have: artifacts=50GB,metrics=10M for each, and for one of a name or id "
        "artifacts=50GB;NAME:artifacts=1TB. More is refused (507) until something is deleted and gc has run.",
        from_mlflow=False,
    ),
    Setting(
        "quota_every",
        "HEADRACE_QUOTA_EVERY",
        parse_age,
        "1h",
        "How often --quota counts: 10m, 1h, 1d. What is full is counted twelve times as often.",
        from_mlflow=False,
    ),
    Setting(
        "compress_json",
        "HEADRACE_COMPRESS_JSON",
        _choice(*_COMPRESS),
        "remote",
        "Who gets JSON answers of 1 KiB and more compressed, if the client takes it; remote: clients on other "
        "machines. It costs 3 to 6 ms a MB, and pays where the network is slower than 1 Gbit/s.",
        choices=_COMPRESS,
        from_mlflow=False,
    ),
    Setting(
        "shutdown_delay",
        "HEADRACE_SHUTDOWN_DELAY",
        _seconds,
        "0",
        "Seconds after SIGTERM during which /ready says no and requests are still answered: as long as a load balancer "
        "takes to notice. --shutdown-timeout begins after them.",
        from_mlflow=False,
    ),
    Setting(
        "shutdown_timeout",
        "HEADRACE_SHUTDOWN_TIMEOUT",
        _seconds,
        "8",
        "Seconds that requests under way get after SIGTERM (Docker kills after 10).",
        from_mlflow=False,
    ),
    Setting(
        "keep_alive",
        "HEADRACE_KEEP_ALIVE",
        _seconds,
        "75",
        "Seconds that a connection may rest between requests: more than a proxy or balancer in front keeps it.",
        from_mlflow=False,
    ),
    Setting(
        "auth",
        "HEADRACE_AUTH",
        parse_boolean,
        "false",
        "Ask for a user or a token on a loopback address, too: for a server behind a proxy on the same machine. On any "
        "other address that is so by itself.",
        from_mlflow=False,
    ),
    Setting(
        "insecure_no_auth",
        "HEADRACE_INSECURE_NO_AUTH",
        parse_boolean,
        "false",
        "Let whoever reaches the server read, change and delete everything.",
        from_mlflow=False,
    ),
    Setting(
        "grants",
        "HEADRACE_GRANTS",
        parse_boolean,
        "false",
        "Viewers and editors see and change only the experiments and registered models that are granted to them or to "
        "a group of theirs. Without it a role counts on the whole server, and a grant adds to it.",
        from_mlflow=False,
    ),
    Setting(
        "admin_token",
        "HEADRACE_ADMIN_TOKEN",
        _admin_token,
        "none",
        "A token of an administrator, as long as the variable is set: for the first set-up by a program. Without one, "
        "and with nobody set up yet, the server makes a token and prints it once.",
        from_mlflow=False,
        secret=True,
    ),
    Setting(
        "trusted_proxies",
        "HEADRACE_TRUSTED_PROXIES",
        _networks,
        "none",
        "Addresses or networks of the proxies whose X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Prefix (what "
        "they take off the path) are believed, separated by commas; anybody else's are dropped.",
        from_mlflow=False,
    ),
    Setting(
        "audit",
        "HEADRACE_AUDIT",
        _choice(*_AUDIT),
        "changes",
        "What is written to the standard output, as JSON, of a server that asks for users: changes, also what runs log "
        "(all), or nothing (off).",
        choices=_AUDIT,
        from_mlflow=False,
    ),
    Setting(
        "audit_table",
        "HEADRACE_AUDIT_TABLE",
        parse_boolean,
        "false",
        "Keep the audit log in the database, too, in the table headrace_audit; `headrace audit` shows it.",
        from_mlflow=False,
    ),
    Setting(
        "oidc_issuer",
        "HEADRACE_OIDC_ISSUER",
        _issuer,
        "none",
        "Single sign-on: the issuer of an OpenID Connect provider, as the provider itself writes it.",
        from_mlflow=False,
    ),
    Setting(
        "oidc_client_id",
        "HEADRACE_OIDC_CLIENT_ID",
        _text,
        "none",
        "This server's client at the provider; its redirect URI is https://SERVER/headrace/oidc/callback.",
        from_mlflow=False,
    ),
    Setting(
        "oidc_client_secret",
        "HEADRACE_OIDC_CLIENT_SECRET",
        _text,
        "none",
        "The client's secret, if it has one.",
        from_mlflow=False,
        secret=True,
    ),
    Setting(
        "oidc_audience",
        "HEADRACE_OIDC_AUDIENCE",
        _text,
        "none",
        "The audience of the provider's tokens that programs send as bearer tokens; without one, none is taken.",
        from_mlflow=False,
    ),
    Setting(
        "oidc_scopes",
        "HEADRACE_OIDC_SCOPES",
        _text,
        "openid profile email",
        "What a login asks the provider for.",
        from_mlflow=False,
    ),
    Setting(
        "oidc_user_claim",
        "HEADRACE_OIDC_USER_CLAIM",
        _text,
        "email",
        "The claim that names a user when they sign in first; sub where they have none.",
        from_mlflow=False,
    ),
    Setting(
        "oidc_groups_claim",
        "HEADRACE_OIDC_GROUPS_CLAIM",
        _text,
        "groups",
        "The claim with a user's groups.",
        from_mlflow=False,
    ),
    Setting(
        "oidc_roles",
        "HEADRACE_OIDC_ROLES",
        _roles,
        "none",
        "Which groups have which role, GROUP=ROLE separated by commas, the group * for everybody: "
        "ml-admins=admin,ml-team=editor,*=viewer. Who has none is not let in.",
        from_mlflow=False,
    ),
    Setting(
        "alb_arn",
        "HEADRACE_ALB_ARN",
        _load_balancer,
        "none",
        "The ARN of the AWS load balancer in front that signs users in: its x-amzn-oidc-data is taken, once verified.",
        from_mlflow=False,
    ),
    Setting(
        "enable_all",
        "HEADRACE_ENABLE_ALL",
        parse_boolean,
        "false",
        "Turn on all that `mlflow server` has: jobs, the AI gateway, the assistant and webhooks, each but those that a "
        "variable of their own sets to false. Read what each of them says.",
        from_mlflow=False,
    ),
    Setting(
        "enable_jobs",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
        parse_boolean,
        "false",
        "Run MLflow's jobs: judges of new traces, evaluation and issue detection from the UI, prompt optimization. "
        "Stock runs all the time then, with processes for them, in which the code of scorers runs that users register.",
        from_mlflow=False,
    ),
    Setting(
        "enable_ai_gateway",
        "MLFLOW_ENABLE_AI_GATEWAY",
        parse_boolean,
        "false",
        "Turn on MLflow's AI gateway, which calls the providers that its users set up. It calls no private address, "
        "unless MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS is true.",
        from_mlflow=False,
    ),
    Setting(
        "enable_assistant",
        "HEADRACE_ENABLE_ASSISTANT",
        parse_boolean,
        "false",
        "Turn on MLflow's assistant, which runs programs on this machine for who may use it.",
        from_mlflow=False,
    ),
    Setting(
        "enable_webhooks",
        "HEADRACE_ENABLE_WEBHOOKS",
        parse_boolean,
        "false",
        "Turn on MLflow's webhooks. They call no private address, unless MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS is true.",
        from_mlflow=False,
    ),
    Setting(
        "app_name",
        "HEADRACE_APP_NAME",
        _app,
        "none",
        "Only basic-auth, which is taken for --auth; `headrace user import basic_auth.db` takes over its users.",
    ),
    Setting(
        "trace_archival_config",
        "MLFLOW_TRACE_ARCHIVAL_CONFIG",
        _text,
        "none",
        "A YAML file that says which traces MLflow's job runner (--enable-jobs) moves from the database to which store "
        "of artifacts. See docs/traces.md.",
    ),
    Setting(
        "events_allow_private",
        "HEADRACE_EVENTS_ALLOW_PRIVATE",
        parse_boolean,
        "false",
        "Let events (`headrace events`) be told to private, loopback and link-local addresses, and over http://.",
        from_mlflow=False,
    ),
    Setting(
        "enable_workspaces",
        "MLFLOW_ENABLE_WORKSPACES",
        parse_boolean,
        "false",
        "Turn on MLflow's workspaces: each request works in the one that its header X-MLFLOW-WORKSPACE names.",
    ),
    Setting(
        "workspace_store_uri",
        "MLFLOW_WORKSPACE_STORE_URI",
        _text,
        "that of --backend-store-uri",
        "Where workspaces are listed; Headrace has them in the backend store's database only.",
    ),
    Setting(
        "log_level",
        "HEADRACE_LOG_LEVEL",
        _choice(*_LEVELS),
        "info",
        "How much to log.",
        choices=_LEVELS,
        from_mlflow=False,
    ),
    Setting(
        "log_format",
        "HEADRACE_LOG_FORMAT",
        _choice(*log.FORMATS),
        "text",
        "How a line of the log is written: time, level, source and message as text, or as JSON.",
        choices=log.FORMATS,
        from_mlflow=False,
    ),
)

# The variables of the project's first container (docker run --env ...). HOST and PORT are the database's.
CONTAINER = {
    "HOST": "the database's host",
    "PORT": "the database's port; 5432 if it is not set",
    "USERNAME": "the database's user",
    "PASSWORD": "the user's password, any characters",
    "DATABASE": "the database's name; it is created if it does not exist and the user may",
    "BUCKET": "where the artifacts are kept, `s3://NAME/`; they pass through this server (`--artifacts-destination`)",
}


def resolve(
    flags: Mapping[str, str], environment: Mapping[str, str], say: Callable[[str], None] = lambda line: None
) -> Settings:
    """Make the settings of the command line's `flags` (name -> text), the environment and the defaults.

    A flag wins over its environment variable, and that over the container's variables (BUCKET, USERNAME,
    PASSWORD, HOST, PORT, DATABASE), which come from AWS Systems Manager where a prefix is set and no backend store.
    An empty environment variable counts as unset, as click has it. `say` is told what is set and has another effect
    than one may think, or none. Raises ConfigurationError, which names the option and what to do.
    """
    for refused in stock_options.REFUSED:
        if environment.get(refused.environment, "").lower() not in refused.harmless:
            raise ConfigurationError(f"{refused.environment} is set, but {refused.instead}.")
    for line in stock_options.lines_of(environment, {setting.environment for setting in SETTINGS}):
        say(line)
    of_ssm = _with_parameters(flags, environment)
    asked_ssm, environment = of_ssm is not environment, of_ssm
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        source, text = setting.flag, flags.get(setting.name)
        if text is None:
            source, text = setting.environment, environment.get(setting.environment) or None
        if text is not None and source == "MLFLOW_PORT" and stock_options.is_of_kubernetes(text):
            say(f"{source} is {text}, Kubernetes' word about a service: it is not taken for --port")
        elif text is not None:
            values[setting.name] = _parse(setting, source, text)
    if not asked_ssm:
        values.pop("ssm_prefix", None)  # another store wins
    _take_others(values, environment, say)
    if values.get("enable_all"):
        values = dict.fromkeys(OF_STOCK, True) | values
    given = "backend_store_uri" in values
    if not given and environment.get("DATABASE") and environment.get("HOST"):
        values = _of_container(values, environment) | values
        given = True
    if given or values.get("artifacts_only"):
        values.setdefault("artifacts_destination", "./mlartifacts")  # stock's default: an existing server's artifacts
    settings = _within_budget(_artifact_root(Settings(**values), values), environment, say)
    if settings.native and isinstance(settings.database, database_url.SqliteURL) and settings.workers > 1:
        say(f"SQLite has one writer: one worker runs, not {settings.workers}. With PostgreSQL all of them would")
        settings = msgspec.structs.replace(settings, workers=1)
    return _with_token(_check(settings, environment), environment)


# What other programs call these things, and what it may say.
_LEVELS_OF_PYTHON = {"WARN": "warning", "CRITICAL": "error", "FATAL": "error"} | {
    name.upper(): name for name in _LEVELS
}
_EVERYBODY = "0.0.0.0/0,::/0"


def _take_others(values: dict[str, Any], environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Settings that are not given, from variables that stock, uvicorn or gunicorn have for the same thing."""
    if "log_level" not in values and (level := environment.get("MLFLOW_LOGGING_LEVEL")):
        if level.upper() not in _LEVELS_OF_PYTHON:
            raise ConfigurationError(f"MLFLOW_LOGGING_LEVEL is {level!r}, but must be DEBUG, INFO, WARNING or ERROR.")
        values["log_level"] = _LEVELS_OF_PYTHON[level.upper()]
    if "app_name" in values and values.get("insecure_no_auth"):
        raise ConfigurationError("--app-name basic-auth and --insecure-no-auth are both set. Leave one of them out.")
    if "app_name" in values and not values.get("auth"):
        values["auth"] = True
        say("--app-name basic-auth is taken for --auth; `headrace user import basic_auth.db` takes over its users")
    by_name = {setting.name: setting for setting in SETTINGS}
    for name, variable in (("workers", "WEB_CONCURRENCY"), ("trusted_proxies", "FORWARDED_ALLOW_IPS")):
        if name not in values and (text := environment.get(variable)):
            values[name] = _parse(by_name[name], variable, _EVERYBODY if text.strip() == "*" else text)
            say(f"{variable} is taken for {by_name[name].flag}")


def _within_budget(settings: Settings, environment: Mapping[str, str], say: Callable[[str], None]) -> Settings:
    """With stock's variables of its pool as --database-connections, where that is not given. SQLAlchemy's defaults."""
    names = ("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW")
    given = [environment.get(name) for name in names]
    if not any(given) or not isinstance(settings.database, database_url.PostgresURL):
        return settings
    if settings.database_connections:
        say(f"{' and '.join(names)} have no effect beside --database-connections")
        return settings
    try:
        size, overflow = (int(text or default) for text, default in zip(given, (5, 10), strict=True))
    except ValueError:
        raise ConfigurationError(f"{' and '.join(names)} must be whole numbers.") from None
    if size <= 0 or overflow < 0:  # without a limit
        return settings
    connections = max(size + overflow, sum(_least(settings)))
    say(f"{' and '.join(names)} are taken for --database-connections {connections}")
    return msgspec.structs.replace(settings, database_connections=connections)


def _with_parameters(flags: Mapping[str, str], environment: Mapping[str, str]) -> Mapping[str, str]:
    """The environment, with the parameters of --ssm-prefix as the container's variables and those of settings."""
    prefix = flags.get("ssm_prefix") or environment.get("HEADRACE_SSM_PREFIX")
    if not prefix or flags.get("backend_store_uri") or environment.get("MLFLOW_BACKEND_STORE_URI"):
        return environment
    return {**environment, **ssm.read(prefix, environment, {each.name: each.environment for each in SETTINGS})}


def _parse(setting: Setting, source: str, text: str) -> Any:
    try:
        value = setting.parse(text)
    except ValueError:
        shown = "***" if setting.secret else uri.redact(text)
        raise ConfigurationError(f"{source} is {shown!r}, but must be {setting.parse.__doc__}.") from None
    if isinstance(value, str):
        _check_ends(source, text, setting.secret)
    return value


def _check_ends(source: str, text: str, secret: bool = False) -> None:
    """Raises ConfigurationError for what came along: a file's new line, quotes that only a shell takes off."""
    shown = "***" if secret else repr(uri.redact(text))
    if text != text.strip():
        raise ConfigurationError(
            f"{source} is {shown}, which has a blank or a new line at an end. Take it out; `echo` and files add one."
        )
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        raise ConfigurationError(
            f"{source} is {shown}, which has quotes around it. Take them out: docker's --env-file and systemd's lists "
            "keep them."
        )


def _of_container(values: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings that the container's variables stand for."""
    by_token = values.get("db_auth") == "iam"
    needed = ["USERNAME"] if by_token else ["USERNAME", "PASSWORD"]
    if "artifacts_destination" not in values and "default_artifact_root" not in values:
        needed.append("BUCKET")
    if missing := [name for name in needed if not environment.get(name)]:
        raise ConfigurationError(
            f"HOST and DATABASE are set, but not {', '.join(missing)}. "
            "Set what is missing (--env in docker run, or a parameter of --ssm-prefix), or use --backend-store-uri."
        )
    for name in CONTAINER.keys() & environment.keys():
        # a password may have quotes around it, and blanks; a new line at its end is a file's
        if name != "PASSWORD" or environment[name].endswith("\n"):
            _check_ends(name, environment[name], name == "PASSWORD")
    port = environment.get("PORT") or "5432"
    if not port.isdecimal():
        raise ConfigurationError(f"PORT is {port!r}, but must be the database's port number, such as 5432.")
    host = environment["HOST"]
    login = quote(environment["USERNAME"], safe="")
    if not by_token:
        login += f":{quote(environment['PASSWORD'], safe='')}"
    address = f"{f'[{host}]' if ':' in host else host}:{port}"
    made = {
        "backend_store_uri": f"postgresql://{login}@{address}/{quote(environment['DATABASE'], safe='')}",
        "host": "0.0.0.0",  # noqa: S104 - inside a container, whose published ports decide
    }
    if bucket := environment.get("BUCKET"):
        if "://" not in bucket:
            raise ConfigurationError(f"BUCKET is {bucket!r}, but must be a URI such as s3://{bucket}.")
        made["artifacts_destination"] = bucket
        if values.get("serve_artifacts") is False:
            made["default_artifact_root"] = bucket
    return made


def _artifact_root(settings: Settings, values: dict[str, Any]) -> Settings:
    """Stock's default root (mlflow.utils.server_cli_utils.resolve_default_artifact_root)."""
    if settings.serve_artifacts or "default_artifact_root" in values:
        return settings
    root = "./mlruns" if settings.database is not None else settings.backend_store_uri
    return msgspec.structs.replace(settings, default_artifact_root=root)


def _check(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """Combinations that can't work."""
    for name in ("backend_store_uri", "read_replica_backend_store_uri", "registry_store_uri"):
        try:
            database_url.parse(getattr(settings, name) or "", environment)
        except ConfigurationError as error:
            raise ConfigurationError(f"--{name.replace('_', '-')}: {error}") from None
    if settings.protected and not settings.native:
        raise ConfigurationError(
            f"--host is {settings.host}, where requests need a user or a token, but users are kept in a backend store "
            "on PostgreSQL or SQLite only. Use one, or --insecure-no-auth behind a proxy that asks who is there."
        )
    _check_database_auth(settings, environment)
    _check_replica(settings)
    _check_artifacts_only(settings)
    _check_single_sign_on(settings)
    _check_workspaces(settings)
    _check_jobs(settings)
    if settings.grants and not settings.protected:
        raise ConfigurationError("--grants is set, but this server asks nobody who they are. Set --auth.")
    if settings.stock == "never":
        _check_without_stock(settings)
    database = settings.database
    if isinstance(database, database_url.SqliteURL) and database.path in ("", ":memory:"):
        raise ConfigurationError(
            f"--backend-store-uri is {settings.backend_store_uri}, a database in memory, which several processes can't "
            "share. Name a file: sqlite:///PATH."
        )
    least = sum(_least(settings))
    if settings.database_connections and settings.database_connections < least:
        raise ConfigurationError(
            f"--database-connections is {settings.database_connections}, but {settings.workers} workers and stock "
            f"MLflow need {least}. Raise it, or lower --workers."
        )
    return settings


def _check_database_auth(settings: Settings, environment: Mapping[str, str]) -> None:
    """Raises ConfigurationError where a token of IAM could not be had, or would go to who knows whom."""
    if settings.db_auth != "iam" or not settings.native:
        return
    database = database_url.parse(settings.backend_store_uri, environment)
    if not isinstance(database, database_url.PostgresURL) or len(database.hosts) != 1 or database.hosts[0].is_socket:
        raise ConfigurationError("--db-auth iam is for an RDS instance: --backend-store-uri must name its address.")
    if "@" not in settings.backend_store_uri or database.parameters.get("password"):
        raise ConfigurationError(
            "--db-auth iam takes no password: write postgresql://ROLE@ADDRESS/DATABASE, without one, and unset "
            "PGPASSWORD."
        )
    if database.parameters.get("sslmode") != "verify-full":
        raise ConfigurationError(
            "--db-auth iam sends a token, which only the right server may get: set sslmode=verify-full, and "
            "sslrootcert to the certificates of RDS (https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem)."
        )


def _check_replica(settings: Settings) -> None:
    """Raises ConfigurationError for a read replica that can't be one."""
    if not settings.read_replica_backend_store_uri:
        return
    if settings.replica is None or not isinstance(settings.database, database_url.PostgresURL):
        raise ConfigurationError(
            "--read-replica-backend-store-uri is a standby of PostgreSQL, and --backend-store-uri its primary: both "
            "must be postgresql://... Leave it out."
        )
    if settings.db_auth == "iam":
        raise ConfigurationError(
            "--read-replica-backend-store-uri and --db-auth iam are both set, but no tokens are made for a replica. "
            "Use --db-auth password, or leave the replica out."
        )


_LOGIN = re.compile(r"//([^:@/]*)(?::[^@]*)?@")


def _with_token(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """With a token in the place of the password, good for connections of the next quarter of an hour."""
    if settings.db_auth != "iam" or not settings.native:
        return settings
    database = database_url.parse(settings.backend_store_uri, environment)
    assert isinstance(database, database_url.PostgresURL)
    host = database.hosts[0]
    token = quote(rds_token.make(host.name, host.port, database.user, environment), safe="")
    url = _LOGIN.sub(lambda found: f"//{found[1]}:{token}@", settings.backend_store_uri, count=1)
    return msgspec.structs.replace(settings, backend_store_uri=url)


def without_password(settings: Settings, passfile: str) -> Settings:
    """With a password file in the place of the password in the backend store's URL."""
    url = _LOGIN.sub(lambda found: f"//{found[1]}@", settings.backend_store_uri, count=1)
    url += f"{'&' if '?' in url else '?'}passfile={quote(passfile, safe='')}"
    return msgspec.structs.replace(settings, backend_store_uri=url)


def _check_artifacts_only(settings: Settings) -> None:
    """Raises ConfigurationError for what a server of artifacts alone has no use for."""
    if not settings.artifacts_only:
        return
    if not settings.serve_artifacts:
        raise ConfigurationError("--artifacts-only and --no-serve-artifacts are both set: nothing is left to serve.")
    for name in ("enable_all", "enable_workspaces", "grants", *OF_STOCK):
        if getattr(settings, name):
            raise ConfigurationError(
                f"--artifacts-only and --{name.replace('_', '-')} are both set, but that needs what is in the database."
            )
    if not settings.protected and settings.backend_store_uri != Settings().backend_store_uri:
        raise ConfigurationError(
            "--artifacts-only and --backend-store-uri are both set, but a server of artifacts alone that asks nobody "
            "who they are has no use for a database. Leave it out, or set --auth."
        )


def _check_jobs(settings: Settings) -> None:
    """Raises ConfigurationError for what jobs can't go with, or what needs them."""
    if not settings.enable_jobs:
        if settings.trace_archival_config:
            raise ConfigurationError(
                "--trace-archival-config needs --enable-jobs: it is MLflow's job runner that moves the traces."
            )
        return
    option, instead = "--enable-jobs", "Leave one of them out."
    if settings.enable_all:
        option, instead = "--enable-all", "With MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false it leaves jobs off."
    if settings.database is None:
        raise ConfigurationError(
            f"{option} needs a backend store in a database (--backend-store-uri): jobs are kept there."
        )
    if settings.grants:
        raise ConfigurationError(f"{option} and --grants are both set, but a job works on any experiment. {instead}")


def _check_workspaces(settings: Settings) -> None:
    """Raises ConfigurationError for what workspaces can't go with."""
    if not settings.enable_workspaces:
        return
    if settings.grants:
        raise ConfigurationError(
            "--enable-workspaces and --grants are both set, but a grant says no workspace. Use roles with workspaces, "
            "or grants without them."
        )
    for name in ("workspace_store_uri", "registry_store_uri"):
        if getattr(settings, name) not in (None, "", settings.backend_store_uri):
            raise ConfigurationError(
                f"--{name.replace('_', '-')} is another store than --backend-store-uri, but with --enable-workspaces "
                "all are in one database. Leave it out."
            )
    if not settings.native:
        raise ConfigurationError(
            "--enable-workspaces needs a backend store on PostgreSQL or SQLite (--backend-store-uri)."
        )


def _least(settings: Settings) -> tuple[int, int]:
    """The fewest connections to PostgreSQL that stock, and all the workers, can do with."""
    of_stock = _LEAST_OF_STOCK if settings.stock != "never" else 0
    return of_stock, _BUILDER + _LEAST_OF_WORKER * settings.workers


def _check_without_stock(settings: Settings) -> None:
    """Raises ConfigurationError for what only stock can do."""
    wanted = [name for name in ("enable_all", *OF_STOCK) if getattr(settings, name)]
    if not settings.native and not settings.artifacts_only:
        wanted.append("backend_store_uri")
    if not settings.models_here:
        wanted.append("registry_store_uri")
    for name in wanted:
        given = getattr(settings, name)
        shown = f"--{name.replace('_', '-')}" + ("" if given is True else f" {uri.redact(given)}")
        raise ConfigurationError(
            f"{shown} is stock MLflow's alone, and --stock is never. Use --stock lazy, or leave it out."
        )


def _check_single_sign_on(settings: Settings) -> None:
    """Raises ConfigurationError for half of it."""
    asked = bool(settings.oidc_issuer or settings.alb_arn)
    if settings.oidc_issuer and not (settings.oidc_client_id or settings.oidc_audience):
        raise ConfigurationError(
            "--oidc-issuer is set, but neither --oidc-client-id (for people) nor --oidc-audience (for programs)."
        )
    if asked and not settings.oidc_roles:
        raise ConfigurationError(
            "Single sign-on is set up, but nobody has a role. Set --oidc-roles, such as ml-admins=admin,*=viewer."
        )
    if asked and not settings.protected:
        raise ConfigurationError("Single sign-on is set up, but this server asks nobody who they are. Set --auth.")
