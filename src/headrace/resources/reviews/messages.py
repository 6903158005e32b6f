"""What makes and changes label schemas and review queues. Stock answers these; what it would read of a value by halves
is refused before (stock_only.py)."""

from __future__ import annotations

from headrace.api.message import Double, Int64, Message


class PassFail(Message):
    """`InputPassFail`."""

    positive_label: str | None = None
    negative_label: str | None = None


class Categorical(Message):
    """`InputCategorical`."""

    options: list[str] | None = None
    multi_select: bool | None = None


class Numeric(Message):
    """`InputNumeric`."""

    min_value: Double | None = None
    max_value: Double | None = None


class Text(Message):
    """`InputText`."""

    max_length: Int64 | None = None


class SchemaInput(Message):
    """`LabelSchemaInput`: one of them."""

    pass_fail: PassFail | None = None
    categorical: Categorical | None = None
    numeric: Numeric | None = None
    text: Text | None = None
