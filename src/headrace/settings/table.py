"""Every setting of `headrace serve`, in one table: its name, flag, environment variable, default and help.

The table makes the command's options, their validation and docs/reference/settings.md. Names, and what they
mean, are those of `mlflow server` (mlflow/cli/__init__.py, mlflow/utils/cli_args.py) where it has them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from headrace import log
from headrace.settings import DATA_DIRECTORY
from headrace.settings.values import (
    admin_token,
    app,
    choice,
    host,
    issuer,
    load_balancer,
    networks,
    number,
    parse_age,
    parse_boolean,
    prefix,
    quota,
    roles,
    seconds,
    text,
)


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


LEVELS = ("debug", "info", "warning", "error")


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
        host,
        "127.0.0.1",
        "The network interface to listen on; 0.0.0.0 for every one.",
        "-h",
    ),
    Setting("port", "MLFLOW_PORT", number(0, 65535), "5000", "The port to listen on; 0 takes a free one.", "-p"),
    Setting(
        "workers",
        "MLFLOW_WORKERS",
        number(1, 256),
        "1",
        "Worker processes; on SQLite, which has one writer, always one.",
        "-w",
    ),
    Setting(
        "static_prefix",
        "MLFLOW_STATIC_PREFIX",
        prefix,
        "none",
        "A prefix for every path, behind a proxy that keeps it.",
    ),
    Setting(
        "backend_store_uri",
        "MLFLOW_BACKEND_STORE_URI",
        text,
        f"sqlite:///{DATA_DIRECTORY}/mlflow.db",
        "Where experiments and runs are kept: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE. "
        "What else MLflow supports works too, but stock MLflow answers all of it.",
    ),
    Setting(
        "read_replica_backend_store_uri",
        "MLFLOW_READ_REPLICA_BACKEND_STORE_URI",
        text,
        "none",
        "A standby of the backend store's PostgreSQL, which answers searches and histories while it is up to date: "
        "what was written is always read back. See docs/database.md.",
    ),
    Setting(
        "registry_store_uri",
        "MLFLOW_REGISTRY_STORE_URI",
        text,
        "the backend store",
        "Where registered models are kept.",
    ),
    Setting(
        "default_artifact_root",
        "MLFLOW_DEFAULT_ARTIFACT_ROOT",
        text,
        "mlflow-artifacts:/ with --serve-artifacts, otherwise ./mlruns",
        "Where the artifacts of new experiments go; experiments that exist keep theirs.",
    ),
    Setting(
        "artifacts_destination",
        "MLFLOW_ARTIFACTS_DESTINATION",
        text,
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
        text,
        "localhost and private addresses",
        "Host headers to answer, separated by commas, * as wildcard, with any port where none is named: against DNS "
        "rebinding.",
    ),
    Setting(
        "cors_allowed_origins",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS",
        text,
        "localhost",
        "Other web origins that may call this server, separated by commas.",
    ),
    Setting(
        "x_frame_options",
        "MLFLOW_SERVER_X_FRAME_OPTIONS",
        text,
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
        number(10, 300),
        "60",
        "Seconds for which stock MLflow keeps decrypted gateway secrets.",
    ),
    Setting(
        "secrets_cache_max_size",
        "MLFLOW_SERVER_SECRETS_CACHE_MAX_SIZE",
        number(1, 10_000),
        "1000",
        "How many decrypted gateway secrets stock MLflow keeps.",
    ),
    Setting(
        "access_log",
        "HEADRACE_ACCESS_LOG",
        choice(*_ACCESS_LOG),
        "off",
        "A line for each request on the standard output: who, what, status, bytes, seconds, answered by whom.",
        choices=_ACCESS_LOG,
        from_mlflow=False,
    ),
    Setting(
        "expose_prometheus",
        "MLFLOW_EXPOSE_PROMETHEUS",
        text,
        "a folder that ends with the server",
        "The folder where the workers keep what /metrics answers, which is there with and without this option.",
    ),
    Setting(
        "ssm_prefix",
        "HEADRACE_SSM_PREFIX",
        text,
        "none",
        "A prefix in AWS Systems Manager, such as /mlflow, below which the server finds DB_HOST, DB_USER and DB_PASS "
        "and, where they are there, DB_PORT, DB_NAME, BUCKET, ADMIN_TOKEN, and any setting, such as settings/grants. "
        "They win over the container's variables.",
        from_mlflow=False,
    ),
    Setting(
        "stock",
        "HEADRACE_STOCK",
        choice(*_STOCK),
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
        seconds,
        "600",
        "With --stock lazy: seconds without a request for stock MLflow after which it ends.",
        from_mlflow=False,
    ),
    Setting(
        "stock_wait",
        "HEADRACE_STOCK_WAIT",
        seconds,
        "20",
        "Seconds for which a request waits while stock MLflow starts, before it is answered 503.",
        from_mlflow=False,
    ),
    Setting(
        "artifact_transfer",
        "HEADRACE_ARTIFACT_TRANSFER",
        choice(*_TRANSFER),
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
        number(1024, 2**31),
        str(64 * 1024 * 1024),
        "The largest request body, unpacked, too; artifacts are not limited.",
        from_mlflow=False,
    ),
    Setting(
        "queue_limit",
        "HEADRACE_QUEUE_LIMIT",
        number(1, 1_000_000),
        "10000",
        "How many writes may wait for the database in one worker, and as many of traces on PostgreSQL; more are "
        "answered 503 with Retry-After.",
        from_mlflow=False,
    ),
    Setting(
        "connections_per_client",
        "HEADRACE_CONNECTIONS_PER_CLIENT",
        number(0, 1_000_000),
        "2000",
        "How many connections an address may have to one worker, 0 for any number; more are answered 503. This machine "
        "and --trusted-proxies are not counted.",
        from_mlflow=False,
    ),
    Setting(
        "db_auth",
        "HEADRACE_DB_AUTH",
        choice(*_DB_AUTH),
        "password",
        "How the server logs in at PostgreSQL: with the URL's password, or with tokens of IAM, which it makes and "
        "renews by itself. RDS takes them of roles that are in rds_iam; the connection must be sslmode=verify-full.",
        choices=_DB_AUTH,
        from_mlflow=False,
    ),
    Setting(
        "database_connections",
        "HEADRACE_DATABASE_CONNECTIONS",
        number(1, 10_000),
        "12, or 3 and 2 for each worker where that is more",
        "How many connections to PostgreSQL this server has at most, all workers and stock MLflow together; "
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE and _MAX_OVERFLOW follow from it.",
        from_mlflow=False,
    ),
    Setting(
        "database_wait",
        "HEADRACE_DATABASE_WAIT",
        seconds,
        "60",
        "Seconds that a start waits for a database that is not up yet; 0 gives up at once.",
        from_mlflow=False,
    ),
    Setting(
        "quota",
        "HEADRACE_QUOTA",
        quota,
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
        choice(*_COMPRESS),
        "remote",
        "Who gets JSON answers of 1 KiB and more compressed, if the client takes it; remote: clients on other "
        "machines. It costs 3 to 6 ms a MB, and pays where the network is slower than 1 Gbit/s.",
        choices=_COMPRESS,
        from_mlflow=False,
    ),
    Setting(
        "shutdown_delay",
        "HEADRACE_SHUTDOWN_DELAY",
        seconds,
        "0",
        "Seconds after SIGTERM during which /ready says no and requests are still answered: as long as a load balancer "
        "takes to notice. --shutdown-timeout begins after them.",
        from_mlflow=False,
    ),
    Setting(
        "shutdown_timeout",
        "HEADRACE_SHUTDOWN_TIMEOUT",
        seconds,
        "8",
        "Seconds that requests under way get after SIGTERM (Docker kills after 10).",
        from_mlflow=False,
    ),
    Setting(
        "keep_alive",
        "HEADRACE_KEEP_ALIVE",
        seconds,
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
        admin_token,
        "none",
        "A token of an administrator, as long as the variable is set: for the first set-up by a program. Without one, "
        "and with nobody set up yet, the server makes a token and prints it once.",
        from_mlflow=False,
        secret=True,
    ),
    Setting(
        "trusted_proxies",
        "HEADRACE_TRUSTED_PROXIES",
        networks,
        "none",
        "Addresses or networks of the proxies whose X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Prefix (what "
        "they take off the path) are believed, separated by commas; anybody else's are dropped.",
        from_mlflow=False,
    ),
    Setting(
        "audit",
        "HEADRACE_AUDIT",
        choice(*_AUDIT),
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
        issuer,
        "none",
        "Single sign-on: the issuer of an OpenID Connect provider, as the provider itself writes it.",
        from_mlflow=False,
    ),
    Setting(
        "oidc_client_id",
        "HEADRACE_OIDC_CLIENT_ID",
        text,
        "none",
        "This server's client at the provider; its redirect URI is https://SERVER/headrace/oidc/callback.",
        from_mlflow=False,
    ),
    Setting(
        "oidc_client_secret",
        "HEADRACE_OIDC_CLIENT_SECRET",
        text,
        "none",
        "The client's secret, if it has one.",
        from_mlflow=False,
        secret=True,
    ),
    Setting(
        "oidc_audience",
        "HEADRACE_OIDC_AUDIENCE",
        text,
        "none",
        "The audience of the provider's tokens that programs send as bearer tokens; without one, none is taken.",
        from_mlflow=False,
    ),
    Setting(
        "oidc_scopes",
        "HEADRACE_OIDC_SCOPES",
        text,
        "openid profile email",
        "What a login asks the provider for.",
        from_mlflow=False,
    ),
    Setting(
        "oidc_user_claim",
        "HEADRACE_OIDC_USER_CLAIM",
        text,
        "email",
        "The claim that names a user when they sign in first; sub where they have none.",
        from_mlflow=False,
    ),
    Setting(
        "oidc_groups_claim",
        "HEADRACE_OIDC_GROUPS_CLAIM",
        text,
        "groups",
        "The claim with a user's groups.",
        from_mlflow=False,
    ),
    Setting(
        "oidc_roles",
        "HEADRACE_OIDC_ROLES",
        roles,
        "none",
        "Which groups have which role, GROUP=ROLE separated by commas, the group * for everybody: "
        "ml-admins=admin,ml-team=editor,*=viewer. Who has none is not let in.",
        from_mlflow=False,
    ),
    Setting(
        "alb_arn",
        "HEADRACE_ALB_ARN",
        load_balancer,
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
        app,
        "none",
        "Only basic-auth, which is taken for --auth; `headrace user import basic_auth.db` takes over its users.",
    ),
    Setting(
        "trace_archival_config",
        "MLFLOW_TRACE_ARCHIVAL_CONFIG",
        text,
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
        text,
        "that of --backend-store-uri",
        "Where workspaces are listed; Headrace has them in the backend store's database only.",
    ),
    Setting(
        "log_level",
        "HEADRACE_LOG_LEVEL",
        choice(*LEVELS),
        "info",
        "How much to log.",
        choices=LEVELS,
        from_mlflow=False,
    ),
    Setting(
        "log_format",
        "HEADRACE_LOG_FORMAT",
        choice(*log.FORMATS),
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
