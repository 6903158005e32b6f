"""Traces on one database, by stock's own store and by Headrace's handlers: the same answers, page by page."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.entities.trace_info_v2 import TraceInfoV2
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.proto_json_utils import message_to_json

from headrace.api.endpoint import Call
from headrace.db.database import Database as Store
from headrace.db.postgres import PostgresDatabase
from headrace.db.query import Dialect
from headrace.db.sqlite import SqliteDatabase
from headrace.errors import ApiError, Declined, InvalidParameter
from headrace.resources.traces import messages, metric_endpoints, read_endpoints
from headrace.settings import Settings
from tests.differential import search_data
from tests.differential import trace_data as data
from tests.support.databases import BACKENDS, Databases
from tests.support.generated import cases
from tests.support.processes import PATIENCE_SECONDS


@dataclass
class Stores:
    """Stock's store and Headrace's on one database with the traces of trace_data."""

    stock: Any
    call: Call
    experiments: list[str]
    traces: list[str]
    run: Callable[[Coroutine[Any, Any, Any]], Any]

    def ask(self, handler: Any, message: Any) -> Any:
        """The answer of a handler, as JSON."""
        return json.loads(msgspec.json.encode(self.run(handler(self.call, message))))


@pytest.fixture(scope="module", params=BACKENDS)
def stores(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stores]:
    database = databases.migrated(request.param)
    stock = search_data.open_stock(database, str(tmp_path_factory.mktemp("artifacts")))
    headrace: Store
    if request.param == "postgresql":
        headrace = PostgresDatabase(database.url, queue_limit=10)
    else:
        headrace = SqliteDatabase(database.name, queue_limit=10)
    with asyncio.Runner() as runner:
        experiments, traces = data.fill(stock)
        # a tag that is too long to be shown, and of another trace one without a value
        database.execute(
            "UPDATE trace_tags SET value = NULL WHERE key = 'long' AND request_id ="
            " (SELECT max(request_id) FROM trace_tags WHERE key = 'long')"
        )
        runner.run(headrace.start())
        call = Call(headrace, Settings())
        yield Stores(stock, call, experiments, traces, runner.run)
        runner.run(headrace.close())
    stock.engine.dispose()


def as_json(message: Any) -> Any:
    return json.loads(message_to_json(message))


def in_order(info: Any) -> Any:
    """Assessments come in the order of the database, tags and metadata of older clients, too."""
    info.get("assessments", []).sort(key=lambda one: one["assessment_id"])
    for name in ("tags", "request_metadata"):
        if isinstance(info.get(name), list):
            info[name].sort(key=lambda one: one["key"])
    return info


def same(ours: Any, theirs: Any) -> None:
    """As text, in which 1 is not 1.0."""
    assert json.dumps(in_order(ours), sort_keys=True) == json.dumps(in_order(theirs), sort_keys=True)


def location(*experiments: str) -> list[messages.TraceLocation]:
    return [
        messages.TraceLocation("MLFLOW_EXPERIMENT", messages.MlflowExperimentLocation(each)) for each in experiments
    ]


def compare(
    stores: Stores, text: str, order_by: Sequence[str], page_size: int = 500, experiments: Sequence[str] = ()
) -> int:
    """Search both, page by page; the number of traces found."""
    experiments = experiments or stores.experiments
    ours = theirs = None
    found = 0
    while True:
        expected, theirs = stores.stock.search_traces(list(experiments), text, page_size, list(order_by), theirs)
        asked = messages.SearchTraces(location(*experiments), text, page_size, list(order_by), ours or "")
        answer = stores.ask(read_endpoints.search_traces, asked)
        page = answer.get("traces", [])
        assert [trace["trace_id"] for trace in page] == [trace.trace_id for trace in expected]
        for one, other in zip(page, expected, strict=True):
            same(one, as_json(other.to_proto()))
        found += len(page)
        ours = answer.get("next_page_token")
        assert (ours is None) == (theirs is None)
        if ours is None:
            return found


def test_all(stores: Stores) -> None:
    assert compare(stores, "", []) == len(stores.traces)
    assert compare(stores, "", [], 7) == len(stores.traces)
    assert 0 < compare(stores, "", [], experiments=["0"]) < len(stores.traces)


def test_older_clients(stores: Stores) -> None:
    asked = messages.SearchTracesV2(stores.experiments, max_results=500)
    answer = stores.ask(read_endpoints.search_traces_v2, asked)
    expected, _ = stores.stock.search_traces(stores.experiments, max_results=500)
    for one, other in zip(answer["traces"], expected, strict=True):
        same(one, as_json(TraceInfoV2.from_v3(other).to_proto()))
    trace_id = stores.traces[0]
    found = stores.ask(read_endpoints.get_trace_info_v2, messages.GetTraceInfoV2(trace_id))
    same(found["trace_info"], as_json(TraceInfoV2.from_v3(stores.stock.get_trace_info(trace_id)).to_proto()))


def test_each(stores: Stores) -> None:
    whole = 0
    for trace_id in stores.traces:
        found = stores.ask(read_endpoints.get_trace_info, messages.GetTraceInfo(trace_id))
        same(found["trace"]["trace_info"], as_json(stores.stock.get_trace_info(trace_id).to_proto()))
        try:
            expected = stores.stock.get_trace(trace_id, allow_partial=True)
        except Exception as error:
            with pytest.raises(ApiError, match=str(error)):
                stores.ask(read_endpoints.get_trace, messages.GetTrace(trace_id, allow_partial=True))
            continue
        found = stores.ask(read_endpoints.get_trace, messages.GetTrace(trace_id, allow_partial=True))
        theirs = as_json(expected.to_proto())
        same(found["trace"].pop("trace_info"), theirs.pop("trace_info"))
        same(found["trace"], theirs)
        whole += 1
    assert whole > 40


def test_batches(stores: Stores) -> None:
    ids = [trace_id for trace_id in stores.traces if "odd-0" not in trace_id and "odd-3" not in trace_id]
    here = [each for each in ids if _location(stores, each) == "TRACKING_STORE"]
    asked = [here[5], here[0], "tr-none", here[0], *here[10:40], here[5], *here[-2:]]
    for experiments in (None, ["0"], []):
        message = messages.BatchGet(asked, experiments)
        found = stores.ask(read_endpoints.batch_get_traces, message).get("traces", [])
        expected = stores.stock.batch_get_traces(asked, None, experiments)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            theirs = as_json(other.to_proto())
            same(one.pop("trace_info"), theirs.pop("trace_info"))
            same(one, theirs)
        infos = stores.ask(read_endpoints.batch_get_trace_infos, message).get("trace_infos", [])
        theirs = stores.stock.batch_get_trace_infos(asked, None, experiments)
        assert [one["trace_id"] for one in infos] == [one.trace_id for one in theirs]


def _location(stores: Stores, trace_id: str) -> str | None:
    location: str | None = stores.stock.get_trace_info(trace_id).tags.get("mlflow.trace.spansLocation")
    return location


def quoted(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"


def test_of(names: Sequence[str], *tests: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(st.sampled_from(names), st.one_of(*tests)).map(" ".join)


test_of.__test__ = False  # type: ignore[attr-defined]

TEXTS = st.sampled_from([*(text for text in search_data.TEXTS if '"' not in text), *data.NAMES, "s1", "5"]).map(quoted)
LIKES = st.sampled_from(["%", "a%", "%A%", "_", "a\\_b", "%日%", "", "%needle%", "%s_", "%text%"]).map(quoted)
PATTERNS = st.sampled_from(["a", "^a", "A$", "^[a-z]+$", "日|s1", "a.*r", "", "x{2}"]).map(quoted)
EQUAL = st.tuples(st.sampled_from(["=", "!="]), TEXTS).map(" ".join)
LIKE = st.tuples(st.sampled_from(["LIKE", "ILIKE"]), LIKES).map(" ".join)
RLIKE = st.tuples(st.just("RLIKE"), PATTERNS).map(" ".join)
IN = st.tuples(st.sampled_from(["IN", "NOT IN"]), st.lists(TEXTS, min_size=1, max_size=3)).map(
    lambda pair: f"{pair[0]} ({', '.join(pair[1])})"
)
NULL = st.sampled_from(["IS NULL", "IS NOT NULL"])
NUMBER_SIGNS = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
TIMES = st.sampled_from([str(data.START_MS + offset) for offset in (-20_000, 0, 3, 7, 1_500)])
DURATIONS = st.sampled_from(["0", "5", "1500", "1499.5", "-1", "61000"])
RANGES = st.tuples(st.sampled_from(["<", "<=", ">", ">="]), st.sampled_from(["0", "0.5", "5", "-1", "4.9"])).map(
    " ".join
)
STATUSES = st.sampled_from(["= 'OK'", "!= 'ERROR'", "IN ('OK', 'IN_PROGRESS')", "LIKE '%O%'", "NOT IN ('OK')"])
CONDITIONS = st.one_of(
    test_of(["timestamp_ms", "trace.timestamp"], st.tuples(NUMBER_SIGNS, TIMES).map(" ".join)),
    test_of(["execution_time_ms", "execution_time"], st.tuples(NUMBER_SIGNS, DURATIONS).map(" ".join)),
    test_of(["end_time", "trace.end_time_ms"], st.tuples(NUMBER_SIGNS, TIMES).map(" ".join)),
    test_of(["status", "trace.status"], STATUSES),
    test_of(["client_request_id"], EQUAL, LIKE, RLIKE, IN),
    test_of(["request_id"], st.sampled_from(["LIKE 'tr-%a'", "!= 'x'", "IN ('tr-odd-2', 'x')"])),
    test_of(["name", "tags.`mlflow.traceName`"], EQUAL, LIKE, RLIKE, NULL),
    test_of(["tags.t", "tag.`a.b`", "tags.`with space`", "tags.missing"], EQUAL, LIKE, RLIKE, NULL),
    test_of(["metadata.m", "request_metadata.`mlflow.source.name`", "metadata.gone"], EQUAL, LIKE, RLIKE, NULL),
    test_of(["metadata.`mlflow.trace.session`"], EQUAL, LIKE, NULL),
    test_of(
        ["metadata.`mlflow.trace.tokenUsage`"],
        NULL,
        st.sampled_from(["=", "!="]).map(
            lambda sign: f"""{sign} '{{"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}}'"""
        ),
        st.just("= 'x'"),
    ),
    test_of(["metadata.`mlflow.trace.cost`"], NULL, st.just("""!= '{"input_cost": 0.1}'""")),
    test_of(["span.name", "span.type", "span.status"], EQUAL, LIKE, RLIKE, IN, st.just("= 'LLM'"), st.just("= 'OK'")),
    test_of(["span.content", "trace.text"], LIKE),
    test_of(["span.attributes.foo", "span.attributes.`foo.bar`", "span.attributes.foo.bar"], LIKE, RLIKE, EQUAL),
    test_of(["feedback.good", "feedback.score", "feedback.`a b`"], EQUAL, LIKE, RLIKE, NULL, RANGES),
    test_of(["expectation.expected"], EQUAL, LIKE, NULL, RANGES),
    st.sampled_from(["issue.id = 'iss-1'", "prompt = 'p/1'", "prompt = 'p/3'", "feedback.good = 'true'"]),
)
ORDERS = st.lists(
    st.tuples(
        st.sampled_from(
            ["timestamp_ms", "execution_time", "status", "request_id", "experiment_id", "name", "run_id", "tags.t",
             "metadata.m", "tags.`a.b`", "metadata.`mlflow.trace.session`"]
        ),
        st.sampled_from(["", " ASC", " DESC"]),
    ),
    max_size=3,
    unique_by=lambda clause: clause[0],
).map(lambda clauses: ["".join(clause) for clause in clauses])  # fmt: skip


@pytest.mark.generated
@cases(50)
@given(st.lists(CONDITIONS, max_size=3).map(" AND ".join), ORDERS, st.sampled_from([3, 23, 500]))
def test_generated_searches(stores: Stores, text: str, order_by: list[str], page_size: int) -> None:
    compare(stores, text, order_by, page_size)


def test_ordered_by_time_and_what_stands_elsewhere(stores: Stores) -> None:
    for by in ("run_id", "tags.t", "metadata.m DESC"):
        assert compare(stores, "expectation.expected IS NULL", ["timestamp_ms", by], 3) > 5


def test_runs(stores: Stores) -> None:
    run_id = stores.stock.search_runs(["0"], "", 3).to_list()[0].info.run_id
    assert compare(stores, f"run_id = '{run_id}'", []) > 5
    assert compare(stores, f"run_id != '{run_id}'", []) > 5
    assert compare(stores, f"run_id = 'a' AND run_id = '{run_id}'", []) > 5
    assert compare(stores, f"run_id = '{run_id}' AND metadata.`mlflow.sourceRun` = 'a'", []) == 0


FILTERS = st.lists(CONDITIONS, min_size=1, max_size=2).map(" AND ".join)


@pytest.mark.generated
@cases(15)
@given(FILTERS, FILTERS, st.one_of(st.just(""), FILTERS))
def test_correlations(stores: Stores, one: str, other: str, base: str) -> None:
    asked = messages.CorrelateFilters(stores.experiments, one, other, base)
    try:
        ours = stores.ask(metric_endpoints.calculate_filter_correlation, asked)
    except Declined:
        return
    expected = stores.stock.calculate_trace_filter_correlation(stores.experiments, one, other, base or None)
    theirs = as_json(expected.to_proto())
    assert ours.keys() == theirs.keys()
    assert ours == pytest.approx(theirs)


NUMBERS, RANGE = ["SUM", "AVG", "MIN", "MAX", "PERCENTILE"], ["AVG", "MIN", "MAX", "PERCENTILE"]
METRICS: list[tuple[str, str, list[str], list[str]]] = [
    ("TRACES", "trace_count", ["COUNT"], ["trace_name", "trace_status"]),
    ("TRACES", "session_count", ["COUNT"], []),
    ("TRACES", "latency", RANGE, ["trace_name"]),
    ("TRACES", "output_tokens", NUMBERS, ["trace_name"]),
    ("TRACES", "cache_read_input_tokens", NUMBERS, ["trace_name"]),
    ("SPANS", "span_count", ["COUNT"], ["span_name", "span_type", "span_status", "span_model_name"]),
    ("SPANS", "latency", RANGE, ["span_name", "span_status"]),
    ("SPANS", "total_cost", NUMBERS, ["span_model_name", "span_model_provider"]),
    ("ASSESSMENTS", "assessment_count", ["COUNT"], ["assessment_name", "assessment_value"]),
    ("ASSESSMENTS", "assessment_value", RANGE, ["assessment_name"]),
]
METRIC_FILTERS = {
    "TRACES": [
        "trace.status = 'OK'", "trace.tag.t = 'a'", "trace.tag.`a.b` = 'A'", "trace.metadata.m = 'a'",
        "trace.tag.`mlflow.traceName` = 'answer'", "trace.metadata.`mlflow.trace.session` = 's1'", "trace.tag.x = ''",
        "trace.metadata.mlflow.sourceRun = 'x'", "trace.metadata.`mlflow.trace.tokenUsage` = 'x'",
    ],
    "SPANS": ["span.name = 'answer'", "span.type = 'LLM'", "span.status = 'OK'"],
    "ASSESSMENTS": ["assessment.name = 'good'", "assessment.type = 'feedback'"],
}  # fmt: skip


@st.composite
def metric_queries(draw: st.DrawFn) -> messages.QueryTraceMetrics:
    view, metric, aggregations, dimensions = draw(st.sampled_from(METRICS))
    kinds = draw(st.lists(st.sampled_from(aggregations), min_size=1, max_size=3, unique=True))
    percent = draw(st.sampled_from([0.0, 50.0, 99.9, 100.0]))
    filters = sorted({*METRIC_FILTERS["TRACES"], *METRIC_FILTERS[view]})
    bucket = draw(st.sampled_from([None, 1, 60, 86_400]))
    whole = (data.START_MS - 5_000, data.START_MS + 5_000)
    first, last = draw(st.sampled_from([whole, (data.START_MS + 3, data.START_MS + 9), (0, 2**62), (None, None)]))
    if bucket and first is None:
        first, last = whole
    return messages.QueryTraceMetrics(
        [], view, metric,  # type: ignore[arg-type]
        [messages.MetricAggregation(kind, percent if kind == "PERCENTILE" else None)  # type: ignore[arg-type]
         for kind in kinds],
        draw(st.lists(st.sampled_from(dimensions), max_size=2, unique=True)) if dimensions else [],
        draw(st.lists(st.sampled_from(filters), max_size=2)),
        bucket, first, last, draw(st.sampled_from([1000, 1000, 2])),
    )  # fmt: skip


@pytest.mark.generated
@cases(40)
@given(metric_queries())
def test_metrics(stores: Stores, asked: messages.QueryTraceMetrics) -> None:
    asked = msgspec.structs.replace(asked, experiment_ids=stores.experiments)
    ours = stores.ask(metric_endpoints.query_trace_metrics, asked).get("data_points", [])
    expected = stores.stock.query_trace_metrics(
        asked.experiment_ids, MetricViewType(asked.view_type), asked.metric_name,
        [MetricAggregation(AggregationType(each.aggregation_type), each.percentile_value)  # type: ignore[arg-type]
         for each in asked.aggregations],
        asked.dimensions, asked.filters, asked.time_interval_seconds, asked.start_time_ms, asked.end_time_ms,
        asked.max_results,
    )  # fmt: skip
    theirs = [as_json(each.to_proto()) for each in expected]
    assert [(one["metric_name"], one.get("dimensions")) for one in ours] == [
        (one["metric_name"], one.get("dimensions")) for one in theirs
    ]
    for one, other in zip(ours, theirs, strict=True):
        assert one["values"] == pytest.approx(other["values"])


@pytest.mark.parametrize(
    "asked",
    [
        messages.QueryTraceMetrics([], "TRACES", "x", [messages.MetricAggregation("COUNT")]),
        messages.QueryTraceMetrics([], "TRACES", "trace_count", [messages.MetricAggregation("SUM")]),
        messages.QueryTraceMetrics([], "TRACES", "trace_count", [messages.MetricAggregation("COUNT")], ["span_name"]),
        messages.QueryTraceMetrics(
            [], "TRACES", "trace_count", [messages.MetricAggregation("COUNT")], time_interval_seconds=5
        ),
        messages.QueryTraceMetrics(
            [], "TRACES", "trace_count", [messages.MetricAggregation("COUNT")], filters=["span.name = 'x'"]
        ),
        messages.QueryTraceMetrics(
            [], "SPANS", "span_count", [messages.MetricAggregation("COUNT")], filters=["assessment.name = 'x'"]
        ),
    ],
)
def test_metrics_that_are_none(stores: Stores, asked: messages.QueryTraceMetrics) -> None:
    """In stock's words."""
    asked = msgspec.structs.replace(asked, experiment_ids=stores.experiments)
    aggregations = [MetricAggregation(AggregationType(each.aggregation_type)) for each in asked.aggregations]
    with pytest.raises(MlflowException) as stock:
        stores.stock.query_trace_metrics(
            asked.experiment_ids, MetricViewType(asked.view_type), asked.metric_name, aggregations, asked.dimensions,
            asked.filters, asked.time_interval_seconds,
        )  # fmt: skip
    with pytest.raises(InvalidParameter) as ours:
        stores.ask(metric_endpoints.query_trace_metrics, asked)
    assert str(ours.value) == str(stock.value.message)


def test_artifacts(stores: Stores) -> None:
    """What the UI shows of a trace."""
    for trace_id in stores.traces:
        asked = messages.GetTraceArtifact(trace_id)
        try:
            expected = stores.stock.get_trace(trace_id, allow_partial=True).data.to_json_bytes()
        except MlflowException:
            assert stores.run(read_endpoints.get_trace_artifact(stores.call, asked)).path == "traces.json"
            continue
        answer = stores.run(read_endpoints.get_trace_artifact(stores.call, asked))
        ours, theirs = json.loads(answer.body)["spans"], json.loads(expected)["spans"]
        assert ours == theirs


REFUSED = [
    "timestamp > '5'",
    "text LIKE 'x'",
    "span.name like 'x'",
    "feedback.score = 5",
    "feedback.score > '5'",
    "prompt LIKE 'p/1'",
    "prompt = 'p'",
    "status > 'OK'",
    "session = 'x'",
    "span.color = 'x'",
    "span.content = 'x'",
    "name IN ('a')",
    "issue.color = 'x'",
    "tags.a NOT LIKE 'x'",
    "a OR b",
]


@pytest.mark.parametrize("text", REFUSED)
def test_refused(stores: Stores, text: str) -> None:
    with pytest.raises(Exception):  # noqa: B017  (of several kinds)
        stores.stock.search_traces(stores.experiments, text)
    with pytest.raises((Declined, ApiError)):
        find(stores, text)


@pytest.mark.parametrize("pattern", ["(", "(?=a)", "(a)\\1"])
def test_no_patterns(stores: Stores, pattern: str) -> None:
    """PostgreSQL knows more than RE2."""
    if pattern == "(" or stores.call.db.dialect is Dialect.SQLITE:
        with pytest.raises(InvalidParameter):
            find(stores, f"span.name RLIKE '{pattern}'")
    else:
        find(stores, f"span.name RLIKE '{pattern}'")


def test_a_pattern_that_would_hold_a_thread(stores: Stores) -> None:
    """Python's own engine would be at it for ever, in the 600 letters that some of them have there."""
    began = time.monotonic()
    assert find(stores, "metadata.long RLIKE '^x+$'")
    find(stores, "metadata.long RLIKE '^(x+)+y$'")
    assert time.monotonic() - began < PATIENCE_SECONDS


def find(stores: Stores, text: str) -> Any:
    return stores.ask(read_endpoints.search_traces, messages.SearchTraces(location("0"), text))
