"""The endpoints of a server of MLflow's deployments, which the UI asks for on each page of an experiment's runs.

Source: handlers.gateway_proxy_handler. Declined: where there is such a server, stock asks it.
"""

from __future__ import annotations

import os

from headrace.api.endpoint import AJAX, Call, endpoint
from headrace.api.message import Message
from headrace.auth.principals import Right
from headrace.errors import Declined, Forbidden

_LIST = "api/2.0/endpoints"  # all that stock lets a GET ask for


class ListDeployments(Message):
    gateway_path: str = ""


@endpoint("GET", "2.0/mlflow/gateway-proxy", Right.SIGNED_IN, apis=AJAX)
async def list_deployments(call: Call, message: ListDeployments) -> object:
    """As stock pretends without such a server, an empty list. Raises Forbidden for anything else of that server."""
    if message.gateway_path.strip("/") not in ("", _LIST):
        raise Forbidden(f"Invalid gateway_path: {message.gateway_path} for method: GET")
    if os.environ.get("MLFLOW_DEPLOYMENTS_TARGET"):
        raise Declined("the server of deployments is asked by stock")
    return b'{"endpoints":[]}\n'
