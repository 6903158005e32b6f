from __future__ import annotations

import pytest

from headrace import uri


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


def test_redact_leaves_words_that_hold_a_short_password() -> None:
    assert uri.redact("the password is wrong", "postgresql://u:p@h/d") == "the password is wrong"


def test_redact_leaves_other_texts() -> None:
    for text in ("http://127.0.0.1:5000", "s3://bucket/a@b", "write to me@example.com: now"):
        assert uri.redact(text) == text
