"""What is asked of a copy."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct


class Options(Struct, frozen=True):
    """`experiments`: names, none for all. `into`: the name at the target. `source_artifacts`: what `mlflow-artifacts:`
    means at the source, or `source_server`, the URL that gives them. `artifacts`: copy them, and rewrite where they
    are. `dry`: only count.
    """

    experiments: Sequence[str] = ()
    into: str | None = None
    source_artifacts: str | None = None
    source_server: str | None = None
    artifacts: bool = True
    dry: bool = False
