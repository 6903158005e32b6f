"""Endpoints that read scorers, and the one that lets them judge new traces.

A scorer whose model is the AI gateway's is left to stock, which knows its endpoints.
"""

from __future__ import annotations

import json
import re
from typing import Any

from headrace.api.endpoint import Call, endpoint
from headrace.auth.objects import Experiment, FilteredInWorkspace, granted
from headrace.auth.principals import Right
from headrace.db.query import Query, Sql, Statement
from headrace.errors import Declined, Forbidden, InvalidParameter, NotFound
from headrace.resources import validation as valid
from headrace.resources.experiments.endpoints import must_be_active
from headrace.resources.scorers import messages

PATH = "3.0/mlflow/scorers/"
EXPERIMENT = Experiment("experiment_id")
_EXPERIMENT_ID = re.compile(r"^[a-zA-Z0-9][\w\-]{0,63}$")  # _validate_experiment_id, which stock asks in lists only

_SELECT = """
SELECT s.experiment_id, s.scorer_name, v.scorer_version, v.serialized_scorer, v.creation_time, s.scorer_id
FROM scorers s JOIN scorer_versions v ON v.scorer_id = s.scorer_id
JOIN experiments e ON e.experiment_id = s.experiment_id
WHERE e.workspace = :workspace AND e.lifecycle_stage = 'active'
"""
_LATEST = "v.scorer_version = (SELECT MAX(o.scorer_version) FROM scorer_versions o WHERE o.scorer_id = s.scorer_id)"
LATEST = Sql(f"{_SELECT} AND {_LATEST} ORDER BY s.experiment_id, s.scorer_name")
LATEST_OF = Sql(
    f"{_SELECT} AND {_LATEST} AND s.experiment_id IN :experiment_ids ORDER BY s.experiment_id, s.scorer_name"
)
VERSIONS = Sql(f"{_SELECT} AND s.experiment_id = :experiment_id AND s.scorer_name = :name ORDER BY v.scorer_version")


@endpoint("GET", f"{PATH}list", Right.READ, Experiment("experiment_id", "experiment_ids"), LATEST)
async def list_scorers(call: Call, message: messages.ListScorers) -> object:
    """SqlAlchemyStore.list_scorers, list_scorers_across_experiments: the latest version of each."""
    if message.experiment_id and message.experiment_ids:
        raise InvalidParameter(
            "Cannot specify both 'experiment_id' and 'experiment_ids'. Use 'experiment_ids' to scope the query to "
            "multiple experiments, or 'experiment_id' to scope it to a single experiment."
        )
    if message.experiment_id:
        number = await must_be_active(call, message.experiment_id)
        statement = LATEST_OF(workspace=call.workspace, experiment_ids=[number])
    elif message.experiment_ids:
        for each in message.experiment_ids:
            if _EXPERIMENT_ID.match(each) is None:
                raise InvalidParameter(f"Invalid experiment ID: '{each}'")
        numbers = valid.experiment_ids(message.experiment_ids)
        statement = LATEST_OF(workspace=call.workspace, experiment_ids=numbers)
    else:
        statement = LATEST(workspace=call.workspace)
    return _scorers(await call.db.rows(statement))


@endpoint("GET", f"{PATH}versions", Right.READ, EXPERIMENT, VERSIONS)
async def list_scorer_versions(call: Call, message: messages.ListScorerVersions) -> object:
    """SqlAlchemyStore.list_scorer_versions."""
    return _scorers(await _versions(call, message))


@endpoint("GET", f"{PATH}get", Right.READ, EXPERIMENT, VERSIONS)
async def get_scorer(call: Call, message: messages.GetScorer) -> object:
    """SqlAlchemyStore.get_scorer. Its text is as it is stored; in lists stock writes the JSON anew."""
    rows = await _versions(call, message)
    found = rows[-1:] if message.version is None else [row for row in rows if row["scorer_version"] == message.version]
    if not found:
        raise NotFound(
            f"Scorer with name '{message.name}' and version {message.version} not found for experiment"
            f" {message.experiment_id}."
        )
    return {"scorer": _scorer(found[0]) | {"serialized_scorer": found[0]["serialized_scorer"]}}


@endpoint("PUT", f"{PATH}online-config", Right.EDIT, EXPERIMENT)
async def set_online_config(call: Call, message: messages.UpsertOnlineScoringConfig) -> object:
    """Stock keeps it; where no job runner would ever look at it, it is refused. Raises Forbidden, Declined."""
    valid.experiment_id(message.experiment_id)
    if message.sample_rate and not call.settings.enable_jobs:
        raise Forbidden(
            "A judge of new traces needs MLflow's jobs, which are turned off here. --enable-jobs turns them on."
        )
    raise Declined("how much a judge judges")


@endpoint("GET", f"{PATH}online-configs", Right.READ, FilteredInWorkspace(), "online_scoring_configs", "experiments")
async def get_online_configs(call: Call, message: messages.GetOnlineScoringConfigs) -> object:
    """SqlAlchemyStore.get_online_scoring_configs."""
    ids = [valid.without_nul(each, "scorer_ids") for each in message.scorer_ids]
    configs = [dict(row) for row in await call.db.rows(_online_configs(call, ids))]
    for config in configs:
        config["experiment_id"] = str(config["experiment_id"])
        if config["filter_string"] is None:
            del config["filter_string"]
    return {"configs": configs}


def _online_configs(call: Call, scorer_ids: list[str]) -> Query:
    sql = Statement(call.db.dialect)
    where = [
        f"e.workspace = {sql.bind(call.workspace)}",
        sql.in_list("c.scorer_id", scorer_ids),
        *granted(sql, "c.experiment_id", call.grantees),
    ]
    return sql.query(f"""
SELECT c.online_scoring_config_id, c.scorer_id, c.sample_rate, c.experiment_id, c.filter_string
FROM online_scoring_configs c JOIN experiments e ON e.experiment_id = c.experiment_id WHERE {" AND ".join(where)}
ORDER BY c.online_scoring_config_id
""")  # noqa: S608  (placeholders)


async def _versions(call: Call, message: messages.ListScorerVersions | messages.GetScorer) -> Any:
    """Raises NotFound, InvalidParameter."""
    number = await must_be_active(call, message.experiment_id)
    name = valid.without_nul(message.name, "name")
    rows = await call.db.rows(VERSIONS(workspace=call.workspace, experiment_id=number, name=name))
    if not rows:
        raise NotFound(f"Scorer with name '{name}' not found for experiment {message.experiment_id}.")
    return rows


def _scorers(rows: Any) -> object:
    return {"scorers": [_scorer(row) for row in rows]} if rows else {}


def _scorer(row: Any) -> dict[str, object]:
    """ScorerVersion.to_proto."""
    if "gateway:/" in row["serialized_scorer"]:
        raise Declined("a scorer whose model is the gateway's")
    try:
        serialized = json.dumps(json.loads(row["serialized_scorer"]))
    except ValueError:
        raise Declined("a scorer that is no JSON") from None
    if row["creation_time"] is None:
        raise Declined("a scorer without a creation time")
    return {**row, "serialized_scorer": serialized}
