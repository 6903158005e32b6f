"""What a server is set to.

`table.py` has every setting, `values.py` reads the text of one, `resolve.py` makes the settings of a command
line and an environment, `checks.py` refuses combinations that can't work.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

import msgspec

from headrace import database_url, uri

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
        from headrace.settings.table import SETTINGS

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
        of_stock, of_workers = least_connections(self)
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


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def least_connections(settings: Settings) -> tuple[int, int]:
    """The fewest connections to PostgreSQL that stock, and all the workers, can do with."""
    of_stock = _LEAST_OF_STOCK if settings.stock != "never" else 0
    return of_stock, _BUILDER + _LEAST_OF_WORKER * settings.workers
