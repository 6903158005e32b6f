"""GraphQL: the queries that MLflow's UI sends for an experiment and for runs. Every other one is stock's.

A query is understood when it is one operation with one root field (ROOTS), and selects fields of TYPES, without
aliases, arguments, fragments or directives; Apollo, the UI's client, adds `__typename` to each selection. Values are
those of protobuf messages (mlflow/server/graphql): a text that is not there is empty, a number 0.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import msgspec

from headrace.api.endpoint import Call, endpoint
from headrace.api.message import Message, Reader
from headrace.api.search.ast import RunSearch
from headrace.auth.objects import GRANTED_EXPERIMENT, Filtered, GraphQLQuery
from headrace.auth.principals import Right
from headrace.entities import Experiment, ModelVersion, Run
from headrace.errors import Declined, Forbidden, InvalidParameter, Malformed, NotFound
from headrace.resources import validation as valid
from headrace.resources.experiments import sql as experiment_sql
from headrace.resources.experiments.endpoints import read_experiment, unknown_experiment
from headrace.resources.model_versions import reads as model_versions
from headrace.resources.runs import reads
from headrace.resources.runs import search as run_search
from headrace.resources.runs.endpoints import unknown_run

# field -> the fields that are selected of it; None: it is a value
Selection = dict[str, "Selection | None"]
# a value of an entity -> the value in JSON
Leaf = Callable[[Any], object]

_QUERY = re.compile(
    r'query (\w+) ?\(\$(\w+): ?(\w+)!\)(?: @component\(name: ?"[\w.]*"\))? \{ (\w+)\(input: ?\$\2\) (\{[\w{} ]*\}) \}'
)
_MAX_DEPTH = 8
_LONGEST = 20_000  # characters; stock parses each in 10 us, in which it does nothing else
_SEARCHED_RUNS = 1_000  # the default of SearchRuns.max_results


def _text(value: str | None) -> str:
    return value or ""


def _long(value: int | None) -> str:
    """LongString: a number that JavaScript would round is text."""
    return str(value or 0)


def _float(value: float | str) -> float | None:
    """MlflowMetricExtension.resolve_value."""
    return None if value == "NaN" else float(value)


def _nothing(value: object) -> None:
    return None


_KEY_VALUE: Mapping[str, str | Leaf] = {"key": _text, "value": _text}
# GraphQL's type -> field -> the type of what it holds, or how its value is rendered.
# A field is the entity's attribute of that name, in camel case.
TYPES: Mapping[str, Mapping[str, str | Leaf]] = {
    "MlflowGetExperimentResponse": {"experiment": "MlflowExperiment", "apiError": "ApiError"},
    "MlflowGetRunResponse": {"run": "MlflowRunExtension", "apiError": "ApiError"},
    "MlflowSearchRunsResponse": {"runs": "MlflowRunExtension", "apiError": "ApiError"},
    "ApiError": {"code": _nothing, "message": _nothing, "helpUrl": _nothing},
    "MlflowExperiment": {
        "experimentId": _text,
        "name": _text,
        "artifactLocation": _text,
        "lifecycleStage": _text,
        "lastUpdateTime": _long,
        "creationTime": _long,
        # with --trace-archival-config stock is asked
        "effectiveTraceArchivalRetention": lambda _: "",
        "tags": "MlflowExperimentTag",
    },
    "MlflowExperimentTag": _KEY_VALUE,
    "MlflowRunExtension": {
        "info": "MlflowRunInfo",
        "experiment": "MlflowExperiment",
        "modelVersions": "MlflowModelVersion",
        "data": "MlflowRunData",
        "inputs": "MlflowRunInputs",
        "outputs": "MlflowRunOutputs",
    },
    "MlflowRunInfo": {
        "runId": _text,
        "runUuid": _text,
        "runName": _text,
        "experimentId": _text,
        "userId": _text,
        "status": _text,
        "startTime": _long,
        "endTime": _long,
        "artifactUri": _text,
        "lifecycleStage": _text,
    },
    "MlflowRunData": {"metrics": "MlflowMetricExtension", "params": "MlflowParam", "tags": "MlflowRunTag"},
    "MlflowMetricExtension": {"key": _text, "value": _float, "timestamp": _long, "step": _long},
    "MlflowParam": _KEY_VALUE,
    "MlflowRunTag": _KEY_VALUE,
    "MlflowRunInputs": {"datasetInputs": "MlflowDatasetInput", "modelInputs": "MlflowModelInput"},
    "MlflowDatasetInput": {"dataset": "MlflowDataset", "tags": "MlflowInputTag"},
    "MlflowDataset": {
        "name": _text,
        "digest": _text,
        "sourceType": _text,
        "source": _text,
        "schema": _text,
        "profile": _text,
    },
    "MlflowInputTag": _KEY_VALUE,
    "MlflowModelInput": {"modelId": _text},
    "MlflowRunOutputs": {"modelOutputs": "MlflowModelOutput"},
    "MlflowModelOutput": {"modelId": _text, "step": _long},
    "MlflowModelVersion": {
        "name": _text,
        "version": _text,
        "creationTimestamp": _long,
        "status": _text,
        "source": _text,
    },
}


M = TypeVar("M", bound=Message)


class RunExtension(msgspec.Struct):
    """A run with what GraphQL adds to it: `MlflowRunExtension`."""

    run: Run
    experiment: Experiment | None = None
    model_versions: list[ModelVersion] = []


class Root(NamedTuple):
    """A field of the query's type. `answer` gives the entity, or the entities, below `field` of the response."""

    input_type: str
    response_type: str
    field: str
    answer: Callable[[Call, Any, Selection], Awaitable[object]]


class Operation(NamedTuple):
    """A query that is understood: its name, that of its variable, its root, what it selects of the response."""

    name: str
    variable: str
    root_field: str
    selection: Selection


class GraphQL(Message, rename="camel", forbid_unknown_fields=False):
    """A query of GraphQL, as Apollo sends it; what is not as that is stock's to refuse, in GraphQL's way."""

    query: Any = None
    variables: Any = None
    operation_name: Any = None


class GetExperimentInput(Message, rename="camel"):
    """`MlflowGetExperimentInput`."""

    experiment_id: str


class GetRunInput(Message, rename="camel"):
    """`MlflowGetRunInput`."""

    run_id: str


class SearchRunsInput(Message, rename="camel"):
    """`MlflowSearchRunsInput`."""

    experiment_ids: list[str]
    filter: str = ""


@endpoint("POST", "/graphql", Right.READ, GraphQLQuery(), *reads.RUN_TABLES, experiment_sql.GET, "model_versions",
          "model_version_tags", replica=True)  # fmt: skip
async def execute(call: Call, message: GraphQL) -> object:
    """handlers._graphql."""
    require(isinstance(message.query, str) and isinstance(message.variables, dict), "not as Apollo sends it")
    operation = understand(message.query)
    if call.settings.trace_archival_config and "effectiveTraceArchivalRetention" in message.query:
        raise Declined("an experiment's effectiveTraceArchivalRetention")
    require(message.operation_name in (None, operation.name), "the name of another operation")
    require(message.variables.keys() == {operation.variable}, "other variables than the query's")
    root = ROOTS[operation.root_field]
    field = operation.selection.get(root.field) or {}
    try:
        answer = await root.answer(call, message.variables[operation.variable], field)
    except (InvalidParameter, NotFound) as error:
        return {"data": {operation.root_field: None}, "errors": [str(error)]}
    response = _select({root.field: answer, "apiError": None}, root.response_type, operation.selection)
    return {"data": {operation.root_field: response}, "errors": None}


@endpoint("GET", "/graphql", Right.READ, Filtered())
async def execute_by_get(call: Call, message: GraphQL) -> object:
    """handlers._graphql: stock looks for a body, and fails where a GET has none."""
    raise Malformed("a query is sent by POST, as JSON")


def require(condition: bool, why: str) -> None:
    """Raise Malformed unless the condition holds."""
    if not condition:
        raise Malformed(why)


@lru_cache(maxsize=64)
def understand(text: str) -> Operation:
    """A query's text, taken apart. Raises Declined for one that is not of the UI's kind."""
    if len(text) > _LONGEST:
        raise InvalidParameter(f"The query has {len(text)} characters; {_LONGEST} are the most.")
    found = _QUERY.fullmatch(" ".join(text.split()))
    require(found is not None, "not a query of the UI's kind")
    assert found is not None
    name, variable, input_type, root_field, selected = found.groups()
    root = ROOTS.get(root_field)
    if root is None or root.input_type != input_type:
        raise Declined("not a query that the UI sends")
    words = iter(re.findall(r"\w+|[{}]", selected)[1:])
    selection = _selection(words, root.response_type)
    require(next(words, None) is None, "more than one selection")
    return Operation(name, variable, root_field, selection)


def _selection(words: Any, type_name: str, depth: int = 1) -> Selection:
    """The fields up to the closing brace. Raises Declined where they are not those of the type."""
    fields = TYPES[type_name]
    selection: Selection = {}
    last = ""
    for word in words:
        kind = fields.get(last)
        if word == "{":
            if not isinstance(kind, str) or selection[last] is not None or depth == _MAX_DEPTH:
                raise Declined(f"{last} has no fields, or has them twice")
            selection[last] = _selection(words, kind, depth + 1)
            continue
        if isinstance(kind, str) and selection[last] is None:
            raise Declined(f"no field of {last} is selected")
        if word == "}":
            require(bool(selection), "nothing is selected")
            return selection
        if word in selection or (word not in fields and word != "__typename"):
            raise Declined(f"{type_name}.{word} is unknown, or there twice")
        selection[word] = None
        last = word
    raise Declined("a brace is missing")


def _select(value: Any, type_name: str, selection: Selection) -> object:
    """The selected fields of an entity, of each of a list, or of a mapping of field to value."""
    if value is None:
        return None
    if isinstance(value, list):
        return [_select(item, type_name, selection) for item in value]
    answer: dict[str, object] = {}
    for field, below in selection.items():
        if field == "__typename":
            answer[field] = type_name
            continue
        found = value[field] if isinstance(value, dict) else _attribute(value, field)
        kind = TYPES[type_name][field]
        answer[field] = _select(found, kind, below or {}) if isinstance(kind, str) else kind(found)
    return answer


def _attribute(entity: object, field: str) -> object:
    name = _snake(field)
    if isinstance(entity, RunExtension) and name not in ("experiment", "model_versions"):
        entity = entity.run
    return getattr(entity, name, None)


@lru_cache(maxsize=256)
def _snake(field: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: "_" + letter[0].lower(), field)


def _input(reader: Reader[M], given: Any) -> M:
    """Raises Declined for what is not of the input's type, which GraphQL has words for."""
    require(isinstance(given, dict), "an input that is no object")
    try:
        return reader.fields(given, exact=True)
    except InvalidParameter as error:
        raise Declined(str(error)) from error


async def _experiment(call: Call, given: Any, selection: Selection) -> Experiment:
    number = valid.experiment_id(_input(_EXPERIMENT_INPUT, given).experiment_id)
    await _check_granted(call, str(number), f"experiment {number}")
    return await _known_experiment(call, number)


async def _check_granted(call: Call, experiment_id: str, asked: str) -> None:
    """What is asked for by its id is not found by a condition on grants. Raises Forbidden, which says no more of what
    was asked for than who asks does: neither whether it is there, nor where."""
    if call.grantees is not None and not await call.db.rows(
        GRANTED_EXPERIMENT(experiment_id=experiment_id, grantees=list(call.grantees))
    ):
        raise Forbidden(f"You may not see {asked}. Who manages the experiment can grant it to you.")


async def _run(call: Call, given: Any, selection: Selection) -> RunExtension:
    run_id = _input(_RUN_INPUT, given).run_id
    run = await reads.get_run(call.db, run_id)
    await _check_granted(call, run.info.experiment_id if run is not None else "", f"run {run_id}")
    if run is None:
        raise unknown_run(run_id)
    if call.settings.enable_workspaces:
        try:
            await _known_experiment(call, int(run.info.experiment_id))
        except NotFound:
            raise unknown_run(run_id) from None
    return (await _extended(call, [run], selection))[0]


async def _runs(call: Call, given: Any, selection: Selection) -> list[RunExtension]:
    asked = _input(_RUNS_INPUT, given)
    experiments = tuple(valid.experiment_ids(asked.experiment_ids))
    if call.settings.enable_workspaces:
        asked_here = experiment_sql.IN_WORKSPACE(workspace=call.workspace, experiment_ids=list(experiments))
        experiments = tuple(row[0] for row in await call.db.rows(asked_here))
        if not experiments:
            return []
    conditions = run_search.parse_filter(asked.filter)
    search = RunSearch(experiments, ("active",), conditions, run_search.parse_order([]), _SEARCHED_RUNS)
    page = await reads.search_runs(call.db, search, call.grantees, encoded=False)
    return await _extended(call, [run for run in page.runs if isinstance(run, Run)], selection)


async def _extended(call: Call, runs: list[Run], selection: Selection) -> list[RunExtension]:
    """The runs with their experiments and model versions, if the query selects them."""
    extended = {run.info.run_id: RunExtension(run, None, []) for run in runs}
    if "experiment" in selection:
        numbers = {run.info.experiment_id for run in runs}
        experiments = {number: await _known_experiment(call, int(number)) for number in sorted(numbers)}
        for each in extended.values():
            each.experiment = experiments[each.run.info.experiment_id]
    if "modelVersions" in selection and extended:
        for version in await model_versions.of_runs(call.db, call.workspace, list(extended), call.grantees):
            extended[version.run_id].model_versions.append(version)
    return list(extended.values())


async def _known_experiment(call: Call, experiment_id: int) -> Experiment:
    statement = experiment_sql.GET(workspace=call.workspace, experiment_id=experiment_id)
    experiment = await read_experiment(call, statement)
    if experiment is None:
        raise unknown_experiment(experiment_id)
    return experiment


_EXPERIMENT_INPUT, _RUN_INPUT, _RUNS_INPUT = Reader(GetExperimentInput), Reader(GetRunInput), Reader(SearchRunsInput)
ROOTS = {
    "mlflowGetExperiment": Root("MlflowGetExperimentInput", "MlflowGetExperimentResponse", "experiment", _experiment),
    "mlflowGetRun": Root("MlflowGetRunInput", "MlflowGetRunResponse", "run", _run),
    "mlflowSearchRuns": Root("MlflowSearchRunsInput", "MlflowSearchRunsResponse", "runs", _runs),
}
