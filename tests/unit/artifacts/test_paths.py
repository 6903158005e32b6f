"""Which artifact paths are answered natively, and as what."""

from __future__ import annotations

import pytest

from headrace.artifacts.paths import plain, safe
from headrace.errors import Declined


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("a", "a"),
        ("a/b c.txt", "a/b c.txt"),
        ("a%20b", "a%20b"),  # it is decoded already; stock does it again
        ("SHAP Xgboost #1.png", "SHAP Xgboost #1.png"),
        ("a?b#c", "a?b#c"),
        ("a%23b%3Fc", "a%23b%3Fc"),
        ("ends in?", "ends in?"),
        ("#", "#"),
        (";", ";"),
        ("50%.txt", "50%.txt"),
        ("ü/日本.png", "ü/日本.png"),
        ("..a/b..", "..a/b.."),
        ("a/b:c", "a/b:c"),
        ("a&b=c;d", "a&b=c;d"),
    ],
)
def test_plain_paths(given: str, path: str) -> None:
    assert safe(given) == path


@pytest.mark.parametrize(
    "given",
    [
        *("", "/", "/a", "a/", "a//b", ".", "./a", "a/./b", "..", "../a", "a/..", "a/../b"),
        *("%2e%2e/a", "%252e%252e%252fa", "%2fa", "a%5cb", "a\\b", "..\\a", "C:/a", "C:\\a"),
        *("file:a", "file:///a", "http://a/b", "a\0b", "a%00b", "a\nb", "a%0ab", "\x7f", "\ufffd"),
        *("http://[a", ".artifact.uploading.x", "a/.artifact.uploading.x/b", "%" + "25" * 12 + "41"),
    ],
)
def test_other_paths_are_stocks(given: str) -> None:
    with pytest.raises(Declined):
        safe(given)


def test_plain_does_not_decode() -> None:
    assert plain("a%20b") == "a%20b"
