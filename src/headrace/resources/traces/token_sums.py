"""Token usage and cost of a trace: summed along its tree.

What a span says counts unless a span above it has said something: frameworks write sums on parents. Spans whose parent
is not there are roots. Source: mlflow/tracing/utils/__init__.py, _aggregate_from_nodes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from msgspec import Struct

from headrace.errors import Declined
from headrace.resources.traces.json_text import loaded

CHAT_USAGE = "mlflow.chat.tokenUsage"
LLM_COST = "mlflow.llm.cost"

COST_COLUMNS = ("input_cost", "output_cost", "total_cost")
TOKEN_COLUMNS = (
    *("input_tokens", "output_tokens", "total_tokens"),
    *("cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation_input_tokens_above_1hr"),
)
_MOST = 2**63 - 1


class Node(Struct, frozen=True, gc=False):
    """A span as the sums see it."""

    span_id: str
    parent_id: str | None
    usage: dict[str, Any] | None = None
    cost: dict[str, Any] | None = None


def said(attributes: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """Usage or cost of a span: an object, or the JSON text of one."""
    value = attributes.get(key)
    if isinstance(value, str):
        value = loaded(value)
    return value if isinstance(value, dict) else None


def stored_node(span_id: str, parent_id: str | None, content: str | None) -> Node:
    """The node of a span in the database; `content` is None where it says nothing about tokens (sql.STORED_NODES)."""
    attributes = json.loads(content).get("attributes") if content else None
    return Node(span_id, parent_id, said(attributes or {}, CHAT_USAGE), said(attributes or {}, LLM_COST))


def usage_sums(nodes: Sequence[Node]) -> dict[str, int] | None:
    """Columns of trace_info: how many tokens a trace took, where a span says so and each number fits."""
    sums = _sums(nodes, [node.usage for node in nodes], TOKEN_COLUMNS[:3], TOKEN_COLUMNS[3:])
    return None if sums is None else {key: count for key, sum_ in sums.items() if (count := count_of(sum_)) is not None}


def cost_sums(nodes: Sequence[Node]) -> dict[str, float] | None:
    """Columns of trace_info: what a trace cost in US dollars, where a span says so."""
    sums = _sums(nodes, [node.cost for node in nodes], COST_COLUMNS, ())
    return None if sums is None else {key: cost for key, sum_ in sums.items() if (cost := finite(sum_)) is not None}


def _sums(
    nodes: Sequence[Node], data: Sequence[dict[str, Any] | None], keys: Sequence[str], optional: Sequence[str]
) -> dict[str, Any] | None:
    """None where no span says anything. Raises Declined for what can't be added."""
    if not any(each is not None for each in data):
        return None
    zero: Any = 0 if optional else 0.0
    known = {node.span_id for node in nodes}
    children: dict[str, list[int]] = {}
    stack: list[tuple[int, bool]] = []
    for number, node in enumerate(nodes):
        if node.parent_id and node.parent_id in known:
            children.setdefault(node.parent_id, []).append(number)
        else:
            stack.append((number, False))
    sums: dict[str, Any] = dict.fromkeys(keys, zero)
    said_any = False
    while stack:
        number, covered = stack.pop()
        each = data[number]
        if each is not None and not covered:
            said_any = True
            try:
                for key in keys:
                    sums[key] += each.get(key, zero)
                for key in optional:
                    if key in each:
                        sums[key] = sums.get(key, zero) + each[key]
            except TypeError:
                raise Declined("token usage or cost that is no number") from None
        covered = covered or each is not None
        stack.extend((child, covered) for child in children.get(nodes[number].span_id, ()))
    return sums if said_any else None


def finite(value: Any) -> float | None:
    """A cost as its column takes it (mlflow's finite_float_or_none)."""
    if value is None or isinstance(value, bool):
        return None
    try:
        value = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def count_of(value: Any) -> int | None:
    """A number of tokens as its column takes it (mlflow's token_count_or_none)."""
    if type(value) is not int:
        if isinstance(value, bool):
            return None
        try:
            number = Decimal(str(value))
        except (InvalidOperation, ValueError):
            return None
        if not number.is_finite() or number != number.to_integral_value():
            return None
        value = int(number)
    return value if -_MOST - 1 <= value <= _MOST else None
