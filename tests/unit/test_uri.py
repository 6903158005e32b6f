from __future__ import annotations

import pytest
import sqlalchemy

from headrace import uri

URIS = (
    "postgresql://me:secret@db.example.com:5432/mlflow",
    "postgresql+psycopg2://me@db/mlflow?sslmode=require&connect_timeout=3",
    "postgresql://me:a/b:c%40d%25@[::1]:5433/mlflow",
    "postgresql://postgres:@/postgres?host=/tmp/a%20b",
    "postgresql:///mlflow",
    "mysql+pymysql://u:p@h/d",
    "mssql+pyodbc://u:p@h/d?driver=ODBC+Driver+18",
    "sqlite:///relative/mlflow.db",
    "sqlite:////absolute/mlflow.db",
)


@pytest.mark.parametrize("text", URIS)
def test_a_uri_means_what_it_means_to_sqlalchemy(text: str) -> None:
    ours, theirs = uri.parse(text), sqlalchemy.make_url(text)
    assert ours is not None
    assert ours.scheme == theirs.drivername
    assert (ours.user, ours.password, ours.host or None, ours.port) == (
        theirs.username,
        theirs.password,
        theirs.host,
        theirs.port,
    )
    assert ours.database == (theirs.database or "")
    assert ours.query == dict(theirs.query)


@pytest.mark.parametrize("text", URIS)
def test_what_is_rendered_reads_the_same(text: str) -> None:
    parsed = uri.parse(text)
    assert parsed is not None
    assert uri.parse(parsed.render()) == parsed


@pytest.mark.parametrize("text", ["./mlruns", "/data/mlruns", "file:///data/mlruns", "http://server:5000", ""])
def test_what_is_no_database(text: str) -> None:
    assert uri.parse(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://u:p@h/d?sslmode=require", "postgresql+psycopg2://u:p@h/d?sslmode=require"),
        ("postgres://u:p@h/d", "postgresql+psycopg2://u:p@h/d"),
        ("postgresql+psycopg://u:p@h/d", "postgresql+psycopg2://u:p@h/d"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("mysql+pymysql://u:p@h/d", "mysql+pymysql://u:p@h/d"),
    ],
)
def test_stock_gets_an_explicit_driver(text: str, expected: str) -> None:
    assert uri.for_stock(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:secret@db/mlflow",
        "can't connect to postgresql://me:se@cret@db/mlflow, says the server",
        "postgresql://db/mlflow?user=me&password=secret&sslmode=require",
        "--backend-store-uri=postgresql+psycopg2://me:x%20secret@db/mlflow",
    ],
)
def test_redact(text: str) -> None:
    redacted = uri.redact(text)
    assert "cret" not in redacted
    assert "***" in redacted
    assert "mlflow" in redacted


def test_redact_finds_a_password_that_stands_alone() -> None:
    text = 'invalid value "p w%d" and p%20w%25d'
    assert uri.redact(text, "postgresql://u:p%20w%25d@h/d") == 'invalid value "***" and ***'


def test_redact_leaves_other_texts() -> None:
    for text in ("http://127.0.0.1:5000", "s3://bucket/a@b", "write to me@example.com: now"):
        assert uri.redact(text) == text
