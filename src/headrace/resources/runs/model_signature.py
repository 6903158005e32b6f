"""The signature of a model that a client before MLflow 3 logs. It is not kept; stock reads it, and refuses a bad one.

Rules: ModelSignature.from_dict and Schema of mlflow/types/schema.py.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct, field

_DataType = Literal["boolean", "integer", "long", "float", "double", "string", "binary", "datetime"]
_Integer = Literal["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
_NumpyType = Literal[_Integer, "bool", "float16", "float32", "float64", "object", "str", "bytes"]


class _Column(Struct, forbid_unknown_fields=True, gc=False):
    type: _DataType
    name: str | None = None
    required: bool = True


class _TensorInfo(Struct, forbid_unknown_fields=True, gc=False):
    dtype: _NumpyType
    shape: list[int]


class _Tensor(Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["tensor"]
    spec: _TensorInfo = field(name="tensor-spec")
    name: str | None = None


class _Signature(Struct, forbid_unknown_fields=True, gc=False):
    inputs: str | None = None
    outputs: str | None = None
    params: None = None


def is_plain(signature: Any) -> bool:
    """Whether this is a signature of columns with simple types, or of tensors, which stock takes for certain."""
    try:
        given = msgspec.convert(signature, _Signature)
    except msgspec.ValidationError:
        return False
    schemas = [schema for schema in (given.inputs, given.outputs) if schema]
    return bool(schemas) and all(map(_is_plain_schema, schemas))


def _is_plain_schema(schema: str) -> bool:
    try:
        columns = msgspec.json.decode(schema, type=list[_Column])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _is_plain_tensors(schema)
    named = [column.name is not None for column in columns]
    return all(named) if any(named) else bool(columns) and all(column.required for column in columns)


def _is_plain_tensors(schema: str) -> bool:
    try:
        tensors = msgspec.json.decode(schema, type=list[_Tensor])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return len(tensors) == 1 or (bool(tensors) and all(tensor.name is not None for tensor in tensors))
