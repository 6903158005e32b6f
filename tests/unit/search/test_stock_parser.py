"""MLflow's own parser, asked what is wrong with a filter, in a process without MLflow."""

from __future__ import annotations

import subprocess
import sys

import pytest

from headrace.api.search import stock_parser
from headrace.api.search.stock_parser import LONGEST, Worded
from headrace.errors import ApiError, Declined, InvalidParameter

RUNS = "SearchUtils.parse_search_filter"


def refusal(parser: str, *texts: str, first: type[Exception] = Declined) -> BaseException:
    with pytest.raises((Declined, ApiError)) as raised, Worded(parser, *texts):
        raise first("not read here")
    return raised.value


def test_its_words() -> None:
    found = refusal(RUNS, "tags.a = x")
    assert isinstance(found, InvalidParameter)
    assert str(found).startswith("Parameter value is either not quoted")
    assert str(refusal("SearchUtils.parse_order_by_for_search_runs", "start_time", "x")).startswith("Invalid attribute")
    assert str(refusal("parse_filter_string", "name")).startswith("Invalid filter string: 'name'.")
    assert str(refusal(RUNS, "x", first=InvalidParameter)) == "Invalid clause(s) in filter string: 'x'"


@pytest.mark.parametrize(
    ("parser", "text"),
    [
        (RUNS, "metrics.m > 1 metrics.m < 2"),  # MLflow takes it
        (RUNS, "x" * (LONGEST + 1)),
        ("SearchUtils.of_another_mlflow", "x"),
        ("NothingUtils.parse_search_filter", "x"),
    ],
)
def test_what_stays_as_it_is(parser: str, text: str) -> None:
    assert str(refusal(parser, text)) == "not read here"


def test_a_file_that_is_not_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a later MLflow: stock answers, as before."""

    def broken(name: str) -> dict[str, object]:
        raise ImportError(name)

    monkeypatch.setattr(stock_parser, "_module", broken)
    assert str(refusal(RUNS, "name = x")) == "not read here"


def test_nothing_else_of_mlflow_is_imported() -> None:
    script = f"""
import sys
from headrace.api.search.stock_parser import Worded
from headrace.errors import Declined, InvalidParameter
for parser in ({RUNS!r}, "parse_filter_string", "SearchTraceUtils.parse_search_filter_for_search_traces"):
    try:
        with Worded(parser, "x"):
            raise Declined
    except InvalidParameter:
        pass
print([name for name in sys.modules if name.split(".")[0] in ("mlflow", "sqlalchemy", "pandas", "flask")])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
