"""What MLflow's own client finds, page by page, and the registry as it tells of it: prompts only where asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
