"""--gc-after: one worker of each server collects, every hour."""

from __future__ import annotations

import logging
import time

from headrace.artifacts.locations import Locations
from headrace.db.database import Database
from headrace.gc.collector import Collector, Report
from headrace.sweeps import again_and_again

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 3600.0
TABLES = ("experiments", "runs", "metrics", "logged_models", "model_versions", "trace_info", "inputs")


async def keep(db: Database, locations: Locations, seconds: float) -> None:
    """Collect what was deleted longer than `seconds` ago, now and every SWEEP_SECONDS, until it is cancelled."""

    async def sweep() -> None:
        log(await Collector(db, locations, int((time.time() - seconds) * 1000)).collect())

    await again_and_again(sweep, SWEEP_SECONDS, "what was deleted is not all gone for good")


def log(report: Report) -> None:
    """Nothing where there was nothing to do."""
    if report.experiments or report.runs or report.logged_models:
        logger.info(
            "gone for good: %d experiments, %d runs with %d points of metrics, %d logged models, %d traces",
            report.experiments, report.runs, report.metrics, report.logged_models, report.traces,
        )  # fmt: skip
    for each in report.kept:
        logger.warning("gc: %s %s stays: %s", each.kind, each.id, each.reason)
