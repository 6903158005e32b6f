"""What `mlflow server` has, options and variables, that is no setting of Headrace's: what becomes of each here.

Refused by name, followed by stock, without effect (said at the start), or nobody's business on a server. What is a
setting stands in settings/table.py. docs/reference/mlflow-server-options.md is made of both; a test walks stock's
--help and its environment_variables.py and fails on what has no row.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple


class Refused(NamedTuple):
    """An option of `mlflow server` that Headrace does not have. `harmless`: values that ask for nothing."""

    flags: tuple[str, ...]
    environment: str
    instead: str
    harmless: tuple[str, ...] = ("",)
    takes_value: bool = True


class Variables(NamedTuple):
    """Variables with one answer."""

    names: tuple[str, ...]
    answer: str


_FALSE = ("", "0", "false", "f", "no", "n", "off")
_OWN_SERVER = "use --host, --port, --workers, --keep-alive, --shutdown-timeout and --log-level"
_TLS = "TLS is the business of a proxy or balancer in front; name it in --trusted-proxies"
REFUSED = (
    Refused(("--gunicorn-opts",), "MLFLOW_GUNICORN_OPTS", _OWN_SERVER),
    Refused(("--waitress-opts",), "", _OWN_SERVER),
    Refused(("--uvicorn-opts",), "MLFLOW_UVICORN_OPTS", _OWN_SERVER),
    Refused(("--dev",), "", "use --log-level debug", takes_value=False),
    Refused((), "MLFLOW_WORKSPACE", "it is for clients only; unset it"),
    Refused((), "MLFLOW_SQL_TRACE_ROLLUPS_ENABLED", "what Headrace writes is not queued for it; unset it", _FALSE),
    Refused((), "UVICORN_SSL_CERTFILE", _TLS),
    Refused((), "UVICORN_SSL_KEYFILE", _TLS),
)

# Those that Headrace follows, too, where it answers instead of stock.
WORKS = (
    Variables(("MLFLOW_LOGGING_LEVEL",), "is taken for --log-level where that is not given"),
    Variables(("FORWARDED_ALLOW_IPS",), "is taken for --trusted-proxies where that is not given; `*` is every address"),
    Variables(("WEB_CONCURRENCY",), "is taken for --workers where that is not given (stock always has 4)"),
    Variables(
        ("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW"),
        "together are taken for --database-connections where that is not given: a budget of the whole server, not of "
        "each process",
    ),
    Variables(
        (
            "MLFLOW_S3_ENDPOINT_URL",
            "MLFLOW_S3_IGNORE_TLS",
            "MLFLOW_S3_UPLOAD_EXTRA_ARGS",
            "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE",
        ),
        "work as in stock ([artifacts.md](../artifacts.md))",
    ),
    Variables(
        (
            "MLFLOW_PRESIGNED_DOWNLOAD_URL_TTL_SECONDS",
            "MLFLOW_TRUNCATE_LONG_VALUES",
            "MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES",
        ),
        "work as in stock",
    ),
)
STOCKS = (
    Variables(
        ("MLFLOW_S3_EXPECTED_BUCKET_OWNER", "MLFLOW_EXPERIMENTAL_S3_SIGNATURE_VERSION"),
        "work: artifacts in S3 are then answered by stock",
    ),
    Variables(
        ("MLFLOW_CREATE_MODEL_VERSION_SOURCE_VALIDATION_REGEX",), "works: versions are then made by stock, which looks"
    ),
    Variables(
        (
            "MLFLOW_ARTIFACT_LOCATION_MAX_LENGTH",
            "MLFLOW_SERVER_GRAPHQL_MAX_ROOT_FIELDS",
            "MLFLOW_SERVER_GRAPHQL_MAX_ALIASES",
            "MLFLOW_ICON_URL_ALLOWED_SCHEMES",
            "MLFLOW_ICON_URL_ALLOW_PRIVATE_IPS",
            "MLFLOW_ICON_URL_ALLOWED_DOMAINS",
            "MLFLOW_WORKSPACE_ARTIFACT_ROOT_CACHE_CAPACITY",
            "MLFLOW_WORKSPACE_ARTIFACT_ROOT_CACHE_TTL_SECONDS",
            "MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS",
            "MLFLOW_CONFIGURE_LOGGING",
            "MLFLOW_DISABLE_TELEMETRY",
        ),
        "work: only what stock answers has to do with them",
    ),
    Variables(
        ("MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE", "MLFLOW_SQLALCHEMYSTORE_ECHO"),
        "work on stock's connections; Headrace's are looked at before they are used, and --log-level debug shows more",
    ),
    Variables(
        ("MLFLOW_MYSQL_SSL_CA", "MLFLOW_MYSQL_SSL_CERT", "MLFLOW_MYSQL_SSL_KEY", "MLFLOW_ALLOW_FILE_STORE"),
        "work: these stores are stock's alone",
    ),
    Variables(
        (
            "MLFLOW_GCS_DOWNLOAD_CHUNK_SIZE",
            "MLFLOW_GCS_UPLOAD_CHUNK_SIZE",
            "MLFLOW_KERBEROS_TICKET_CACHE",
            "MLFLOW_KERBEROS_USER",
            "MLFLOW_PYARROW_EXTRA_CONF",
            "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT",
            "MLFLOW_ENABLE_MULTIPART_DOWNLOAD",
            "MLFLOW_ENABLE_MULTIPART_UPLOAD",
            "MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE",
            "MLFLOW_MULTIPART_DOWNLOAD_MINIMUM_FILE_SIZE",
            "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE",
            "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE",
        ),
        "work on stores of artifacts other than the disk and S3, which are stock's alone",
    ),
    Variables(
        (
            "MLFLOW_GATEWAY_ALLOWED_PROVIDERS",
            "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES",
            "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS",
            "MLFLOW_GATEWAY_BUDGET_REDIS_URL",
            "MLFLOW_GATEWAY_BUDGET_REFRESH_INTERVAL",
            "MLFLOW_GATEWAY_MAX_DECOMPRESSED_REQUEST_SIZE",
            "MLFLOW_GATEWAY_ROUTE_TIMEOUT_SECONDS",
            "MLFLOW_GATEWAY_URI",
            "MLFLOW_DEPLOYMENTS_TARGET",
            "MLFLOW_MODEL_CATALOG_URI",
            "MLFLOW_MODEL_CATALOG_CACHE_TTL",
            "MLFLOW_GENAI_JUDGE_BASE_URL",
            "MLFLOW_CRYPTO_KEK_PASSPHRASE",
            "MLFLOW_CRYPTO_KEK_VERSION",
        ),
        "work with --enable-ai-gateway",
    ),
    Variables(
        (
            "MLFLOW_ENABLE_REMOTE_ASSISTANT",
            "MLFLOW_ENABLE_ASSISTANT_SANDBOX",
            "MLFLOW_SANDBOX_DOCKER_IMAGE",
            "MLFLOW_ASSISTANT_SANDBOX_CLI_IMAGE",
            "MLFLOW_SANDBOX_EGRESS_PROXY",
        ),
        "work with --enable-assistant",
    ),
    Variables(
        (
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS",
            "MLFLOW_WEBHOOK_CACHE_TTL",
            "MLFLOW_WEBHOOK_DELIVERY_MAX_WORKERS",
            "MLFLOW_WEBHOOK_REQUEST_MAX_RETRIES",
            "MLFLOW_WEBHOOK_REQUEST_TIMEOUT",
        ),
        "work with --enable-webhooks",
    ),
    Variables(
        ("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY",),
        "encrypts the secrets of MLflow's webhooks, with --enable-webhooks, and of `headrace events`",
    ),
    Variables(
        (
            "MLFLOW_JOB_CUSTOM_SCORER_EXECUTOR_BACKEND",
            "MLFLOW_JOB_DEFAULT_EXECUTOR_BACKEND",
            "MLFLOW_SERVER_JOB_DEFAULT_TIMEOUT",
            "MLFLOW_SERVER_JOB_ENABLE_PERIODIC_TASKS",
            "MLFLOW_SERVER_JOB_EXECUTION_ENGINE",
            "MLFLOW_SERVER_JOB_FLUSH_PERIODIC_LOCKS_ON_STARTUP",
            "MLFLOW_SERVER_JOB_HUEY_REDIS_URL",
            "MLFLOW_SERVER_JOB_LEASE_TTL",
            "MLFLOW_SERVER_JOB_TRANSIENT_ERROR_MAX_RETRIES",
            "MLFLOW_SERVER_JOB_TRANSIENT_ERROR_RETRY_BASE_DELAY",
            "MLFLOW_SERVER_JOB_TRANSIENT_ERROR_RETRY_MAX_DELAY",
        ),
        "work with --enable-jobs",
    ),
)
# Whoever sets one is told at the start.
WITHOUT_EFFECT = (
    Variables(
        (
            "MLFLOW_AUTH_CONFIG_PATH",
            "MLFLOW_AUTH_ADMIN_USERNAME",
            "MLFLOW_AUTH_ADMIN_PASSWORD",
            "MLFLOW_BASIC_AUTH_FAIL_CLOSED",
            "MLFLOW_FLASK_SERVER_SECRET_KEY",
            "MLFLOW_RBAC_SEED_DEFAULT_ROLES",
            "MLFLOW_SERVER_ENABLE_GRAPHQL_AUTH",
        ),
        "belongs to MLflow's basic-auth; Headrace has users of its own (--auth, `headrace user`)",
    ),
    Variables(
        (
            "MLFLOW_TRACE_ROLLUPS_MAX_PARTITIONS_PER_RUN",
            "MLFLOW_TRACE_ROLLUPS_MAX_WORKERS",
            "MLFLOW_TRACE_ROLLUPS_SCHEDULE",
        ),
        "has no effect: MLFLOW_SQL_TRACE_ROLLUPS_ENABLED is refused",
    ),
    Variables(
        ("MLFLOW_SQLALCHEMYSTORE_POOLCLASS",),
        "has no effect on PostgreSQL: all of stock shares one pool within --database-connections",
    ),
    Variables(
        ("GUNICORN_CMD_ARGS",),
        f"has no effect (in stock with --gunicorn-opts only); {_OWN_SERVER}",
    ),
    Variables(("UVICORN_*",), f"all but those of TLS, which are refused, have no effect; {_OWN_SERVER}"),
)
# What the code of MLflow's server and stores reads when it is somebody's client, or runs on Databricks.
CLIENTS = (
    Variables(
        (
            "MLFLOW_ASYNC_TRACE_LOGGING_RETRY_TIMEOUT",
            "MLFLOW_DELETE_TRACES_MAX_BATCH_SIZE",
            "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD",
            "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD",
            "MLFLOW_EXPERIMENT_ID",
            "MLFLOW_EXPERIMENT_NAME",
            "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
            "MLFLOW_REGISTRY_DIR",
            "MLFLOW_TRACKING_DIR",
            "MLFLOW_TRACKING_PASSWORD",
            "MLFLOW_TRACKING_URI",
            "MLFLOW_TRACKING_USERNAME",
        ),
        "are for clients",
    ),
    Variables(
        (
            "MLFLOW_DISABLE_DATABRICKS_SDK_FOR_RUN_ARTIFACTS",
            "MLFLOW_ENABLE_DB_SDK",
            "MLFLOW_ENABLE_DBFS_FUSE_ARTIFACT_REPO",
            "MLFLOW_ENABLE_UC_FUNCTIONS",
            "MLFLOW_ENABLE_UC_NATIVE_MODEL_REGISTRY",
            "MLFLOW_ENABLE_UC_VOLUME_FUSE_ARTIFACT_REPO",
            "MLFLOW_SKIP_SIGNATURE_CHECK_FOR_UC_REGISTRY_MIGRATION",
            "MLFLOW_TRACING_SQL_WAREHOUSE_ID",
        ),
        "are for Databricks",
    ),
    Variables(
        (
            "MLFLOW_ENABLE_OTEL_GENAI_SEMCONV",
            "MLFLOW_GATEWAY_CONFIG",
            "MLFLOW_GATEWAY_RATE_LIMITS_STORAGE_URI",
            "MLFLOW_GATEWAY_RESOLVE_API_KEY_FROM_ENV",
            "MLFLOW_GATEWAY_RESOLVE_API_KEY_FROM_FILE",
        ),
        "are for other programs of MLflow's: `mlflow gateway`, what makes traces",
    ),
)
# Kubernetes tells every container about a service called mlflow: MLFLOW_PORT=tcp://10.0.0.1:5000.
_KUBERNETES = re.compile(r"(tcp|udp|sctp)://\S+:\d+")


def is_of_kubernetes(text: str) -> bool:
    """Whether a variable's value is the address of a service, which nobody here has set."""
    return _KUBERNETES.fullmatch(text) is not None


def lines_of(environment: Mapping[str, str], settings: Collection[str]) -> Iterator[str]:
    """A line for each variable that is set and has no effect; `settings`: the variables that have one."""
    for row in WITHOUT_EFFECT:
        for pattern in row.names:
            beginning = pattern.removesuffix("*")
            for name in sorted(environment):
                if environment[name] and (name == pattern or (pattern != beginning and name.startswith(beginning))):
                    yield f"{name} is set, but {row.answer}"
    by_end = {name.partition("_")[2].removeprefix("SERVER_"): name for name in settings}
    for name in sorted(environment):
        if name.startswith("HEADRACE_") and name not in settings and not is_of_kubernetes(environment[name]):
            for end in difflib.get_close_matches(name.removeprefix("HEADRACE_"), by_end, 1, 0.85):
                yield f"{name} is set, but is no setting; did you mean {by_end[end]}?"
