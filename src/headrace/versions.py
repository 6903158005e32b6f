"""Which versions are installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version(package: str) -> str:
    """Empty for one that is not installed, but run from its sources."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
