"""Options and variables of `mlflow server` that Headrace does not have: refused by name, never ignored."""

from __future__ import annotations

from typing import NamedTuple


class Refused(NamedTuple):
    """An option of `mlflow server` that Headrace does not have. `harmless`: values that ask for nothing."""

    flags: tuple[str, ...]
    environment: str
    instead: str
    harmless: tuple[str, ...] = ("",)
    takes_value: bool = True


_FALSE = ("", "0", "false", "f", "no", "n", "off")
_NO_JOBS = "Headrace doesn't run MLflow's job runner"
REFUSED = (
    Refused(
        ("--read-replica-backend-store-uri",),
        "MLFLOW_READ_REPLICA_BACKEND_STORE_URI",
        "Headrace reads from --backend-store-uri; leave it out",
    ),
    Refused(
        ("--artifacts-only",),
        "MLFLOW_ARTIFACTS_ONLY",
        "run `mlflow server --artifacts-only` for a server of artifacts alone",
        _FALSE,
        takes_value=False,
    ),
    Refused(("--gunicorn-opts",), "MLFLOW_GUNICORN_OPTS", "use --host, --port, --workers and --log-level"),
    Refused(("--waitress-opts",), "", "use --host, --port, --workers and --log-level"),
    Refused(("--uvicorn-opts",), "MLFLOW_UVICORN_OPTS", "use --host, --port, --workers and --log-level"),
    Refused(("--dev",), "", "use --log-level debug", takes_value=False),
    Refused(
        ("--app-name",),
        "",
        "MLflow's server plugins (basic-auth too) would not see the requests that Headrace answers",
    ),
    Refused(("--trace-archival-config",), "MLFLOW_TRACE_ARCHIVAL_CONFIG", f"{_NO_JOBS}; leave it out"),
    Refused((), "MLFLOW_WORKSPACE", "it is for clients only; unset it"),
    Refused((), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", f"{_NO_JOBS}; unset it", _FALSE),
    Refused((), "MLFLOW_SQL_TRACE_ROLLUPS_ENABLED", f"{_NO_JOBS}; unset it", _FALSE),
)
