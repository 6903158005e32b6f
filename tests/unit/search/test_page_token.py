"""Page tokens: Headrace's, stock's, and what is neither."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.search_utils import SearchUtils

from headrace.api.search.page_token import BadPageToken, PageToken, decode, encode, fingerprint
from headrace.errors import Declined

QUERY = fingerprint((1,), "ALL", "metrics.a > 1", [])


def token(content: Any) -> str:
    return base64.b64encode(json.dumps(content).encode()).decode()


def test_a_token_comes_back_as_it_was() -> None:
    given = PageToken(100, (0, 1.7976931348623157e308, None, "日本", 5, "a" * 32), QUERY)
    assert decode(encode(given), QUERY) == given


def test_no_token_is_the_first_page() -> None:
    assert decode("", QUERY) == PageToken(0)


def test_a_token_of_stock() -> None:
    assert decode(token({"offset": 7}), QUERY) == PageToken(7)


def test_stock_finds_its_offset_in_a_token() -> None:
    given = json.loads(base64.b64decode(encode(PageToken(100, ("x",), QUERY))))
    assert given["offset"] == 100


def test_searches_have_different_fingerprints() -> None:
    others = [((1,), "ALL", "metrics.a > 1", ["x"]), ((2,), "ALL", "metrics.a > 1", []), ((1,), "ALL", "", [])]
    assert len({QUERY, *(fingerprint(*other) for other in others)}) == 4


@pytest.mark.parametrize(
    "content",
    [
        {"offset": 5, "after": ["x"], "query": "other"},
        {"offset": 5, "after": ["x"]},
        {"offset": 5, "after": "x", "query": QUERY},
        {"offset": 5, "after": [True], "query": QUERY},
        {"offset": 5, "after": [{}], "query": QUERY},
    ],
)
def test_what_can_not_be_ours_is_refused(content: Any) -> None:
    with pytest.raises(BadPageToken):
        decode(token(content), QUERY)


def test_a_gigantic_token_is_refused() -> None:
    with pytest.raises(BadPageToken):
        decode("A" * 1_000_000, QUERY)


@pytest.mark.parametrize("text", ["x", "....", token({}), token({"offset": 0}), token({"offset": "five"})])
def test_what_is_none_is_refused_in_mlflows_words(text: str) -> None:
    with pytest.raises(BadPageToken) as refused:
        decode(text, QUERY)
    with pytest.raises(MlflowException) as expected:
        SearchUtils.parse_start_offset_from_page_token(text)
    assert str(refused.value) == str(expected.value)


@pytest.mark.parametrize("text", [token({"offset": "5"}), token({"offset": True})])
def test_the_rest_is_stocks_to_judge(text: str) -> None:
    with pytest.raises(Declined):
        decode(text, QUERY)


@pytest.mark.parametrize(
    "text",
    ["é", "\U0001f600", token([]), token(7), token("x"), token(None), token({"offset": -1}), token({"offset": 2**63}),
     token({"offset": str(2**64)}), token({"offset": "-5"}), token({"offset": [1]}), token({"offset": 1.5}),
     base64.b64encode(b'{"offset": Infinity}').decode(), base64.b64encode(b"[" * 100_000).decode()],
)  # fmt: skip
def test_what_stock_would_fail_at_is_refused(text: str) -> None:
    with pytest.raises(BadPageToken, match="not one that this server gave"):
        decode(text, QUERY)
