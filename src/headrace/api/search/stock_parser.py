"""What is wrong with a filter that can't be read here: MLflow's own parser says it, in its words, without its process.

It is one file of the installed package (mlflow/utils/search_utils.py; of logged models another), run by itself the
first time that somebody has mistyped a filter. What it imports of mlflow are three more such files and, for all that no
parser works with, stand-ins. Whatever goes wrong with that leaves the request to stock, as does what it can read.
"""

from __future__ import annotations

import builtins
import logging
from collections.abc import Sequence
from functools import cache
from importlib.machinery import SourceFileLoader
from types import SimpleNamespace, TracebackType
from typing import Any, ClassVar

from headrace.errors import ApiError, Declined, InvalidParameter
from headrace.versions import mlflow_folder

logger = logging.getLogger(__name__)

LONGEST = 2_000
"""Characters that are read: sqlparse takes 65 us for each that may be a token, and holds up the whole worker."""

_SEARCHES = "mlflow.utils.search_utils"
_LOGGED_MODELS = "mlflow.utils.search_logged_model_utils"
_RUN_INFO = "mlflow.entities.run_info"
_FILES = (_SEARCHES, _RUN_INFO, "mlflow.utils.mlflow_tags", "mlflow.tracing.constant")


class _Refusal(Exception):
    """Stands for MlflowException."""

    def __init__(self, message: str, error_code: object = None, **more: object) -> None:
        super().__init__(message)

    @classmethod
    def invalid_parameter_value(cls, message: str, **more: object) -> _Refusal:
        return cls(message)


class _AnyMeta(type):
    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Any


class _Any(metaclass=_AnyMeta):
    """Stands for what no parser looks at; a class, as it may be another's base."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return _Any


class _SqlLoggedModel:
    """What parse_filter_string asks of mlflow/store/tracking/dbmodels/models.py; attributes are looked at before it."""

    ALIASES: ClassVar[dict[str, str]] = {}

    @staticmethod
    def is_numeric(name: str) -> bool:
        return name.endswith(("_time", "_timestamp"))


class Worded:
    """A block that reads `texts`; where it does not, and MLflow's parser refuses one of them, that is the answer.

    with Worded("SearchUtils.parse_search_filter", text):
        return parse(text, condition)
    """

    __slots__ = ("_parser", "_texts")

    def __init__(self, parser: str, *texts: str) -> None:
        self._parser, self._texts = parser, texts

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, Declined | InvalidParameter) and (refusal := _refusal(self._parser, self._texts)):
            raise refusal from None


def _refusal(parser: str, texts: Sequence[str]) -> ApiError | None:
    if sum(map(len, texts)) > LONGEST:
        return None
    try:
        name, _, method = parser.rpartition(".")
        read = getattr(_module(_SEARCHES)[name], method) if name else _module(_LOGGED_MODELS)[method]
        for text in texts:
            try:
                read(text)
            except _Refusal as refusal:
                return InvalidParameter(str(refusal))
    except Exception:  # a later MLflow's file, or one that fails at the text: stock says what it is
        logger.debug("MLflow's parser can't be asked", exc_info=True)
    return None


@cache
def _module(name: str) -> dict[str, Any]:
    """What is in that file of the package."""
    path = mlflow_folder().joinpath(*name.split(".")[1:]).with_suffix(".py")
    module = {"__name__": name, "__builtins__": {**vars(builtins), "__import__": _import}}
    code = SourceFileLoader(name, str(path)).get_code(name)
    assert code is not None
    exec(code, module)  # noqa: S102  (of the package that is installed)
    return module


def _import(name: str, *of_import: Any) -> object:
    """`import` for those files: what is neither mlflow's nor SQLAlchemy's, whose types they name, is what it is."""
    if name.partition(".")[0] not in ("mlflow", "sqlalchemy"):
        return builtins.__import__(name, *of_import)
    if name in _FILES:
        return SimpleNamespace(**_module(name))
    if name == "mlflow.exceptions":
        return SimpleNamespace(MlflowException=_Refusal)
    if name == "mlflow.entities":
        return SimpleNamespace(RunInfo=_module(_RUN_INFO)["RunInfo"], LoggedModel=_Any, Metric=_Any)
    if name == "mlflow.store.tracking.dbmodels.models":
        return SimpleNamespace(SqlLoggedModel=_SqlLoggedModel)
    return _Any
