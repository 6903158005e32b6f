"""A message for any endpoint, made from its declaration: every required field, and those that name what it works on."""

from __future__ import annotations

from typing import Any

from msgspec import inspect

from headrace.api.endpoint import Endpoint
from headrace.auth.objects import Both, ModelVersionFiles, OneOf, Target


def minimal(endpoint: Endpoint, text: str = "1") -> dict[str, Any]:
    """The fields of a message that is decoded without an error; each text is `text`."""
    kind = inspect.type_info(endpoint.message)
    assert isinstance(kind, inspect.StructType)
    wanted = _named(endpoint.target)
    return {
        field.encode_name: value_of(field.type, text)
        for field in kind.fields
        if (field.required or field.name in wanted) and f"{{{field.name}}}" not in endpoint.path
    }


def _named(target: Target) -> set[str]:
    if isinstance(target, Both | OneOf):
        return set().union(*map(_named, target.targets))
    # a version is named by both of its fields; other fields are names of the same thing
    return set(target.fields if isinstance(target, ModelVersionFiles) else target.fields[:1])


def value_of(kind: inspect.Type, text: str) -> Any:
    """A value of a field of that type."""
    if isinstance(kind, inspect.Metadata):
        return value_of(kind.type, text)
    if isinstance(kind, inspect.UnionType):
        return value_of(next(each for each in kind.types if not isinstance(each, inspect.NoneType)), text)
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        return 1
    if isinstance(kind, inspect.BoolType):
        return True
    if isinstance(kind, inspect.LiteralType):
        return kind.values[0]
    if isinstance(kind, inspect.ListType | inspect.VarTupleType):
        return [value_of(kind.item_type, text)]
    if isinstance(kind, inspect.StructType):
        return {field.encode_name: value_of(field.type, text) for field in kind.fields if field.required}
    if isinstance(kind, inspect.DictType):
        return {}
    return text
