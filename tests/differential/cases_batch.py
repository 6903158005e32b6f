"""runs/log-batch: its limits, and entities that meet each other within one batch and across batches."""

from __future__ import annotations

from dataclasses import replace

from tests.differential.harness import AJAX_API, RUN
from tests.differential.requests_of import (
    ABSENT,
    DELETE_RUN,
    cases,
    delete_tag,
    get_run,
    log_batch,
    many,
    metric,
    pairs,
    post,
    update,
)

UNKNOWN = "0123456789abcdef0123456789abcdef"
NAME_TAG = "mlflow.runName"

GOOD = cases(
    "native",
    {
        "nothing": log_batch(),
        "empty lists": log_batch(metrics=[], params=[], tags=[]),
        "one of each": [log_batch(metrics=[metric()], params=pairs(p="1"), tags=pairs(t="1")), get_run()],
        "the same again": [log_batch(metrics=[metric()], params=pairs(p="1"), tags=pairs(t="1"))] * 2,
        "metrics alone": log_batch(metrics=[metric(step=step) for step in range(10)]),
        "params alone": log_batch(params=many(10)),
        "tags alone": log_batch(tags=many(10)),
        "1,000 metrics": log_batch(metrics=[metric(step=step) for step in range(1000)]),
        "100 params": log_batch(params=many(100)),
        "100 tags": log_batch(tags=many(100)),
        "1,000 entities": log_batch(
            metrics=[metric(step=step) for step in range(800)], params=many(100), tags=many(100)
        ),
        "a metric twice": log_batch(metrics=[metric()] * 2),
        "NaN twice": [log_batch(metrics=[metric(value="NaN")] * 2), get_run()],
        "NaN and zero": [log_batch(metrics=[metric(value="NaN"), metric(value=0)]), get_run()],
        "zero and minus zero": [log_batch(metrics=[metric(value=0.0), metric(value=-0.0)]), get_run()],
        "minus zero and zero": [log_batch(metrics=[metric(value=-0.0), metric(value=0.0)]), get_run()],
        "infinities": [
            log_batch(metrics=[metric("a", "Infinity"), metric("b", "-Infinity"), metric("b", -1.0)]),
            get_run(),
        ],
        "infinity and the largest": [
            log_batch(metrics=[metric(value="Infinity"), metric(value=1.7976931348623157e308)]),
            get_run(),
        ],
        "one key, steps mixed": [
            log_batch(metrics=[metric(value=step, step=step) for step in (3, 1, 4, 1, 5, 9, 2, 6)]),
            get_run(),
        ],
        "one step, times mixed": [
            log_batch(metrics=[metric(value=time, timestamp=time) for time in (3, 1, 9, 2)]),
            get_run(),
        ],
        "one step and time, values mixed": [
            log_batch(metrics=[metric(value=value) for value in (3, -1, "NaN", 9, 2)]),
            get_run(),
        ],
        "an older step after": [
            log_batch(metrics=[metric(value=1, step=5)]),
            log_batch(metrics=[metric(value=2, step=4), metric("other")]),
            get_run(),
        ],
        "some new, some known metrics": [
            log_batch(metrics=[metric(step=step) for step in range(0, 20, 2)]),
            log_batch(metrics=[metric(step=step) for step in range(20)]),
            get_run(),
        ],
        "metrics without a step": log_batch(metrics=[metric(step=ABSENT)]),
        "numbers as strings": log_batch(metrics=[metric(step="5", timestamp="1795509304555")]),
        "some new, some known params": [log_batch(params=many(5)), log_batch(params=many(10)), get_run()],
        "an empty param": [log_batch(params=pairs(p="")), log_batch(params=pairs(p="")), get_run()],
        "a tag twice": [log_batch(tags=[*pairs(t="1"), *pairs(t="2")]), get_run()],
        "a tag again": [log_batch(tags=pairs(t="1")), log_batch(tags=pairs(t="2", u="3")), get_run()],
        "the name tag": [log_batch(tags=pairs(a="1", **{NAME_TAG: "named"})), get_run()],
        "the name tag twice": [
            log_batch(tags=[*pairs(**{NAME_TAG: "x"}), *pairs(**{NAME_TAG: "y"})]),
            get_run(),
        ],
        "the name tag empty": [log_batch(tags=pairs(**{NAME_TAG: ""})), get_run()],
        "the name tag after it is gone": [delete_tag(NAME_TAG), log_batch(tags=pairs(**{NAME_TAG: "x"}))],
        "long values": log_batch(params=many(20, "v" * 6000), tags=many(20, "v" * 8000)),
        "long keys": log_batch(
            metrics=[metric("m" * 250)], params=pairs(**{"p" * 250: "1"}), tags=pairs(**{"t" * 250: "1"})
        ),
        "one key for all": log_batch(metrics=[metric("k")], params=pairs(k="1"), tags=pairs(k="1")),
        "capitals": [log_batch(metrics=[metric("a"), metric("A")], params=pairs(a="1", A="2")), get_run()],
        "the other prefix": replace(log_batch(metrics=[metric()]), prefix=AJAX_API),
        "a finished run": [update(status="KILLED"), log_batch(metrics=[metric()], params=pairs(p="1"))],
        "its metrics name the run": log_batch(metrics=[metric(run_id=RUN)]),
    },
)

BAD = cases(
    "any",
    {
        "1,001 metrics": log_batch(metrics=[metric(step=step) for step in range(1001)]),
        "101 params": log_batch(params=many(101)),
        "101 tags": log_batch(tags=many(101)),
        "1,001 entities": log_batch(
            metrics=[metric(step=step) for step in range(901)], params=many(100), tags=pairs(t="1")
        ),
        "1,000 metrics and a param": log_batch(
            metrics=[metric(step=step) for step in range(1000)], params=pairs(p="1")
        ),
        "a body of 1 MB": log_batch(tags=many(100, "ü" * 5000), params=many(100, "ü" * 5000)),
        "param twice, same": log_batch(params=[*pairs(p="1"), *pairs(p="1")]),
        "param twice, other": log_batch(params=[*pairs(p="1"), *pairs(p="2")]),
        "param with another value": [
            log_batch(params=pairs(p="1", q="2", r="3")),
            log_batch(params=pairs(p="x", q="2", r="y", s="4"), metrics=[metric()], tags=pairs(t="1")),
            get_run(),
        ],
        "param's old value a quote": [log_batch(params=pairs(p="it's")), log_batch(params=pairs(p='"'))],
        "param empty, then a value": [log_batch(params=pairs(p="")), log_batch(params=pairs(p="1"))],
        "param without a value": [log_batch(params=[{"key": "p"}]), get_run()],
        "param of null": [log_batch(params=[{"key": "p", "value": None}]), get_run()],
        "param of a number": log_batch(params=[{"key": "p", "value": 1}]),
        "param without a key": log_batch(params=[{"value": "1"}]),
        "param key null": log_batch(params=[{"key": None, "value": "1"}]),
        "param key empty": log_batch(params=pairs(**{"": "1"})),
        "param key of 251": log_batch(params=pairs(**{"k" * 251: "1"})),
        "param key odd": log_batch(params=pairs(**{"a?": "1"})),
        "param key upwards": log_batch(params=pairs(**{"../a": "1"}), metrics=[metric()]),
        "param value of 6,001": log_batch(params=pairs(p="v" * 6001)),
        "tag without a value": [log_batch(tags=[{"key": "t"}]), get_run()],
        "tag of null": [log_batch(tags=[{"key": "t", "value": None}]), get_run()],
        "tag of a number": log_batch(tags=[{"key": "t", "value": 1}]),
        "tag without a key": log_batch(tags=[{"value": "1"}]),
        "tag key empty": log_batch(tags=pairs(**{"": "1"})),
        "tag key of 251": log_batch(tags=pairs(**{"k" * 251: "1"}), metrics=[metric()]),
        "tag key odd": log_batch(tags=pairs(**{"a?": "1"}), params=pairs(p="1")),
        "tag value of 8,001": log_batch(tags=pairs(t="v" * 8001), metrics=[metric()]),
        "name tag of 251": log_batch(tags=pairs(**{NAME_TAG: "n" * 251}), metrics=[metric()]),
        "metric without a key": log_batch(metrics=[metric(ABSENT)]),
        "metric without a value": log_batch(metrics=[metric(value=ABSENT)]),
        "metric without a timestamp": log_batch(metrics=[metric(timestamp=ABSENT)]),
        "metric key empty": log_batch(metrics=[metric("")]),
        "metric key null": log_batch(metrics=[metric(None)]),
        "metric key of 251": log_batch(metrics=[metric(), metric("k" * 251)]),
        "metric key odd": log_batch(metrics=[metric(), metric("a?")], params=pairs(p="1"), tags=pairs(t="1")),
        "metric key upwards": log_batch(metrics=[metric("a/../../b")]),
        "metric value a word": log_batch(metrics=[metric(value="much")]),
        "metric value null": log_batch(metrics=[metric(value=None)]),
        "metric value true": log_batch(metrics=[metric(value=True)]),
        "metric value a number in a string": log_batch(metrics=[metric(value="1.5")]),
        "metric timestamp negative": log_batch(metrics=[metric(timestamp=-1)]),
        "metric timestamp a float": log_batch(metrics=[metric(timestamp=1.5)]),
        "metric step null": log_batch(metrics=[metric(step=None)]),
        "metric step beyond 64 bits": log_batch(metrics=[metric(step=2**63)]),
        "a bad metric last": log_batch(metrics=[*[metric(step=step) for step in range(9)], metric("a?")]),
        "metrics an object": log_batch(metrics={"m": 1}),
        "metrics a word": log_batch(metrics="m"),
        "metrics null": log_batch(metrics=None),
        "metrics of words": log_batch(metrics=["m"]),
        "metrics of null": log_batch(metrics=[None]),
        "metrics of lists": log_batch(metrics=[[1]]),
        "params an object": log_batch(params={"p": "1"}),
        "params of null": log_batch(params=[None]),
        "tags an object": log_batch(tags={"t": "1"}),
        "tags of null": log_batch(tags=[None]),
        "no run": log_batch(run_id=ABSENT, metrics=[metric()]),
        "run empty": log_batch(run_id="", metrics=[metric()]),
        "run null": log_batch(run_id=None, metrics=[metric()]),
        "run a number": log_batch(run_id=1, metrics=[metric()]),
        "run unknown": log_batch(run_id=UNKNOWN, metrics=[metric()]),
        "run unknown, nothing to log": log_batch(run_id=UNKNOWN),
        "run odd": log_batch(run_id="../x", metrics=[metric()]),
        "run of 300": log_batch(run_id="a" * 300),
        "by run_uuid": log_batch(run_id=ABSENT, run_uuid=RUN, metrics=[metric()]),
        "camel case": post("runs/log-batch", runId=RUN, metrics=[metric()]),
        "an unknown field": log_batch(metrics=[metric()], colour="blue"),
        "an unknown field in a metric": log_batch(metrics=[metric(colour="blue")]),
        "another run's name in a metric": log_batch(metrics=[metric(run_id=UNKNOWN)]),
        "an empty model": log_batch(metrics=[metric(model_id="")]),
        "a dataset without a model": log_batch(metrics=[metric(dataset_name="d", dataset_digest="1")]),
        "a deleted run": [DELETE_RUN, log_batch(metrics=[metric()], tags=pairs(t="1")), get_run()],
        "a deleted run, nothing to log": [DELETE_RUN, log_batch()],
        "GET": replace(log_batch(metrics=[metric()]), method="GET"),
    },
)
