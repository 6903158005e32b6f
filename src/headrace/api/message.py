"""Messages: what a request says, decoded once. A struct for each, its fields named as MLflow's protobuf names them.

A message is read in two steps. The first is strict and fast (msgspec, straight from the bytes), and reads what MLflow's
own clients write. What it refuses is read once more by protobuf's JSON rules, as stock reads: numbers in text, names in
camel case, null for absent, numbers of enums. What is still wrong is a 400 in MLflow's shape that names the field.

Limits are types of the message: `Annotated[str, Meta(max_length=250)]`.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta, Struct, inspect

from headrace.errors import InvalidParameter, PayloadTooLarge

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Double = float | Literal["NaN", "Infinity", "-Infinity"]
# The order of the names is that of protobuf's numbers.
ViewType = Literal["ACTIVE_ONLY", "DELETED_ONLY", "ALL"]
RunStatus = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]
LoggedModelStatus = Literal[
    "LOGGED_MODEL_STATUS_UNSPECIFIED", "LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED"
]
LOGGED_MODEL_STATUSES: tuple[str, ...] = get_args(LoggedModelStatus)
LabelSchemaType = Literal["LABEL_SCHEMA_TYPE_UNSPECIFIED", "FEEDBACK", "EXPECTATION"]
ReviewQueueType = Literal["REVIEW_QUEUE_TYPE_UNSPECIFIED", "USER", "CUSTOM"]
ReviewItemType = Literal["REVIEW_ITEM_TYPE_UNSPECIFIED", "TRACE"]
ReviewStatus = Literal["REVIEW_STATUS_UNSPECIFIED", "PENDING", "COMPLETE", "DECLINED"]
_FROM_ZERO = (LoggedModelStatus, LabelSchemaType, ReviewQueueType, ReviewItemType, ReviewStatus)
_ENUMS = {
    frozenset(get_args(enum)): dict(enumerate(get_args(enum), first))
    for enum, first in ((ViewType, 1), (RunStatus, 1), *((enum, 0) for enum in _FROM_ZERO))
}

MAX_VALUES = 1_000_000  # of JSON in a request

# handlers._validate_param_against_schema
HINT = " Hint: Value was of type '{}'. See the API docs for more information about request parameters."
SEE_DOCS = " See the API docs for more information about request parameters."


class Message(Struct, forbid_unknown_fields=True, gc=False, omit_defaults=True):
    """A request. A field without a default is required; one that is absent has its default, as protobuf has it.

    Empty values of required texts count as absent, as they do in stock (handlers._assert_required).
    """


M = TypeVar("M", bound=Message)


def missing(field: str) -> InvalidParameter:
    """handlers._validate_param_against_schema of a required field."""
    return InvalidParameter(f"Missing value for required parameter '{field}'.{SEE_DOCS}")


def invalid(field: str, value: object, reason: str = "") -> InvalidParameter:
    """mlflow.utils.validation.invalid_value."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError):
        text = repr(value)
    if len(text) > 1000:
        text = text[:1000] + "..."
    return InvalidParameter(f"Invalid value {text} for parameter '{field}' supplied{': ' + reason if reason else '.'}")


def check_values(body: bytes) -> None:
    """Raises PayloadTooLarge for JSON of more than MAX_VALUES values: as objects of Python's they take fifty times
    their bytes, and the whole time of the worker while they are looked at. Commas and brackets in texts count, too:
    some of these are JSON that is read, and to tell them apart would cost as much again."""
    if len(body) > MAX_VALUES and sum(map(body.count, (b",", b"{", b"["))) > MAX_VALUES:
        raise too_many_values()


def too_many_values() -> PayloadTooLarge:
    """The refusal of more than MAX_VALUES."""
    return PayloadTooLarge(
        f"The body has more than {MAX_VALUES} values, the most that this server takes. Send less in a request."
    )


class Reader(Generic[M]):
    """Reads one class of messages."""

    def __init__(self, message: type[M]) -> None:
        self.message = message

    # Each made for the first message: those of all would be an eighth of a worker's start.

    @cached_property
    def _decode(self) -> Callable[[bytes], M]:
        return msgspec.json.Decoder(self.message).decode

    @cached_property
    def _required(self) -> tuple[msgspec.structs.FieldInfo, ...]:
        return tuple(field for field in msgspec.structs.fields(self.message) if field.required)

    @cached_property
    def _may_be_empty(self) -> tuple[tuple[str, str], ...]:
        return tuple((field.name, field.encode_name) for field in self._required if _may_be_text(field.type))

    @cached_property
    def _fields(self) -> dict[str, inspect.Field]:
        kind = inspect.type_info(self.message)
        assert isinstance(kind, inspect.StructType)
        return _fields(kind)

    def body(self, body: bytes, parameters: Mapping[str, str] | None = None, *, exact: bool = False) -> M:
        """The message of a JSON body, and of the path's parameters, which win over the body's fields.

        `exact`: fields that the message does not have are refused, as are JSON texts with JSON in them; for senders
        whose rights are limited. Raises InvalidParameter.
        """
        if not parameters and not exact:
            try:
                message = self._decode(body)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass
            else:
                self._check_required(message)
                return message
        elif parameters and not exact and (plain := self._with_parameters(body, parameters)) is not None:
            return plain
        return self.fields(self._object(body, exact), parameters, exact=exact)

    def query(self, query: bytes, parameters: Mapping[str, str] | None = None, *, exact: bool = False) -> M:
        """The message of a query string, as stock reads it: of a field that comes twice the first, or all of a list.

        With `exact` a field that comes twice with different values is refused. Raises InvalidParameter.
        """
        try:
            pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20_000)
        except ValueError:
            raise InvalidParameter("The request's query is not UTF-8, or has too many fields.") from None
        given: dict[str, Any] = {}
        for name, value in pairs:
            field = self._fields.get(name)
            if field is not None and _is_list(field.type):
                given.setdefault(name, []).append(value)
            elif name not in given:
                given[name] = value
            elif exact and given[name] != value:
                raise InvalidParameter(f"The request's query has {name!r} twice, with different values.")
        return self.texts(given, parameters, exact=exact)

    def texts(self, given: Mapping[str, Any], parameters: Mapping[str, str] | None = None, *, exact: bool = False) -> M:
        """The message of fields that are texts, or lists of texts, all of them Unicode. Raises InvalidParameter."""
        values = {**given, **(parameters or {})}
        if (message := self._plain(values)) is not None:
            return message
        return self.fields(values, exact=exact, text=True)

    def fields(
        self, given: Mapping[str, Any], parameters: Mapping[str, str] | None = None, *, exact: bool = False,
        text: bool = False,
    ) -> M:  # fmt: skip
        """The message of its fields by name. `text`: there is nothing but texts, as in a query."""
        read = _Reading(exact, text).struct(self._fields, {**given, **(parameters or {})}, "")
        for field in self._required:
            if read.get(field.encode_name) in (None, ""):
                raise missing(field.encode_name)
        try:
            return msgspec.convert(read, self.message)
        except msgspec.ValidationError as error:
            raise _explained(error, read) from None

    def _with_parameters(self, body: bytes, parameters: Mapping[str, str]) -> M | None:
        """The first step for a body and the path's parameters; None leaves it to the second.

        So does every null: in a field that takes anything it would count as a value here.
        """
        if b"null" in body:
            return None
        try:
            given = msgspec.json.decode(body) if body else {}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return self._plain({**given, **parameters}) if isinstance(given, dict) else None

    def _plain(self, values: dict[str, Any]) -> M | None:
        """The message where each field has the type that it says, and no required text is empty."""
        try:
            message = msgspec.convert(values, self.message)
        except msgspec.ValidationError:
            return None
        for attribute, _ in self._may_be_empty:
            if getattr(message, attribute) == "":
                return None
        return message

    def _check_required(self, message: M) -> None:
        for attribute, name in self._may_be_empty:
            if getattr(message, attribute) == "":
                raise missing(name)

    def _object(self, body: bytes, exact: bool) -> dict[str, Any]:
        if not body.strip():
            return {}
        try:
            # of a field that comes twice the last counts, as in stock
            pairs = _object_once if exact else None
            given = json.loads(body, parse_constant=_refuse_constant, object_pairs_hook=pairs)
            if isinstance(given, str) and not exact:  # older clients encode twice (_get_normalized_request_json)
                given = json.loads(given, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            if isinstance(error, _BadJson):
                raise InvalidParameter(str(error)) from None
            if isinstance(error, RecursionError):
                raise InvalidParameter(
                    "The request's body is no JSON that can be read: it is nested too deeply."
                ) from None
            raise InvalidParameter(f"The request's body is not JSON: {error}.") from None
        if not isinstance(given, dict):
            raise InvalidParameter(f"The request's body is not a JSON object but a {_kind_of(given)}.")
        return given


class _BadJson(ValueError):
    pass


def _refuse_constant(name: str) -> float:
    raise _BadJson(f'The request\'s body is not JSON: {name} is no number there. Write it in quotes, as "{name}".')


def _object_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for name, value in pairs:
        if name in read and read[name] != value:
            raise _BadJson(f"The request's body has {name[:100]!r} twice, with different values.")
        read[name] = value
    return read


class _Reading:
    """protobuf's JSON rules (google.protobuf.json_format.ParseDict), for builtins on the way to a message."""

    def __init__(self, exact: bool, text: bool) -> None:
        self._exact, self._text = exact, text

    def struct(self, fields: Mapping[str, inspect.Field], given: Mapping[str, Any], path: str) -> dict[str, Any]:
        read: dict[str, Any] = {}
        for name, value in given.items():
            field = fields.get(name)
            if field is None:
                if self._exact:
                    raise InvalidParameter(f"The request has {name[:100]!r}, which this endpoint does not know.")
                continue
            if value is None:
                continue
            if value == "" and field.required:
                raise missing(f"{path}.{name}" if path else name)
            if field.encode_name in read:
                other = next(n for n in given if n != name and fields.get(n) is field)
                other = other if other != field.encode_name else name
                raise InvalidParameter(
                    f"Request specifies both '{field.encode_name}' and '{other}'; provide only one of them."
                )
            read[field.encode_name] = self.value(field.type, value, f"{path}.{name}" if path else name)
        return read

    def value(self, kind: inspect.Type, value: Any, path: str) -> Any:
        """The value as the type has it. Raises InvalidParameter where it is not one of that type."""
        if isinstance(kind, inspect.Metadata):
            return self.value(kind.type, value, path)
        if isinstance(kind, inspect.UnionType):
            kinds = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
            if isinstance(value, str) and any(isinstance(k, inspect.LiteralType) and value in k.values for k in kinds):
                return value
            return self.value(kinds[0], value, path)
        if isinstance(kind, inspect.IntType):
            return _integer(value, path)
        if isinstance(kind, inspect.FloatType):
            return _double(value, path)
        if isinstance(kind, inspect.BoolType):
            return _boolean(value, path, self._text)
        if isinstance(kind, inspect.StrType):
            if not isinstance(value, str):
                raise invalid(path, value, HINT.format(type(value).__name__))
            if not value.isascii():
                try:
                    value.encode()
                except UnicodeEncodeError:
                    raise invalid(path, value, "It has half of a surrogate pair, which is no character.") from None
            return value
        if isinstance(kind, inspect.LiteralType):
            return _enum(value, kind.values, path)
        if isinstance(kind, inspect.ListType | inspect.VarTupleType):
            if not isinstance(value, list):
                raise invalid(path, value, HINT.format(type(value).__name__))
            return [self.value(kind.item_type, item, f"{path}[{place}]") for place, item in enumerate(value)]
        if isinstance(kind, inspect.StructType):
            if not isinstance(value, dict):
                raise invalid(path, value, HINT.format(type(value).__name__))
            return self.struct(_fields(kind), value, path)
        if isinstance(kind, inspect.DictType):
            if not isinstance(value, dict):
                raise invalid(path, value, HINT.format(type(value).__name__))
            return {k: self.value(kind.value_type, v, f"{path}.{k}") for k, v in value.items() if v is not None}
        return value  # anything goes: Any, Raw


def _integer(given: Any, path: str) -> int:
    value = given
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,30}", value):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9.]+([eE][+-]?[0-9]+)?", value):
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise invalid(path, given, HINT.format(type(given).__name__))


def _double(value: Any, path: str) -> float | str:
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return as_json(float(value))  # a client's str(value) is "inf", or "nan"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            if not math.isinf(value):
                return float(value)
    raise invalid(path, value, HINT.format(type(value).__name__))


def as_json(number: float) -> float | str:
    """The number as protobuf's JSON has it: one that is not finite by its name."""
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _boolean(value: Any, path: str, text: bool) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if text:
        raise InvalidParameter(f"Invalid boolean value: {value}, must be 'true' or 'false'.")
    raise invalid(path, value, HINT.format(type(value).__name__))


def _enum(value: Any, names: tuple[Any, ...], path: str) -> Any:
    if value in names and not isinstance(value, bool):
        return value
    numbered = _ENUMS.get(frozenset(names), {})
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value in numbered:
        return numbered[value]
    raise invalid(path, value, f"It must be one of {', '.join(map(repr, names))}.")


@cache
def _camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda letter: letter[1].upper(), name)


_FIELDS: dict[type, dict[str, inspect.Field]] = {}


def _fields(kind: inspect.StructType) -> dict[str, inspect.Field]:
    """The fields of a message by each of their names: protobuf's and the one in camel case."""
    if kind.cls not in _FIELDS:
        _FIELDS[kind.cls] = {n: f for f in kind.fields for n in (f.encode_name, _camel(f.encode_name))}
    return _FIELDS[kind.cls]


def _may_be_text(annotation: object) -> bool:
    return str in (get_args(annotation) or (annotation,))


def _is_list(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.Metadata):
        return _is_list(kind.type)
    if isinstance(kind, inspect.UnionType):
        return any(map(_is_list, kind.types))
    return isinstance(kind, inspect.ListType | inspect.VarTupleType)


_AT = re.compile(r"(?P<reason>.*?)(?: - at `\$(?P<path>.*)`)?\Z", re.DOTALL)


def _explained(error: msgspec.ValidationError, read: Mapping[str, Any]) -> InvalidParameter:
    """What msgspec says of a value, in MLflow's words."""
    match = _AT.match(str(error))
    assert match is not None
    path = (match["path"] or "").removeprefix(".")
    absent = re.fullmatch(r"Object missing required field `(\w+)`", match["reason"])
    if absent is not None:
        return missing(f"{path}.{absent[1]}" if path else absent[1])
    value: Any = read
    try:
        for step in re.findall(r"\.?(\w+)|\[(\d+)\]", path):
            value = value[step[0]] if step[0] else value[int(step[1])]
    except (KeyError, IndexError, TypeError):
        value = None
    return invalid(path, value, match["reason"] + ".")


def _kind_of(value: object) -> str:
    return {dict: "object", list: "list", str: "text", bool: "boolean", int: "number", float: "number"}.get(
        type(value), "null"
    )
