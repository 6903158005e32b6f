"""The rows of generated requests are stock's: whatever is sent, in whatever order, alone or in groups."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st

from headrace.errors import Declined, PayloadTooLarge
from headrace.resources.traces import otlp
from headrace.resources.traces.json_text import is_nested, quoted
from headrace.resources.traces.trace_rows import Experiment, artifact_location
from tests.support.generated import cases
from tests.support.traces import Pair, decoded
from tests.unit.traces.spans import (
    MILLION,
    MLFLOW,
    RESOURCES,
    SPAN_IDS,
    START,
    TRACE_IDS,
    body,
    foreign,
    span,
    spans,
)

# to make a failing example smaller takes long with stock
CHECKS = cases(10, phases=[Phase.explicit, Phase.reuse, Phase.generate])


def requests(attributes: st.SearchStrategy[dict[str, Any]], most: int = 5) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda sent, resource: body(*sent, resource=resource),
        # a span twice in one request is a test of its own: stock may never end
        st.lists(
            spans(attributes),
            min_size=1,
            max_size=most,
            unique_by=lambda sent: (sent["trace_id"], sent["span_id"]),
        ),
        RESOURCES,
    )


@pytest.mark.generated
@CHECKS
@given(data=st.lists(requests(MLFLOW), min_size=1, max_size=3))
def test_spans_of_mlflow(pair: Pair, data: list[bytes]) -> None:
    pair.clear()
    for each in data:
        pair.post(each)
    pair.same()


@pytest.mark.generated
@CHECKS
@given(data=requests(st.builds(lambda one, other: {**one, **other}, foreign(), MLFLOW), most=8))
def test_spans_of_others(pair: Pair, data: bytes) -> None:
    pair.clear()
    pair.post(data)
    pair.same()


@pytest.mark.parametrize("finalized", [False, True])
def test_a_trace_in_many_requests(pair: Pair, finalized: bool) -> None:
    """Children before their parents, usage that a parent has summed up, a span sent again; all of it answered by us."""
    from mlflow.entities import TraceInfo, TraceLocation, TraceState

    def sent(number: int, parent: int, start: int, end: int, attributes: dict[str, Any]) -> bytes:
        parent_id = SPAN_IDS[parent] if parent else b""
        return body(
            span(
                {"mlflow.spanInputs": {"question": number}, "mlflow.spanOutputs": [number], **attributes},
                span_id=SPAN_IDS[number],
                parent_id=parent_id,
                start=START + start * MILLION,
                end=START + end * MILLION,
            ),
            resource={"service.name": "shop", "process.pid": 7},
        )

    usage = {"input_tokens": 1000, "output_tokens": 10, "total_tokens": 1010}
    priced = {"mlflow.chat.tokenUsage": usage, "mlflow.llm.model": "gpt-4o", "mlflow.llm.provider": "openai"}
    requests = [
        sent(3, 2, 20, 30, priced),
        sent(4, 2, 30, 40, {**priced, "session.id": "s1", "user.id": "u1"}),
        sent(2, 1, 10, 50, priced),
        sent(5, 1, 5, 70, {}),
        sent(3, 2, 20, 31, priced),
        sent(1, 0, 0, 60, {"mlflow.traceTag.team": "a", "mlflow.traceTag.mlflow.traceName": "answer", "user.id": "u2"}),
    ]
    pair.clear()
    for number, each in enumerate(requests):
        if finalized and number == 3:
            info = TraceInfo(
                trace_id=f"tr-{TRACE_IDS[1].hex()}",
                trace_location=TraceLocation.from_experiment_id("0"),
                request_time=START // MILLION + 3,
                execution_duration=30,
                state=TraceState.OK,
                trace_metadata={"mlflow.trace.cost": '{"input_cost": 0.5}', "own": "x"},
                tags={"own": "y"},
            )
            pair.start(info)
        assert pair.post(each)
        pair.same()
    pair.clear()
    assert pair.post(*requests)  # the same as one group
    pair.same()


MALFORMED = [
    (b"\x0a\x05\x01", otlp.PROTOBUF, None),
    (b"", otlp.PROTOBUF, None),
    (b"{", otlp.JSON, None),
    (b'{"resourceSpans": []}', otlp.JSON, None),
    (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "zz"}]}]}]}', otlp.JSON, None),
    (b"", "text/plain", None),
    (b"", None, None),
    (b"no gzip", otlp.PROTOBUF, "gzip"),
    (gzip.compress(b"12345", mtime=0)[:-3], otlp.PROTOBUF, "gzip"),
    (b"no deflate", otlp.PROTOBUF, "Deflate"),
    (b"", otlp.PROTOBUF, "br"),
    (body(span(trace_id=b"")), otlp.PROTOBUF, None),
    (body(span(span_id=b"")), otlp.PROTOBUF, None),
    (body(span(trace_id=b"\1" * 17)), otlp.PROTOBUF, None),
    (body(span(parent_id=b"\1" * 9)), otlp.PROTOBUF, None),
    (body(span(trace_id=b"\1\2", span_id=b"\0" * 3 + b"\1" * 8, parent_id=b"\7")), otlp.PROTOBUF, None),
]


@pytest.mark.parametrize(("data", "content_type", "encoding"), MALFORMED)
def test_bad_requests(pair: Pair, data: bytes, content_type: str | None, encoding: str | None) -> None:
    pair.clear()
    assert pair.post(data, content_type=content_type, encoding=encoding)
    pair.same()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate"])
def test_what_unpacks_to_too_much(encoding: str) -> None:
    data = b"\0" * 1_000_000
    raw = zlib.compress(data)
    packed = {"gzip": gzip.compress(data), "deflate": raw, "raw deflate": raw[2:-4]}[encoding]
    with pytest.raises(PayloadTooLarge):
        otlp.decompressed(packed, encoding.split()[-1], 999_999)
    assert otlp.decompressed(packed, encoding.split()[-1], 1_000_000) == data


def test_json_and_packed_requests(pair: Pair) -> None:
    sent = {
        "resourceSpans": [
            {
                "scopeSpans": [
                    {
                        "spans": [
                            {
                                "traceId": "0102030405060708090a0b0c0d0e0f10",
                                "spanId": "0102030405060708",
                                "name": "n",
                                "kind": "SPAN_KIND_CLIENT",
                                "startTimeUnixNano": "1700000000000000000",
                                "endTimeUnixNano": 1700000000000000001,
                                "unknown": [1],
                                "attributes": [{"key": "a", "value": {"intValue": "5"}}],
                                "status": {"code": 2, "message": "bad"},
                            }
                        ]
                    }
                ]
            }
        ]
    }
    pair.clear()
    assert pair.post(json.dumps(sent).encode(), content_type="application/json; charset=utf-8")
    members = gzip.compress(body(span())[:9]) + b"\0\0" + gzip.compress(body(span())[9:]) + b"\0"
    assert pair.post(members, encoding="GZIP")
    assert pair.post(zlib.compress(body(span(span_id=SPAN_IDS[2]))), encoding="deflate")
    pair.same()


def test_large_values(pair: Pair) -> None:
    """Larger ones yet: tests/differential/test_large_traces.py."""
    pair.clear()
    assert pair.post(body(span({"mlflow.spanInputs": "é" * 500_000, "own": ["x" * 1_000_000]})))
    pair.same()


def test_quoting_is_pythons() -> None:
    for start in range(0, 0x110000, 0x1000):
        text = "".join(map(chr, range(start, start + 0x1000)))
        assert quoted(text) == json.dumps(text, ensure_ascii=False)


NEARLY_JSON = (
    *(
        '"a"',
        '"a" b',
        '"a\tb"',
        '"\\u00"',
        '"\\ud800"',
        '"\ud800"',
        '"\\x"',
        '"',
        ' "a"\n',
        '"a"b"',
        "\x7f",
        "\ufeff[1]",
    ),
    *("[]", "[1,]", "[01]", "[1.]", "[.5]", "[-]", "[-0]", "[1E5]", "[1e400]", "[1e]", "[NaN]", "[-Infinity]", "[tru]"),
    *(
        '{"a": 1}',
        '{"a": 1,}',
        '{"a":1 "b":2}',
        "{1: 2}",
        "[1\x0b]",
        "[1,\u00a02]",
        f"[1{'0' * 400}]",
        "1",
        "null",
        "true",
    ),
)


def is_nested_in_python(text: str) -> bool:
    try:
        return isinstance(json.loads(text), (str, dict, list))
    except json.JSONDecodeError:
        return False


@pytest.mark.generated
@cases(200)
@given(text=st.sampled_from(NEARLY_JSON) | st.text('"{}[]:,\\u0d89eE+-.1 tn\n', max_size=12))
def test_what_is_nested_is_pythons(text: str) -> None:
    assert is_nested(text) == is_nested_in_python(text)


@pytest.mark.parametrize("text", [f"[{'1' * 4301}]", "1" * 4301, "[" * 200_000 + "]" * 200_000])
def test_what_python_gives_up_is_declined(text: str) -> None:
    with pytest.raises(Declined):
        is_nested(text)


def test_a_span_twice_in_a_request(pair: Pair) -> None:
    """The last one counts, once, also where it is above itself: stock's walk along the tree does not end then."""
    usage = {"mlflow.chat.tokenUsage": {"input_tokens": 3}}
    one, two = SPAN_IDS[1], SPAN_IDS[2]
    twice = decoded(body(span(usage, span_id=one), span(usage, span_id=two, parent_id=one), span(usage, span_id=one)))
    once = decoded(body(span(usage, span_id=one), span(usage, span_id=two, parent_id=one)))
    assert twice == once
    circle = decoded(body(span(usage), span(span_id=two, parent_id=one), span(usage, parent_id=two)))
    assert [len(circle.spans), circle.traces[0].has_usage] == [2, False]


def test_an_experiment_without_a_location_is_stocks() -> None:
    """Its column may be NULL."""
    with pytest.raises(Declined):
        artifact_location(Experiment(1, None), "tr-1")
