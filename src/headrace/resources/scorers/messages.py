"""The messages of scorers/*, as mlflow/protos/service.proto names them."""

from __future__ import annotations

from headrace.api.message import Double, Int32, Message


class ListScorers(Message):
    """`ListScorers`. Without an experiment those of all that are active."""

    experiment_id: str = ""
    experiment_ids: list[str] = []


class ListScorerVersions(Message):
    """`ListScorerVersions`."""

    experiment_id: str
    name: str


class GetScorer(Message):
    """`GetScorer`. Without a version the latest."""

    experiment_id: str
    name: str
    version: Int32 | None = None


class GetOnlineScoringConfigs(Message):
    """What handlers._get_online_scoring_configs reads: no message of MLflow's."""

    scorer_ids: list[str]


class UpsertOnlineScoringConfig(Message):
    """`UpsertOnlineScoringConfig`. `sample_rate`: the share of new traces, 0 to 1."""

    experiment_id: str
    name: str
    sample_rate: Double = 0.0
    filter_string: str | None = None
