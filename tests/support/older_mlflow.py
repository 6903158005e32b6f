"""The installed MLflow as it was before its last migration, which a process finds first with PYTHONPATH."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from headrace.database import installed_revisions

VERSIONS = Path("store", "db_migrations", "versions")


def last_migration() -> Path:
    """Its file, below MLflow's folder."""
    head = re.compile(rf"^revision = .{installed_revisions().head}.$", re.M)
    (file,) = (one for one in (_folder() / VERSIONS).glob("*.py") if head.search(one.read_text()))
    return VERSIONS / file.name


def make(folder: Path) -> Path:
    """What PYTHONPATH must have: in `folder`, links to all of MLflow but for its last migration."""
    gone = last_migration()
    _link(_folder(), folder / "mlflow", gone)
    return folder


def _link(there: Path, here: Path, gone: Path) -> None:
    here.mkdir(parents=True)
    for one in there.iterdir():
        if one.name != gone.parts[0]:
            (here / one.name).symlink_to(one)
        elif len(gone.parts) > 1:
            _link(one, here / one.name, gone.relative_to(gone.parts[0]))


def _folder() -> Path:
    spec = find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
