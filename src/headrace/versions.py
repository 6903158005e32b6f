"""What is installed: which versions, and where MLflow's files are."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def installed_version(package: str) -> str:
    """Empty for one that is not installed, but run from its sources."""
    from importlib.metadata import PackageNotFoundError, version  # 20 ms that no start waits for

    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def mlflow_folder() -> Path:
    """The package of the installed MLflow, found without importing it. Raises ModuleNotFoundError."""
    spec = find_spec("mlflow")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("MLflow is not installed: pip install mlflow")
    return Path(spec.origin).parent
