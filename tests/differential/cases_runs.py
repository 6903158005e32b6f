"""runs/create, runs/get and runs/update."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.differential.harness import AJAX_API, RUN, Request
from tests.differential.requests_of import (
    ABSENT,
    DELETE_RUN,
    cases,
    create,
    get_run,
    log_batch,
    metric,
    pairs,
    post,
    set_tag,
    update,
)

UNKNOWN = "0123456789abcdef0123456789abcdef"
NAME_TAG = "mlflow.runName"


def name_tag(name: str) -> list[dict[str, str]]:
    return [{"key": NAME_TAG, "value": name}]


CREATE = cases(
    "native",
    {
        "nothing but the experiment": create(start_time=ABSENT),
        "a name": create(run_name="a name"),
        "an empty name": create(run_name=""),
        "an odd name": create(run_name="größe/🦀 \n\t\"'\\"),
        "a name in the tag only": create(tags=name_tag("by tag")),
        "the same name in both": create(run_name="one", tags=name_tag("one")),
        "no tags": create(tags=[]),
        "tags": create(tags=pairs(a="1", b="2", **{"mlflow.user": "me", "mlflow.source.name": "x.py"})),
        "an empty tag value": create(tags=pairs(a="")),
        "a user": create(user_id="me"),
        "an empty user": create(user_id=""),
        "start_time as a string": create(start_time="1795509304555"),
        "start_time as an integer": create(start_time=1795509304555),
        "start_time zero": create(start_time=0),
        "start_time negative": create(start_time=-1),
        "start_time the largest": create(start_time=2**63 - 1),
        "the other prefix": replace(create(run_name="a"), prefix=AJAX_API),
        "created and read": [
            create(run_name="one", tags=pairs(a="1")),
            get_run("{run2}"),
            replace(get_run("{run2}"), prefix=AJAX_API),
        ],
        "two of the same name": [create(run_name="same"), create(run_name="same")],
        "an experiment of its own": [
            post("experiments/create", name="its own"),
            create(experiment_id="1"),
        ],
        "a client's request": create(
            user_id="me",
            start_time=1795509304555,
            tags=[{"key": "mlflow.user", "value": "me"}, {"key": "mlflow.source.type", "value": "LOCAL"}],
            run_name="nosy-cat-1x",
        ),
    },
)

CREATE_BAD = cases(
    "any",
    {
        "an empty name tag": create(tags=name_tag("")),
        "an empty name tag and a name": create(run_name="a", tags=name_tag("")),
        "two names": create(run_name="one", tags=name_tag("two")),
        "no experiment": create(experiment_id=ABSENT),
        "an empty experiment": create(experiment_id=""),
        "experiment unknown": create(experiment_id="999999"),
        "experiment not a number": create(experiment_id="abc"),
        "experiment as an integer": create(experiment_id=0),
        "experiment negative": create(experiment_id="-1"),
        "experiment padded": create(experiment_id=" 0 "),
        "experiment 00": create(experiment_id="00"),
        "experiment +0": create(experiment_id="+0"),
        "experiment 0_0": create(experiment_id="0_0"),
        "experiment with other digits": create(experiment_id="\u0660"),
        "experiment beyond 32 bits": create(experiment_id="4294967296"),
        "experiment beyond 64 bits": create(experiment_id=str(2**64)),
        "experiment null": create(experiment_id=None),
        "experiment a float": create(experiment_id="0.0"),
        "experiment deleted": [
            post("experiments/create", name="deleted"),
            post("experiments/delete", experiment_id="2"),
            create(experiment_id="2"),
        ],
        "start_time a float": create(start_time=5.0),
        "start_time a fraction": create(start_time=5.5),
        "start_time a word": create(start_time="soon"),
        "start_time a float string": create(start_time="5.0"),
        "start_time padded": create(start_time=" 5 "),
        "start_time true": create(start_time=True),
        "start_time null": create(start_time=None),
        "start_time beyond 64 bits": create(start_time=2**63),
        "start_time beyond 64 bits as a string": create(start_time=str(2**63)),
        "start_time an exponent": create(start_time="1e3"),
        "name a number": create(run_name=1),
        "name null": create(run_name=None),
        "name a list": create(run_name=["a"]),
        "name of 250": create(run_name="n" * 250),
        "name of 251": create(run_name="n" * 251),
        "name of 10,000": create(run_name="n" * 10_000),
        "user a number": create(user_id=1),
        "user of 257": create(user_id="u" * 257),
        "tags an object": create(tags={"a": "1"}),
        "tags null": create(tags=None),
        "tags a list of words": create(tags=["a"]),
        "a tag null": create(tags=[None]),
        "a tag without a value": create(tags=[{"key": "a"}]),
        "a tag without a key": create(tags=[{"value": "a"}]),
        "a tag of null": create(tags=[{"key": "a", "value": None}]),
        "a tag of a number": create(tags=[{"key": "a", "value": 1}]),
        "a tag twice": create(tags=[{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]),
        "a tag twice the same": create(tags=[{"key": "a", "value": "1"}] * 2),
        "the name tag twice": create(tags=name_tag("one") + name_tag("two")),
        "tag value of 8,000": create(tags=pairs(a="v" * 8000)),
        "tag value of 8,001": create(tags=pairs(a="v" * 8001)),
        "tag key of 250": create(tags=pairs(**{"k" * 250: "v"})),
        "tag key of 251": create(tags=pairs(**{"k" * 251: "v"})),
        "tag key with odd characters": create(tags=pairs(**{"a?b": "v"})),
        "tag key a path": create(tags=pairs(**{"../a": "v"})),
        "an unknown field": create(colour="blue"),
        "an unknown field in a tag": create(tags=[{"key": "a", "value": "b", "colour": "blue"}]),
        "camel case": post("runs/create", experimentId="0", startTime="7", runName="camel", userId="me"),
        "both spellings": create(experimentId="0"),
        "wrong method": replace(create(), method="GET"),
    },
)

GET = cases(
    "native",
    {
        "an active run": get_run(),
        "by ajax-api": replace(get_run(), prefix=AJAX_API),
        "by run_uuid as well": replace(get_run(), query=f"?run_uuid={RUN}&run_id={RUN}"),
        "a full run": [
            log_batch(
                metrics=[
                    metric("a", 1.5),
                    metric("b", "NaN"),
                    metric("c", "Infinity"),
                    metric("d", "-Infinity"),
                ],
                params=pairs(p1="1", p2="ü"),
                tags=pairs(t1="1", **{"mlflow.note.content": "# a\nnote"}),
            ),
            get_run(),
        ],
        "exact numbers": [
            log_batch(
                metrics=[
                    metric(f"k{number}", value, timestamp=1795509304555, step=number)
                    for number, value in enumerate(
                        [
                            *[0.1, 1e-300, 1e300, 5e-324, 1.7976931348623157e308, 1 / 3, 1e16, 1e22, 1e15],
                            *[-0.0, 0.0, -1.0, 1e21, 1e-5, 1e-7, 0.0001, 100000.0, 2**53 + 1.0, 3.14159e5],
                        ]
                    )
                ]
            ),
            get_run(),
        ],
        "a finished run": [update(status="FINISHED", end_time=99), get_run()],
        "a deleted run": [DELETE_RUN, get_run()],
    },
)

GET_BAD = cases(
    "any",
    {
        "integers of 64 bits": [
            log_batch(metrics=[metric(timestamp=str(2**63 - 1), step=str(-(2**63)))]),
            get_run(),
        ],
        "the id in a JSON body": Request("runs/get", {"run_id": RUN}, method="GET"),
        "the old field in a JSON body": Request("runs/get", {"run_uuid": RUN}, method="GET"),
        "by run_uuid": replace(get_run(), query=f"?run_uuid={RUN}"),
        "two different ids": replace(get_run(), query=f"?run_uuid={UNKNOWN}&run_id={RUN}"),
        "twice the parameter": replace(get_run(), query=f"?run_id={RUN}&run_id={UNKNOWN}"),
        "another parameter": replace(get_run(), query=f"?run_id={RUN}&colour=blue"),
        "camel case": replace(get_run(), query=f"?runId={RUN}"),
        "an encoded parameter": replace(get_run(), query=f"?run%5Fid={RUN}"),
        "an unknown run": get_run(UNKNOWN),
        "an empty id": get_run(""),
        "an odd id": get_run("../../etc/passwd"),
        "an id with a NUL": get_run("a%00b"),
        "an id in upper case": get_run("ABCDEF0123456789ABCDEF0123456789"),
        "an id that is no UTF-8": get_run("%ff"),
        "no id": replace(get_run(), query=""),
        "query and body": Request("runs/get", {"run_id": UNKNOWN}, method="GET", query=f"?run_id={RUN}"),
        "POST": Request("runs/get", {"run_id": RUN}),
        "POST with a query": Request("runs/get", {}, query=f"?run_id={RUN}"),
        "HEAD": replace(get_run(), method="HEAD"),
        "OPTIONS": replace(get_run(), method="OPTIONS"),
        "PUT": replace(get_run(), method="PUT"),
        "a slash at the end": Request("runs/get/", method="GET", query=f"?run_id={RUN}", headers={}),
        "a preview prefix": replace(get_run(), prefix="/api/2.0/preview/mlflow/"),
        "another version": replace(get_run(), prefix="/api/3.0/mlflow/"),
        "two slashes": replace(get_run(), prefix="//api/2.0/mlflow/"),
        "an encoded slash": replace(get_run(), endpoint="runs%2Fget"),
        "with a dataset": [
            post(
                "runs/log-inputs",
                run_id=RUN,
                datasets=[
                    {
                        "tags": [{"key": "mlflow.data.context", "value": "training"}],
                        "dataset": {
                            "name": "d",
                            "digest": "1",
                            "source_type": "local",
                            "source": "s",
                            "schema": "{}",
                            "profile": "{}",
                        },
                    }
                ],
            ),
            get_run(),
        ],
    },
)

UPDATE = cases(
    "native",
    {
        **{
            f"status {status}": [update(status=status), get_run()]
            for status in ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
        },
        "status and end": update(status="FINISHED", end_time=1795509304555),
        "end as a string": update(status="FINISHED", end_time="1795509304555"),
        "end alone": update(end_time=77),
        "end zero": update(end_time=0),
        "end again": [update(end_time=77), update(end_time=78)],
        "nothing": update(),
        "a name": [update(run_name="another"), get_run()],
        "an empty name": [update(run_name=""), get_run()],
        "all": [update(run_name="another", status="KILLED", end_time=3), get_run()],
        "an odd name": update(run_name="größe/🦀 \n\"'\\"),
        "a name after its tag is gone": [
            post("runs/delete-tag", run_id=RUN, key=NAME_TAG),
            update(run_name="another"),
        ],
        "finished, then running": [update(status="FINISHED", end_time=5), update(status="RUNNING")],
        "the other prefix": replace(update(status="FINISHED"), prefix=AJAX_API),
        "name by the tag": [set_tag("by tag", key=NAME_TAG), get_run()],
        "a client's request": update(run_uuid=RUN, status="FINISHED", end_time=1795509304555),
    },
)

UPDATE_BAD = cases(
    "any",
    {
        "status a number": update(status=3),
        "status a number string": update(status="3"),
        "status unknown number": update(status=9),
        "status unknown": update(status="SLEEPING"),
        "status in small letters": update(status="finished"),
        "status empty": update(status=""),
        "status null": update(status=None),
        "status a float": update(status=3.0),
        "end negative": update(end_time=-5),
        "end a word": update(end_time="soon"),
        "end null": update(end_time=None),
        "end beyond 64 bits": update(end_time=2**63),
        "name null": update(run_name=None),
        "name of 251": update(run_name="n" * 251),
        "name of 10,000": update(run_name="n" * 10_000),
        "name a number": update(run_name=5),
        "a deleted run": [DELETE_RUN, update(status="FINISHED"), get_run()],
        "an unknown run": update(run_id=UNKNOWN, status="FINISHED"),
        "no run": update(run_id=ABSENT, status="FINISHED"),
        "an empty run": update(run_id="", status="FINISHED"),
        "by run_uuid": update(run_id=ABSENT, run_uuid=RUN, status="FINISHED"),
        "two different runs": update(run_uuid=UNKNOWN, status="FINISHED"),
        "camel case": post("runs/update", runId=RUN, endTime="5", runName="camel"),
        "both spellings": update(endTime=5, end_time=6),
        "an unknown field": update(status="FINISHED", colour="blue"),
        "GET": replace(update(status="FINISHED"), method="GET"),
        "PATCH": replace(update(status="FINISHED"), method="PATCH"),
        "double-encoded": Request("runs/update", json.dumps(json.dumps({"run_id": RUN, "status": "FAILED"}))),
    },
)
