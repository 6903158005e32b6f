"""Names for runs that were given none, made by stock's own generator."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import cast

from headrace.versions import mlflow_folder


@cache
def _generator() -> Callable[[], str]:
    """`_generate_random_name` of mlflow/utils/name_utils.py: that one file, which imports nothing of mlflow."""
    source = mlflow_folder() / "utils" / "name_utils.py"
    spec = importlib.util.spec_from_file_location("headrace_stock_names", source)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{source} can't be read")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast("Callable[[], str]", module._generate_random_name)


def random_run_name() -> str:
    """Such as "puzzled-mole-417"."""
    return _generator()()
