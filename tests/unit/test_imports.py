"""Which part may import which: the table of docs/design.md, held."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import headrace
from tests.support.pages import DOCS

SOURCE = Path(headrace.__file__).parent

WORDS = {"address", "clock", "database_url", "entities", "errors", "log", "settings", "sqlite_wait", "uri", "versions"}
# a part (folder or module) -> the parts that it may import
ALLOWED: dict[str, set[str]] = {
    "address": set(),
    "clock": set(),
    "versions": set(),
    "entities": set(),
    "errors": set(),
    "log": set(),
    "sqlite_wait": set(),
    "stock_options": set(),
    "uri": set(),
    "database_url": {"errors", "uri"},
    "ssm": {"errors"},
    "rds_token": {"errors"},
    "settings": {"database_url", "errors", "log", "rds_token", "stock_options", "ssm", "uri"},
    "renewal": WORDS | {"rds_token", "ssm"},
    "sql": set(),
    "sweeps": {"errors"},
    "access_log": {"asgi"},
    "child": WORDS,
    "process": WORDS | {"listeners"},
    "listeners": WORDS,
    "asgi": WORDS,
    "db": WORDS,
    "auth": WORDS | {"db", "child"},
    "events": WORDS | {"db", "sweeps"},
    "api": WORDS | {"asgi", "auth", "db", "events", "ui"},
    "pages": WORDS | {"api", "artifacts", "auth", "db", "events", "monitoring", "ui", "usage"},
    "resources": WORDS | {"api", "auth", "db", "pages", "sweeps"},
    "artifacts": WORDS | {"api", "asgi", "db", "resources"},
    "gc": WORDS | {"artifacts", "db", "resources", "sweeps"},
    "quotas": WORDS | {"api", "artifacts", "asgi", "auth", "db", "sweeps", "usage"},
    "usage": WORDS | {"artifacts", "db"},
    "copy": WORDS | {"artifacts", "database", "db", "resources"},
    "ui": WORDS | {"api", "asgi", "auth"},
    "stock": WORDS | {"process", "child", "asgi", "db", "events"},
    "readiness": WORDS | {"db"},
    "monitoring": WORDS | {"access_log", "api", "asgi", "db"},
    "background": WORDS | {"artifacts", "db", "events", "gc", "quotas", "resources"},
    "pass_through": WORDS | {"api", "artifacts", "asgi", "auth", "monitoring", "quotas", "resources", "stock", "ui"},
    "app": WORDS
    | {
        "access_log",
        "api",
        "artifacts",
        "asgi",
        "auth",
        "background",
        "db",
        "events",
        "monitoring",
        "pass_through",
        "quotas",
        "readiness",
        "resources",
        "ui",
    },
    "server": WORDS | {"app", "asgi", "child", "readiness"},
    "worker": {"child", "server"},
    "workers": {"process"},
    "database": WORDS | {"db", "process", "sql", "stock"},
    "server_role": WORDS | {"database", "sql"},
    "serve": WORDS | {"process", "stock", "database", "listeners", "renewal", "workers"},
    "aws": WORDS | {"database", "renewal", "server_role", "ssm"},
    "cli": WORDS
    | {
        "artifacts",
        "auth",
        "aws",
        "copy",
        "database",
        "db",
        "events",
        "gc",
        "serve",
        "server_role",
        "ssm",
        "stock_options",
        "usage",
        "workers",
    },
}


def part_of(module: str) -> str:
    """`headrace.db.query` is of `db`."""
    return module.removeprefix("headrace.").split(".")[0]


def imported(path: Path) -> set[str]:
    """The modules of ours that a file names."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "headrace":
            modules |= {f"headrace.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("headrace."):
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names if alias.name.startswith("headrace.")}
    return modules


def test_imports_go_downwards() -> None:
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        part = path.relative_to(SOURCE).with_suffix("").parts[0]
        if part != "__init__":
            others = {part_of(module) for module in imported(path)} - {part}
            wrong += [f"{path.relative_to(SOURCE)} imports {other}" for other in sorted(others - ALLOWED[part])]
    assert wrong == []


def test_every_part_has_a_line() -> None:
    parts = {path.stem if path.is_file() else path.name for path in SOURCE.iterdir() if not path.name.startswith("__")}
    assert parts == ALLOWED.keys()


def test_the_table_of_the_design_says_the_same() -> None:
    """A row's parts may import one another, the words, and what its last column names."""
    rows = re.findall(
        r"^\| (`.*?) \| .* \| (.*?) \|$", (DOCS / "design.md").read_text().split("## Add an endpoint")[0], re.M
    )
    table = [tuple(map(parts_in, row)) for row in rows]
    assert sorted(part for parts, _ in table for part in parts) == sorted(ALLOWED)
    for (parts, named), (_, said), below in zip(table, rows, range(1, len(table) + 1), strict=True):
        allowed = set().union(*(ALLOWED[part] for part in parts)) - parts
        lower = {part for lower, _ in table[below:] for part in lower} if "everything below" in said else set()
        assert allowed - lower - WORDS == named - lower - WORDS, parts


def parts_in(cell: str) -> set[str]:
    return {name.removesuffix("/").removesuffix(".py") for name in re.findall("`(.*?)`", cell)}


def test_our_processes_do_not_import_mlflow() -> None:
    """Nor does the supervisor carry a web server or a database driver, nor a worker what is for few requests.

    A start is imports: 0.3 s of them until /ready says yes, and no clock of a busy machine could hold that.
    """
    script = "import sys, headrace.{0}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    for module, without in (
        ("server", {"mlflow", "sqlalchemy", "boto3", "asyncpg", "httpcore", "google", "prometheus_client", "re2"}),
        ("server", {"click", "multiprocessing"}),  # of uvicorn's own command line
        ("serve", {"mlflow", "uvicorn", "asyncpg", "boto3", "asyncio", "ssl"}),
        ("cli.main", {"click", "asyncio"}),  # starts twice where a password is to be hidden
        ("cli.commands", {"asyncio", "ssl", "boto3"}),
    ):
        done = subprocess.run([sys.executable, "-c", script.format(module)], capture_output=True, text=True, check=True)
        assert without.isdisjoint(done.stdout.split())
