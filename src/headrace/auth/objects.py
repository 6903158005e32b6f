"""What can be granted, and which of it a message names: in the field that the handler reads, where it reads it.

An object is granted as an experiment or as a registered model, or with all that is in its workspace. Runs, traces and
logged models belong to an experiment; each class of them knows by its own SQL to which. A declaration says with a
Target where the message has the ids: `Run("run_id", "run_uuid")`, `Experiment("experiment_ids")`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple
from urllib.parse import unquote

from headrace.auth.principals import Right
from headrace.db.database import Database
from headrace.db.query import Bound, Sql, Statement
from headrace.entities import DEFAULT_WORKSPACE, WORKSPACES_FOLDER
from headrace.errors import Forbidden, InvalidParameter


class ObjectRef(NamedTuple):
    """An object that a message names. `kind`: experiment, model, workspace, or a key of `EXPERIMENT_OF`.

    `right`: what is needed on it, where that is not what the endpoint needs. `path`: the path of artifacts that names
    an experiment, which must be in the request's workspace.
    """

    kind: str
    id: str
    right: Right | None = None
    path: str | None = None

    def alone(self) -> ObjectRef:
        """The object, without what is asked of it."""
        return ObjectRef(self.kind, self.id)


def model_key(workspace: str, name: str) -> str:
    """What a grant knows a registered model by: names are unique in a workspace, and have no slash."""
    return name if workspace == DEFAULT_WORKSPACE else f"{workspace}/{name}"


class Target:
    """What an endpoint works on, and where its message names it.

    `checked`: whether the objects that are named must be granted to a sender whose rights are limited; where not, such
    a sender is refused, unless the class says otherwise.
    `right`: what is needed on them, where that is not what the endpoint needs.
    """

    kind: ClassVar[str] = ""
    checked: ClassVar[bool] = True
    # of a list or a search: the handler shows only what is granted (Call.grantees)
    filtered: ClassVar[bool] = False
    # of what makes an object: needs no grant, and its maker manages it
    creates: ClassVar[str] = ""
    # whether its handler itself shows only what is in Call.workspace
    keeps_to_workspace: ClassVar[bool] = False

    def __init__(self, *fields: str, right: Right | None = None) -> None:
        self.fields, self.right = fields, right

    def objects(self, message: Any) -> list[ObjectRef]:
        """The objects that the message names, at least one. Raises Forbidden where it names none."""
        objects = [ObjectRef(self.kind, text, self.right) for text in self.ids(message)]
        if not objects:
            raise Forbidden("The request does not say on what it works.")
        return objects

    def ids(self, message: Any) -> list[str]:
        """The ids in the fields, which are names of one thing. Raises Forbidden where they differ: who reads the
        message, stock or a handler, would have to read the one that was checked."""
        found: list[str] = []
        for field in self.fields:
            value = message
            for name in field.split("."):
                value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
            if value:
                ids = [_text(each) for each in value] if isinstance(value, list | tuple) else [_text(value)]
                if found and ids != found:
                    raise Forbidden(f"The request names two objects, in {' and in '.join(self.fields)}. Name one.")
                found = ids
        return found


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or "\0" in str(value):
        raise Forbidden("The request names an object in a way that can't be checked.")
    return str(value)


class _Nothing(Target):
    """The whole server: no grant reaches so far."""

    checked = False

    def objects(self, message: Any) -> list[ObjectRef]:
        return []


NOTHING = _Nothing()


class Filtered(_Nothing):
    """A list or a search that shows what is granted, by a condition in its SQL (`granted`)."""

    filtered = True


class FilteredInWorkspace(Filtered):
    """Such a list, whose SQL takes :workspace, too."""

    keeps_to_workspace = True


class NewExperiment(_Nothing):
    creates = "experiment"


class NewModel(_Nothing):
    creates = "model"


class Workspace(_Nothing):
    """All workspaces, or a new one: they are in none themselves."""

    keeps_to_workspace = True


class OneWorkspace(Workspace):
    """A workspace, by its name."""

    kind = "workspace"
    checked = True

    def objects(self, message: Any) -> list[ObjectRef]:
        return [ObjectRef(self.kind, text) for text in self.ids(message)]


class AllInWorkspace(_Nothing):
    """All that is in the workspace: no grant on a single object reaches so far."""

    keeps_to_workspace = True


class GraphQLQuery(FilteredInWorkspace):
    """A query, whose handler finds in it what it works on."""


class Experiment(Target):
    kind = "experiment"


class IfNamed(Target):
    """What the message need not name; where it does, it must be granted."""

    def objects(self, message: Any) -> list[ObjectRef]:
        return [ObjectRef(self.kind, text, self.right) for text in self.ids(message)]


class ExperimentIfNamed(IfNamed):
    """An experiment that a page asks for where none is named."""

    kind = "experiment"


class ExperimentName(Target):
    kind = "experiment-name"


class Run(Target):
    kind = "run"


class SourceRun(IfNamed):
    """The run that something is said to come from: to read it is enough."""

    kind = "run"

    def __init__(self, *fields: str) -> None:
        super().__init__(*fields, right=Right.READ)


class Trace(Target):
    kind = "trace"


class NewTrace(IfNamed):
    """A trace that is begun, or continued: where there is one of that id, it must be granted."""

    kind = "new-trace"


class TraceLocations(IfNamed):
    """The experiments that a search of traces looks in: a list of TraceLocation messages. In none of them it finds
    nothing, which is what MLflow's UI asks for before it knows the experiment."""

    kind = "experiment"
    keeps_to_workspace = True

    def ids(self, message: Any) -> list[str]:
        return [self._experiment(location) for location in message.locations]

    @staticmethod
    def _experiment(location: Any) -> str:
        if location.inference_table is None and location.mlflow_experiment is not None:
            return _text(location.mlflow_experiment.experiment_id)
        raise Forbidden("The request names a location in a way that can't be checked.")


class LoggedModel(Target):
    kind = "logged-model"


class ReviewQueue(Target):
    kind = "review-queue"


class LabelSchema(Target):
    kind = "label-schema"


class Issue(Target):
    kind = "issue"


class EvaluationDataset(Target):
    """An evaluation dataset, which belongs to any number of experiments: the right is needed on each (MLflow's
    validate_can_read_dataset, validate_can_update_dataset)."""

    kind = "dataset"


class RegisteredModel(Target):
    kind = "model"


class Both(Target):
    """Several targets, each of which must be named and granted."""

    def __init__(self, *targets: Target) -> None:
        super().__init__()
        self.targets = targets

    def objects(self, message: Any) -> list[ObjectRef]:
        return [each for target in self.targets for each in target.objects(message)]


class WithModels(Target):
    """A target, and the logged models that are named beside it: in the message's `model_id`, or in that of each of its
    `items`. `right`: what is needed on them, where that is not what the endpoint needs."""

    def __init__(self, target: Target, items: str = "", right: Right | None = None) -> None:
        super().__init__(*target.fields)
        self.target, self._items, self._right = target, items, right

    def objects(self, message: Any) -> list[ObjectRef]:
        items = getattr(message, self._items) if self._items else [message]
        models = dict.fromkeys(_text(item.model_id) for item in items or () if item.model_id)
        named = [ObjectRef(LoggedModel.kind, model, self._right) for model in models]
        return [*self.target.objects(message), *named]


class OneOf(Target):
    """Several targets, of which what the message names must be granted; one of them must be named."""

    def __init__(self, *targets: Target) -> None:
        super().__init__()
        self.targets = targets

    def objects(self, message: Any) -> list[ObjectRef]:
        objects = [ObjectRef(target.kind, text) for target in self.targets for text in target.ids(message)]
        if not objects:
            raise Forbidden("The request does not say on what it works.")
        return objects


class ArtifactFolder(Target):
    """The experiment in whose folder a path of artifacts lies: experiments have theirs under their number."""

    kind = "experiment"

    def objects(self, message: Any) -> list[ObjectRef]:
        return [folder(text) for text in self.ids(message) or [""]]


class ModelSource(Target):
    """What the files of a new model version lie in: to read it is enough. A prompt's lie nowhere."""

    def objects(self, message: Any) -> list[ObjectRef]:
        return [
            ref._replace(right=Right.READ)
            for text in self.ids(message)
            if text not in PROMPT_SOURCES
            for ref in sources(text)
        ]


class VersionRun(SourceRun):
    """The run of a new model version; of another version's copy it is that one's, whose files must be readable."""

    def objects(self, message: Any) -> list[ObjectRef]:
        return [] if _OTHER_VERSION.fullmatch(message.source) else super().objects(message)


class ModelVersionFiles(Target):
    """A model version's files, by (name, version): its model, and what they lie in, whenever they are read."""

    def objects(self, message: Any) -> list[ObjectRef]:
        name, version = (_text(getattr(message, field) or "") for field in self.fields)
        if not name:
            raise Forbidden("The request does not say on what it works.")
        return files_of(name, version)


_OTHER_VERSION = re.compile(r"models:/([^/%@]+)/([0-9]{1,9})")
PROMPT_SOURCES = ("dummy-source", "prompt-template")  # mlflow/prompt/constants.py
_VERSION = re.compile(r"\s*[+-]?[0-9]{1,30}\s*")


def files_of(name: str, version: str) -> list[ObjectRef]:
    """What must be readable for a model version's files. Raises InvalidParameter for what may be another number."""
    if not _VERSION.fullmatch(version):
        raise InvalidParameter(f"Parameter 'version' must be an integer, got '{version}'.")
    number = int(version)
    files = [ObjectRef("model-version", f"{number}/{name}")] if 0 < number < 2**31 else []  # there are no others
    return [ObjectRef("model", name), *files]


_FOLDER = re.compile(rf"(?:{WORKSPACES_FOLDER}/[a-z0-9-]+/)?([0-9]+)(/(?!\.\.?(/|$))[^/\\]+)*/?\Z")
_DECODINGS = 10


def folder(path: str) -> ObjectRef:
    """The experiment whose folder a path is in, however often it is decoded. Raises Forbidden."""
    for _ in range(_DECODINGS):
        match = _FOLDER.match(path)
        if match is None:
            break
        path, before = unquote(path), path
        if path == before:
            return ObjectRef("experiment", match[1], path=path)
    raise Forbidden("With grants on, artifacts are reached in the folder of an experiment, by its number.")


def sources(text: str) -> list[ObjectRef]:
    """The objects that a model version's source lies in. Raises Forbidden."""
    other = _OTHER_VERSION.fullmatch(text)
    return files_of(*other.groups()) if other else [source(text)]


def source(text: str) -> ObjectRef:
    """The object that a model version's source lies in. Raises Forbidden."""
    scheme, _, rest = text.partition(":")
    rest = rest.lstrip("/")
    if scheme == "mlflow-artifacts":
        return folder(rest)
    if scheme == "runs":
        return ObjectRef("run", rest.partition("/")[0])
    if scheme == "models" and rest.startswith("m-"):
        return ObjectRef("logged-model", rest.partition("/")[0])
    raise Forbidden("With grants on, a model version's source is a run, a logged model, or in an experiment's folder.")


# kind -> (id, experiment_id) of those of the ids that there are; names are looked for in :workspace
EXPERIMENT_OF: dict[str, Callable[..., Bound]] = {
    "run": Sql("SELECT run_uuid, experiment_id FROM runs WHERE run_uuid IN :ids"),
    "trace": Sql("SELECT request_id, experiment_id FROM trace_info WHERE request_id IN :ids"),
    "logged-model": Sql("SELECT model_id, experiment_id FROM logged_models WHERE model_id IN :ids"),
    "review-queue": Sql("SELECT queue_id, experiment_id FROM review_queues WHERE queue_id IN :ids"),
    "label-schema": Sql("SELECT schema_id, experiment_id FROM label_schemas WHERE schema_id IN :ids"),
    "issue": Sql("SELECT issue_id, experiment_id FROM issues WHERE issue_id IN :ids"),
    "experiment-name": Sql("SELECT name, experiment_id FROM experiments WHERE workspace = :workspace AND name IN :ids"),
    "dataset": Sql("""
        SELECT source_id, destination_id FROM entity_associations
        WHERE source_type = 'evaluation_dataset' AND source_id IN :ids AND destination_type = 'experiment'"""),
}
# an object of the kind that needs not be there: a new trace's id, which must not be another experiment's trace
EXPERIMENT_OF["new-trace"] = EXPERIMENT_OF["trace"]
_FILES_OF_VERSIONS = Sql("""
SELECT id, experiment_id FROM (
  SELECT CAST(v.version AS varchar) || '/' || v.name AS id, COALESCE(
    (SELECT e.experiment_id FROM experiments e
     WHERE COALESCE(NULLIF(v.storage_location, ''), v.source) LIKE 'mlflow-artifacts:/' || e.experiment_id || '/%'),
    (SELECT MIN(e.experiment_id) FROM experiments e
     WHERE e.artifact_location LIKE 'mlflow-artifacts:/workspaces/%' AND e.artifact_location || '/' =
       substr(COALESCE(NULLIF(v.storage_location, ''), v.source), 1, length(e.artifact_location) + 1)),
    (SELECT m.experiment_id FROM logged_models m
     WHERE v.source LIKE 'models:/m-%' AND m.model_id = substr(v.source, 9)),
    (SELECT r.experiment_id FROM runs r WHERE v.source LIKE 'runs:/%' AND r.run_uuid = substr(v.source, 7, 32)),
    (SELECT r.experiment_id FROM runs r WHERE r.run_uuid = v.run_id)) AS experiment_id
  FROM model_versions v WHERE v.workspace = :workspace AND v.name IN :names AND v.version IN :versions) files
WHERE experiment_id IS NOT NULL
""")


def _of_versions(ids: Sequence[str], workspace: str) -> Bound:
    """The experiments that the files of model versions lie in; those of other combinations do no harm."""
    numbers, _, names = zip(*(each.partition("/") for each in ids), strict=True)
    return _FILES_OF_VERSIONS(workspace=workspace, names=list(names), versions=[int(number) for number in numbers])


# a model version's files may lie in no experiment
EXPERIMENT_OF["model-version"] = _of_versions
# kinds whose objects may belong to no experiment, where nothing more is needed
OPTIONAL = frozenset({"new-trace", "model-version"})
# whether an experiment is granted to one of these
GRANTED_EXPERIMENT = Sql("""
SELECT 1 FROM headrace_grants WHERE kind = 'experiment' AND object = :experiment_id AND grantee IN :grantees
""")
IS_WORKSPACE = Sql("SELECT 1 FROM workspaces WHERE name = :name")
# (id, workspace) of those of the ids that there are
_WORKSPACE_OF_EXPERIMENTS = Sql("SELECT experiment_id, workspace FROM experiments WHERE experiment_id IN :ids")
_WORKSPACE_OF_DATASETS = Sql("SELECT dataset_id, workspace FROM evaluation_datasets WHERE dataset_id IN :ids")
# whether any experiment of a workspace is granted to one of these
GRANTED_IN_WORKSPACE = Sql("""
SELECT 1 FROM experiments WHERE workspace = :workspace AND experiment_id IN (
  SELECT CAST(object AS integer) FROM headrace_grants WHERE kind = 'experiment' AND grantee IN :grantees) LIMIT 1
""")
# kinds whose objects move to another experiment by `headrace runs move` alone, which tells servers to look again; a
# trace's id is its client's: once it is deleted, another experiment's may have it
FIXED = frozenset({"run", "logged-model"})


async def workspaces_of_datasets(db: Database, ids: Iterable[str]) -> dict[str, str]:
    """dataset -> its workspace, of those that there are."""
    return {str(key): home for key, home in await db.rows(_WORKSPACE_OF_DATASETS(ids=list(ids)))}


async def workspaces_of_experiments(db: Database, ids: Iterable[str]) -> dict[str, str]:
    """experiment -> its workspace, of those that there are, in every way in which their numbers can be written."""
    numbers = {each: number for each in ids if (number := experiment_number(each)) is not None}
    rows = await db.rows(_WORKSPACE_OF_EXPERIMENTS(ids=list(numbers.values()))) if numbers else []
    home_of = {int(number): home for number, home in rows}
    return {each: home_of[number] for each, number in numbers.items() if number in home_of}


def experiment_number(text: str) -> int | None:
    """None for what the column can't hold."""
    try:
        number = int(text)
    except ValueError:
        return None
    return number if 0 <= number < 2**31 else None


def granted(sql: Statement, column: str, grantees: Sequence[str] | None) -> list[str]:
    """Condition: a row's experiment is granted to one of these; none for None (see Call.grantees)."""
    if grantees is None:
        return []
    where = f"kind = 'experiment' AND {sql.in_list('grantee', grantees)}"
    return [f"{column} IN (SELECT CAST(object AS integer) FROM headrace_grants WHERE {where})"]  # noqa: S608  (placeholders)


def granted_dataset(sql: Statement, column: str, grantees: Sequence[str] | None) -> list[str]:
    """Condition: an evaluation dataset has experiments, and all are granted to one of these; none for None."""
    if grantees is None:
        return []
    reached = f"SELECT object FROM headrace_grants WHERE kind = 'experiment' AND {sql.in_list('grantee', grantees)}"  # noqa: S608
    linked = (
        "EXISTS (SELECT 1 FROM entity_associations g WHERE g.source_type = 'evaluation_dataset'"  # noqa: S608
        f" AND g.source_id = {column} AND g.destination_type = 'experiment'"
    )
    return [f"{linked})", f"NOT {linked} AND g.destination_id NOT IN ({reached}))"]


def granted_model(sql: Statement, column: str, grantees: Sequence[str] | None, workspace: str) -> list[str]:
    """Condition: the registered model of a row of this workspace is granted to one of these; none for None."""
    if grantees is None:
        return []
    before = model_key(workspace, "")
    where = f"kind = 'model' AND {sql.in_list('grantee', grantees)}"
    if before:
        where += f" AND object LIKE {sql.bind(before + '%')}"  # a workspace's name has no wildcards
    key = f"substr(object, {len(before) + 1})"
    return [f"{column} IN (SELECT {key} FROM headrace_grants WHERE {where})"]  # noqa: S608  (placeholders)


def words(ref: ObjectRef) -> str:
    """The object in an error's words."""
    kind = {
        "dataset": "evaluation dataset",
        "experiment-name": "experiment",
        "label-schema": "label schema",
        "logged-model": "logged model",
        "model": "registered model",
        "review-queue": "review queue",
    }
    if ref.kind == "model-version":
        version, _, name = ref.id.partition("/")
        return f"experiment that the files of version {version} of the registered model {name} lie in"
    return f"{kind.get(ref.kind, ref.kind)} {ref.id}"
