"""runs/log-metric: values, steps, timestamps, repeats, and what latest_metrics holds afterwards."""

from __future__ import annotations

from dataclasses import replace

from tests.differential.harness import AJAX_API, RUN, Request
from tests.differential.requests_of import ABSENT, DELETE_RUN, cases, get_run, log_metric, post, update

UNKNOWN = "0123456789abcdef0123456789abcdef"
NAN, INFINITY = float("nan"), float("inf")


def bare(value: str) -> Request:
    """A value that json.dumps would not write this way."""
    body = f'{{"run_id": "{RUN}", "key": "m", "timestamp": 10, "value": {value}}}'
    return Request("runs/log-metric", body)


VALUES = cases(
    "native",
    {
        "an integer": log_metric(3),
        "zero": [log_metric(0), get_run()],
        "minus zero": [log_metric(-0.0), get_run()],
        "zero, then minus zero": [log_metric(0.0), log_metric(-0.0), get_run()],
        "minus zero, then zero": [log_metric(-0.0), log_metric(0.0), get_run()],
        "an integer of 53 bits and more": log_metric(2**53 + 1),
        "an integer of 80 bits": log_metric(2**80),
        "the largest": [log_metric(1.7976931348623157e308), get_run()],
        "the smallest": [log_metric(5e-324), get_run()],
        "a long fraction": [bare("0.1000000000000000055511151231257827"), get_run()],
        "NaN as a string": [log_metric("NaN"), get_run()],
        "Infinity as a string": [log_metric("Infinity"), get_run()],
        "-Infinity as a string": [log_metric("-Infinity"), get_run()],
        "NaN, then the same": [log_metric("NaN"), log_metric("NaN")],
        "NaN, then zero": [log_metric("NaN"), log_metric(0), get_run()],
        "zero, then NaN": [log_metric(0), log_metric("NaN"), get_run()],
        "infinity, then the largest": [log_metric("Infinity"), log_metric(1.7976931348623157e308), get_run()],
    },
)

ODD_VALUES = cases(
    "any",
    {
        "NaN bare": [log_metric(NAN), get_run()],
        "Infinity bare": [log_metric(INFINITY), get_run()],
        "-Infinity bare": [log_metric(-INFINITY), get_run()],
        "a number in a string": log_metric("1.5"),
        "an integer in a string": log_metric("15"),
        "an exponent in a string": log_metric("1e5"),
        "a padded string": log_metric(" 1.5 "),
        "nan in small letters": log_metric("nan"),
        "inf": log_metric("inf"),
        "infinity in small letters": log_metric("infinity"),
        "+Infinity": log_metric("+Infinity"),
        "-nan": log_metric("-nan"),
        "an underscore": log_metric("1_000"),
        "hexadecimal": log_metric("0x10"),
        "a word": log_metric("much"),
        "an empty string": log_metric(""),
        "true": log_metric(True),
        "false": log_metric(False),
        "null": log_metric(None),
        "a list": log_metric([1.5]),
        "an object": log_metric({"a": 1}),
        "1e400": bare("1e400"),
        "-1e400": bare("-1e400"),
        "1e400 as a string": log_metric("1e400"),
        "1e-400": bare("1e-400"),
        "-0": bare("-0"),
        "1e5": bare("1e5"),
        "1E+5": bare("1E+5"),
        "a point alone": bare("1."),
        "a point first": bare(".5"),
        "a zero first": bare("01"),
        "a plus first": bare("+1"),
        "an integer of 400 digits": bare("9" * 400),
        "an integer of 5,000 digits": bare("9" * 5000),
        "a fraction of 5,000 digits": bare("0." + "1" * 5000),
        "no value": log_metric(ABSENT),
    },
)

STEPS_AND_TIMES = cases(
    "native",
    {
        "no step": log_metric(step=ABSENT),
        "a step": log_metric(step=7),
        "a negative step": log_metric(step=-7),
        "step as a string": log_metric(step="7"),
        "timestamp as a string": log_metric(timestamp="1795509304555"),
        "timestamp zero": log_metric(timestamp=0),
        "the other prefix": replace(log_metric(), prefix=AJAX_API),
        "rising steps": [log_metric(step=1), log_metric(2.5, step=2), log_metric(0.5, step=3), get_run()],
        "falling steps": [log_metric(step=3), log_metric(2.5, step=2), get_run()],
        "repeated": [log_metric(), log_metric(), log_metric()],
        "repeated after another": [log_metric(1, step=1), log_metric(2, step=2), log_metric(1, step=1)],
        "same step, later": [log_metric(1, timestamp=10), log_metric(0, timestamp=11), get_run()],
        "same step, earlier": [log_metric(1, timestamp=10), log_metric(2, timestamp=9), get_run()],
        "same step and time, greater": [log_metric(1), log_metric(2), get_run()],
        "same step and time, smaller": [log_metric(2), log_metric(1), get_run()],
        "same step and time, NaN after": [log_metric(-1), log_metric("NaN"), get_run()],
        "same step and time, NaN before": [log_metric("NaN"), log_metric(-1), get_run()],
        "higher step, earlier": [log_metric(1, step=1, timestamp=10), log_metric(2, step=2, timestamp=5)],
        "two keys": [log_metric(key="a"), log_metric(key="b"), get_run()],
        "keys with capitals": [log_metric(key="a"), log_metric(key="A"), get_run()],
        "a finished run": [update(status="FINISHED", end_time=1), log_metric()],
        "a client's request": log_metric(run_uuid=RUN, step=0, timestamp=1795509304555),
    },
)

KEYS = cases(
    "native",
    {
        f"key {name}": [log_metric(key=key), get_run()]
        for name, key in {
            "with a slash": "a/b",
            "with space, colon, dot, dash": "a b:c.d-e_f",
            "with letters of Europe": "größe",
            "of 250": "k" * 250,
        }.items()
    },
)

BAD = cases(
    "any",
    {
        "the smallest step as a string": log_metric(step=str(-(2**63))),
        "the largest timestamp as a string": [log_metric(timestamp=str(2**63 - 1)), get_run()],
        "the largest step": log_metric(step=2**63 - 1),
        "step a float": log_metric(step=7.0),
        "step a fraction": log_metric(step=7.5),
        "step an exponent": Request(
            "runs/log-metric",
            f'{{"run_id": "{RUN}", "key": "m", "timestamp": 1e1, "step": 1e2, "value": 1}}',
        ),
        "step a word": log_metric(step="many"),
        "step null": log_metric(step=None),
        "step true": log_metric(step=True),
        "step beyond 64 bits": log_metric(step=2**63),
        "step below 64 bits": log_metric(step=-(2**63) - 1),
        "step padded": log_metric(step=" 7"),
        "step with a plus": log_metric(step="+7"),
        "step with a zero first": log_metric(step="007"),
        "step -0": log_metric(step="-0"),
        "step with an underscore": log_metric(step="1_0"),
        "step with other digits": log_metric(step="٣"),
        "timestamp negative": log_metric(timestamp=-1),
        "timestamp a float": log_metric(timestamp=10.0),
        "timestamp a fraction": log_metric(timestamp=10.5),
        "timestamp a word": log_metric(timestamp="now"),
        "timestamp null": log_metric(timestamp=None),
        "timestamp true": log_metric(timestamp=True),
        "timestamp beyond 64 bits": log_metric(timestamp=str(2**63)),
        "no timestamp": log_metric(timestamp=ABSENT),
        "no key": log_metric(key=ABSENT),
        "key empty": log_metric(key=""),
        "key null": log_metric(key=None),
        "key a number": log_metric(key=5),
        "key of 251": log_metric(key="k" * 251),
        "key a path upwards": log_metric(key="../x"),
        "key an absolute path": log_metric(key="/x"),
        "key with two slashes": log_metric(key="a//b"),
        "key with a dot part": log_metric(key="a/./b"),
        "key a dot": log_metric(key="."),
        "key with a slash at the end": log_metric(key="a/"),
        "key a space": log_metric(key=" "),
        "key with a line end": log_metric(key="a\n"),
        "key with a question mark": log_metric(key="a?"),
        "key with an emoji": log_metric(key="a🦀"),
        "key with Arabic digits": log_metric(key="a٣"),
        "key with a combining mark": log_metric(key="u\u0308"),
        "key of Hindi": log_metric(key="हिन्दी"),
        "no run": log_metric(run_id=ABSENT),
        "run empty": log_metric(run_id=""),
        "run null": log_metric(run_id=None),
        "run a number": log_metric(run_id=5),
        "run unknown": log_metric(run_id=UNKNOWN),
        "run odd": log_metric(run_id="../x"),
        "run of 300": log_metric(run_id="a" * 300),
        "by run_uuid": log_metric(run_id=ABSENT, run_uuid=RUN),
        "two different runs": log_metric(run_uuid=UNKNOWN),
        "run_uuid of a number": log_metric(run_uuid=5),
        "camel case": post("runs/log-metric", runId=RUN, key="m", value=1, timestamp=1, modelId=""),
        "both spellings": log_metric(runId=RUN),
        "an unknown field": log_metric(colour="blue"),
        "a field of the registry": log_metric(name="blue"),
        "a deleted run": [DELETE_RUN, log_metric(), get_run()],
        "GET": replace(log_metric(), method="GET"),
        "PUT": replace(log_metric(), method="PUT"),
        "DELETE": replace(log_metric(), method="DELETE"),
        "a model that is empty": log_metric(model_id=""),
        "a model": [
            post("logged-models", experiment_id="0", name="model", source_run_id=RUN),
            log_metric(model_id="m-{run2}", dataset_name="d", dataset_digest="1"),
        ],
        "a dataset without a model": log_metric(dataset_name="d", dataset_digest="1"),
        "a dataset of a number": log_metric(dataset_name=5),
    },
)
