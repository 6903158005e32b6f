"""What MLflow's own client finds, page by page, and the registry as it tells of it: prompts only where asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

PAGE = 100
PROMPTS = "tags.`mlflow.prompt.is_prompt` = 'true'"


def pages(search: Callable[[str | None], Any]) -> Iterator[Any]:
    """All that a search finds."""
    token = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return


def registered_models(client: Any, prompts: str) -> Iterator[Any]:
    """Those that are no prompts, or with PROMPTS those that are."""
    return pages(lambda token: client.search_registered_models(prompts or None, PAGE, page_token=token))


def tags_of(model: Any, prompts: str) -> dict[str, str]:
    """With the one that makes it a prompt, which the client hides."""
    tags: dict[str, str] = model.tags
    return tags | ({"mlflow.prompt.is_prompt": "true"} if prompts else {})


def versions(client: Any, name: str, prompts: str) -> list[Any]:
    """Those of one model, or prompt, by number."""
    quoted = name.replace("'", "\\'")
    condition = f"name = '{quoted}'" + (f" AND {prompts}" if prompts else "")
    found = pages(lambda token: client.search_model_versions(condition, 200, page_token=token))
    return sorted(found, key=lambda version: int(version.version))


def links(client: Any, experiment_id: str, run_ids: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Each run that has traces beside those that were made in it, with these: an evaluation of traces links them."""
    for run_id in run_ids:
        search = partial(client.search_traces, locations=[experiment_id], run_id=run_id, include_spans=False)
        ids = [
            trace.info.trace_id
            for trace in pages(lambda token, search=search: search(max_results=PAGE, page_token=token))  # type: ignore[misc]
            if trace.info.trace_metadata.get("mlflow.sourceRun") != run_id
        ]
        if ids:
            yield run_id, ids
