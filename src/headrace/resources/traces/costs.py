"""What a call of a model cost, by the price lists that come with MLflow.

Source: mlflow/tracing/utils/__init__.py, calculate_cost_by_model_and_token_usage; mlflow/utils/providers.py,
cost_per_token. Stock prefers litellm's prices where litellm is installed: then those spans are declined. And where a
span names its provider, stock fetches a newer list of that provider (MLFLOW_MODEL_CATALOG_URI, once a day); Headrace
asks no other server.

All lists together are 2.7 MB of JSON. They are read when a model is first looked for, each once.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from headrace.errors import Declined
from headrace.versions import mlflow_folder

_MILLION = 1_000_000
# the names of routes within MLflow's gateway, no models
_NO_MODELS = ("gateway:/", "endpoints:/")


class _Pricing(Struct, gc=False):
    """US dollars for a million tokens; None is not told."""

    input_per_million_tokens: float | None = None
    output_per_million_tokens: float | None = None
    cache_read_per_million_tokens: float | None = None
    cache_write_per_million_tokens: float | None = None
    cache_write_1hr_per_million_tokens: float | None = None


_NOT_TOLD = _Pricing()


class _Model(Struct, gc=False):
    pricing: _Pricing | None = None


class _Catalog(Struct):
    models: dict[str, _Model] = {}


class Prices:
    """The prices of models, by provider. `folder` holds a JSON file for each; None where stock must say the price."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._providers = sorted(path.stem for path in folder.glob("*.json")) if folder else []
        self._bundled: dict[str, dict[str, _Pricing]] = {}

    @classmethod
    def of_mlflow(cls) -> Prices:
        """Those that come with the installed MLflow, which is not imported for it."""
        return cls(None if find_spec("litellm") else mlflow_folder() / "utils" / "model_catalog")

    def find(self, model: str, provider: str | None) -> _Pricing | None:
        """The price of a model, of any provider's where none is named: the first that asks money for input."""
        if self._folder is None:
            raise Declined("a price that stock must look for")
        name = model.split("/", 1)[-1]
        if provider:
            return self._of(provider).get(name)
        found = None
        for each in self._providers:
            if pricing := self._of(each).get(name):
                if pricing.input_per_million_tokens:
                    return pricing
                found = found or pricing
        return found

    def _of(self, provider: str) -> dict[str, _Pricing]:
        if provider not in self._bundled:
            if self._folder is None or provider not in self._providers:
                return {}
            catalog = msgspec.json.decode((self._folder / f"{provider}.json").read_bytes(), type=_Catalog)
            self._bundled[provider] = {name: model.pricing or _NOT_TOLD for name, model in catalog.models.items()}
        return self._bundled[provider]


def cost_of(model: Any, usage: Any, provider: Any, prices: Prices) -> dict[str, float] | None:
    """What the tokens cost, in US dollars; None where that can't be told.

    The three come from the client: what is no name and no number costs nothing, as with stock.
    """
    if not isinstance(model, str) or not isinstance(usage, dict) or not model or not usage:
        return None
    if model.startswith(_NO_MODELS):
        return None
    if not provider and model.startswith(("databricks-", "databricks/")):
        provider = "databricks"
    read, written = usage.get("input_tokens", 0), usage.get("output_tokens", 0)
    if read == 0 and written == 0:
        return None
    for name in (provider.lower(), None) if isinstance(provider, str) and provider else (None,):
        try:
            costs = _cost(prices.find(model, name), read, written, usage)
        except (TypeError, OverflowError):
            continue
        if costs is not None:
            return {"input_cost": costs[0], "output_cost": costs[1], "total_cost": costs[0] + costs[1]}
    return None


def _cost(price: _Pricing | None, read: Any, written: Any, usage: dict[str, Any]) -> tuple[float, float] | None:
    """Tokens from a cache, and those that go into one for five minutes or an hour, have prices of their own."""
    if price is None:
        return None
    each = _per_token(price.input_per_million_tokens, 0.0)
    cached = usage.get("cache_read_input_tokens") or 0
    created = usage.get("cache_creation_input_tokens") or 0
    for_an_hour = min(usage.get("cache_creation_input_tokens_above_1hr") or 0, created)
    for_minutes = created - for_an_hour
    creation = _per_token(price.cache_write_per_million_tokens, each)
    cost = max(read - cached - created, 0) * each
    if cached > 0:
        cost += cached * _per_token(price.cache_read_per_million_tokens, each)
    if for_minutes > 0:
        cost += for_minutes * creation
    if for_an_hour > 0:
        cost += for_an_hour * _per_token(price.cache_write_1hr_per_million_tokens, creation)
    return cost, written * _per_token(price.output_per_million_tokens, 0.0)


def _per_token(price: float | None, otherwise: float) -> float:
    return otherwise if price is None else price / _MILLION
