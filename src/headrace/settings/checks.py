"""Combinations of settings that can't work; each is refused with what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from headrace import database_url, uri
from headrace.database_url import is_installed
from headrace.errors import ConfigurationError
from headrace.settings import Settings, least_connections
from headrace.settings.table import OF_STOCK


def check_stores(settings: Settings, environment: Mapping[str, str]) -> None:
    """Raises ConfigurationError for stores that can't be used, by the server or by another command."""
    for name in ("backend_store_uri", "read_replica_backend_store_uri", "registry_store_uri"):
        try:
            database_url.parse(getattr(settings, name) or "", environment)
        except ConfigurationError as error:
            raise ConfigurationError(f"--{name.replace('_', '-')}: {error}") from None
    _check_places(settings)
    _check_s3(settings, environment)
    _check_database_auth(settings, environment)
    _check_replica(settings)
    database = settings.database
    if isinstance(database, database_url.SqliteURL) and database.path in ("", ":memory:"):
        raise ConfigurationError(
            f"--backend-store-uri is {settings.backend_store_uri}, a database in memory, which several processes can't "
            "share. Name a file: sqlite:///PATH."
        )
    least = sum(least_connections(settings))
    if settings.database_connections and settings.database_connections < least:
        raise ConfigurationError(
            f"--database-connections is {settings.database_connections}, but {settings.workers} workers and stock "
            f"MLflow need {least}. Raise it, or lower --workers."
        )


def check_server(settings: Settings) -> None:
    """Raises ConfigurationError for what a server can't be started with."""
    if settings.protected and not settings.native:
        raise ConfigurationError(
            f"--host is {settings.host}, where requests need a user or a token, but users are kept in a backend store "
            "on PostgreSQL or SQLite only. Use one, or --insecure-no-auth behind a proxy that asks who is there."
        )
    _check_artifacts_only(settings)
    _check_single_sign_on(settings)
    _check_workspaces(settings)
    _check_jobs(settings)
    if settings.grants and not settings.protected:
        raise ConfigurationError("--grants is set, but this server asks nobody who they are. Set --auth.")
    if settings.stock == "never":
        _check_without_stock(settings)


def _check_places(settings: Settings) -> None:
    """Raises ConfigurationError for a place of artifacts that can't be read as a URI, or that is a file."""
    for name in ("artifacts_destination", "default_artifact_root"):
        place = getattr(settings, name)
        option = f"--{name.replace('_', '-')} is {uri.redact(place)[:200]!r}"
        try:
            parts = urlsplit(place)
        except ValueError as error:
            raise ConfigurationError(
                f"{option}, which is no URI ({error}). Write s3://BUCKET/PATH, or a folder."
            ) from None
        _check_kind(option, place, parts.netloc, settings.serve_artifacts and name == "artifacts_destination")
        path = unquote(parts.path) if parts.scheme == "file" else "" if "://" in place else place
        if path and os.path.exists(path) and not os.path.isdir(path):
            raise ConfigurationError(f"{option}, which is a file. Name a folder, which may be new.")


# Kinds of stores of artifacts that MLflow has -> the module that it needs on the server, and its package.
_KINDS = {
    "": "",
    "file": "",
    "s3": "",
    "r2": "",
    "b2": "",
    "gs": "google.cloud.storage google-cloud-storage",
    "wasbs": "azure.storage.blob azure-storage-blob",
    "abfss": "azure.storage.filedatalake azure-storage-file-datalake",
    "ftp": "",
    "sftp": "pysftp pysftp",
    "hdfs": "pyarrow pyarrow",
    "viewfs": "pyarrow pyarrow",
    "dbfs": "",
    "http": "",
    "https": "",
    "mlflow-artifacts": "",
}
_WITH_BUCKET = ("s3", "r2", "b2", "gs", "wasbs", "abfss")


def _check_kind(option: str, place: str, bucket: str, served: bool) -> None:
    """Raises ConfigurationError for a store of artifacts that MLflow has not got, or that could not work.

    `served`: this server itself keeps artifacts there.
    """
    kind = uri.scheme_of(place)
    if kind not in _KINDS:
        from importlib.metadata import entry_points  # 20 ms that no start in order waits for

        if not any(plugin.name == kind for plugin in entry_points(group="mlflow.artifact_repository")):
            raise ConfigurationError(
                f"{option}, which is no store that MLflow knows. Write s3://BUCKET/PATH, or a folder."
            )
        return
    if kind in _WITH_BUCKET and not bucket:
        raise ConfigurationError(f"{option}, which names no bucket. Write {kind}://BUCKET/PATH.")
    if served and kind == "mlflow-artifacts":
        raise ConfigurationError(
            f"{option}, which is this server itself. Name what is behind it: s3://BUCKET, or a folder."
        )
    if served and kind.startswith("http") and "/mlflow-artifacts/artifacts" not in place:
        raise ConfigurationError(
            f"{option}, which is no address of artifacts on another server: that ends with "
            "/api/2.0/mlflow-artifacts/artifacts. Write s3://BUCKET/PATH, or a folder."
        )
    module, _, package = _KINDS[kind].partition(" ")
    if served and module and not is_installed(module):
        raise ConfigurationError(f"{option}, which needs a package that is not installed here: pip install {package}.")


def _check_s3(settings: Settings, environment: Mapping[str, str]) -> None:
    """Raises ConfigurationError for an address of S3 that is none, or arguments that can't be read."""
    if "s3" not in (uri.scheme_of(settings.artifacts_destination), uri.scheme_of(settings.default_artifact_root)):
        return
    for name in ("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        address = environment.get(name)
        if address and (wrong := uri.what_is_wrong(address)):
            raise ConfigurationError(f"{name} is {uri.redact(address)!r}, which {wrong}. Write http://HOST:PORT.")
    try:
        given = json.loads(environment.get("MLFLOW_S3_UPLOAD_EXTRA_ARGS") or "{}")
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise ConfigurationError(
            'MLFLOW_S3_UPLOAD_EXTRA_ARGS is no JSON object. Write it as {"ServerSideEncryption": "aws:kms"}.'
        )


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
    check_takes_tokens(settings, database)


def check_takes_tokens(settings: Settings, database: database_url.PostgresURL) -> None:
    """Raises ConfigurationError where a token would go to whoever answers, or a replica would get none."""
    if database.parameters.get("sslmode") != "verify-full":
        raise ConfigurationError(
            "--db-auth iam sends a token, which only the right server may get: set sslmode=verify-full, and "
            "sslrootcert to the certificates of RDS (https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem)."
        )
    if settings.read_replica_backend_store_uri:
        raise ConfigurationError(
            "--read-replica-backend-store-uri and --db-auth iam are both set, but no tokens are made for a replica. "
            "Use --db-auth password, or leave the replica out."
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
