"""uvicorn's server without its command line.

`import uvicorn` brings click, a reloader and multiprocessing, which a worker does not use: of the 830 million
instructions of a worker's imports they were 58 (callgrind). Whoever asks the package for a name of its own gets it as
always.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


def _package() -> ModuleType:
    spec = find_spec("uvicorn")
    assert spec is not None
    assert spec.loader is not None
    execute, package = spec.loader.exec_module, module_from_spec(spec)

    def get(name: str) -> Any:
        del package.__dict__["__getattr__"]
        execute(package)
        return getattr(package, name)

    package.__dict__["__getattr__"] = get
    return package


sys.modules.setdefault("uvicorn", _package())

from uvicorn.config import Config  # noqa: E402
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle  # noqa: E402
from uvicorn.server import Server  # noqa: E402

__all__ = ["Config", "HttpToolsProtocol", "RequestResponseCycle", "Server"]
