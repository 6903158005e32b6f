"""Which versions are installed."""

from __future__ import annotations

from functools import cache


@cache
def installed_version(package: str) -> str:
    """Empty for one that is not installed, but run from its sources."""
    from importlib.metadata import PackageNotFoundError, version  # 20 ms that no start waits for

    try:
        return version(package)
    except PackageNotFoundError:
        return ""
