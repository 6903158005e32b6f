"""The signature of a model that a client before MLflow 3 logs. It is not kept; stock reads it, and refuses a bad one.

Rules: ModelSignature.from_dict; Schema, ParamSchema and what they are made of in mlflow/types/schema.py.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct, field

_Scalar = Literal["boolean", "integer", "long", "float", "double", "string", "binary", "datetime"]
_Nested = Literal["array", "object", "map", "any", "sparkml_vector"]
_Integer = Literal["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
_NumpyType = Literal[_Integer, "bool", "float16", "float32", "float64", "object", "str", "bytes"]
_DEPTH = 50  # stock reads more, by calls within calls

T = TypeVar("T")


class _Type(Struct, forbid_unknown_fields=True, gc=False):
    type: _Scalar | _Nested
    items: _Type | None = None
    values: _Type | None = None
    properties: dict[str, _Property] | None = None

    def is_whole(self, depth: int = _DEPTH) -> bool:
        """Whether it says of what it is made, and nothing else."""
        holds = {"array": self.items, "map": self.values, "object": self.properties}
        said = {kind for kind, held in holds.items() if held is not None}
        if not depth or said != holds.keys() & {self.type}:
            return False
        if self.properties is not None:
            return bool(self.properties) and all(each.is_whole(depth - 1) for each in self.properties.values())
        return all(held.is_whole(depth - 1) for held in (self.items, self.values) if held is not None)


class _Property(_Type):
    required: bool = True

    def is_whole(self, depth: int = _DEPTH) -> bool:
        return self.type != "sparkml_vector" and super().is_whole(depth)  # stock takes none for a property


class _Column(_Type):
    name: str | None = None
    required: bool = True


class _TensorInfo(Struct, forbid_unknown_fields=True, gc=False):
    dtype: _NumpyType
    shape: list[int]


class _Tensor(Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["tensor"]
    spec: _TensorInfo = field(name="tensor-spec")
    name: str | None = None


class _Param(Struct, forbid_unknown_fields=True, gc=False):
    """A parameter that the model is asked with: its default is of its type, or a list of such where it has a shape."""

    name: str
    type: Literal["boolean", "integer", "long", "float", "double", "string"]
    default: bool | int | float | str | list[bool | int | float | str] | None
    shape: tuple[Literal[-1]] | None = None

    def is_whole(self) -> bool:
        if (self.shape is not None) != isinstance(self.default, list):
            return False
        values = self.default if isinstance(self.default, list) else [self.default]
        return all(value is None or type(value) is _PYTHON[self.type] for value in values)


_PYTHON = {"boolean": bool, "integer": int, "long": int, "float": float, "double": float, "string": str}


class _Signature(Struct, forbid_unknown_fields=True, gc=False):
    inputs: str | None = None
    outputs: str | None = None
    params: str | None = None


def is_plain(signature: Any) -> bool:
    """Whether this is a signature that stock takes for certain."""
    try:
        given = msgspec.convert(signature, _Signature)
    except msgspec.ValidationError:
        return False
    schemas = [schema for schema in (given.inputs, given.outputs) if schema]
    if not schemas and not given.params:
        return False
    return all(map(_is_plain_schema, schemas)) and (not given.params or _is_plain_params(given.params))


def _is_plain_schema(schema: str) -> bool:
    columns = _read(schema, list[_Column])
    if columns is None:
        tensors = _read(schema, list[_Tensor]) or []
        return len(tensors) == 1 or (bool(tensors) and all(tensor.name is not None for tensor in tensors))
    if not all(column.is_whole() for column in columns):
        return False
    named = [column.name is not None for column in columns]
    return all(named) if any(named) else bool(columns) and all(column.required for column in columns)


def _is_plain_params(schema: str) -> bool:
    params = _read(schema, list[_Param])
    if params is None or len({param.name for param in params}) < len(params):
        return False
    return all(param.is_whole() for param in params)


def _read(schema: str, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(schema, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
