"""The proof at the end of `up`: a real run with a param and an artifact, written and read back over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
import ssl
from typing import Any, NamedTuple

from headrace.errors import AwsError

EXPERIMENT = "headrace-trial"
_SECONDS = 60


class Address(NamedTuple):
    """Where the server is: `host` and `port` to connect to; `domain` is what TLS and the Host header name."""

    host: str
    port: int
    domain: str = ""

    @property
    def url(self) -> str:
        return f"https://{self.domain}" if self.domain else f"http://{self.host}:{self.port}"


def healthy(address: Address) -> bool:
    """Whether /health answers 200. Raises AwsError where the certificate is not the domain's."""
    try:
        return _request(address, "GET", "/health", "")[0] == 200
    except ssl.SSLCertVerificationError as error:
        raise AwsError(
            f"The certificate that {address.host} shows is no good for {address.url}: {error.verify_message}.\n"
            "Give the ARN of one for that domain with --certificate-arn. Where a CA of your own has signed it, name "
            "its file in REQUESTS_CA_BUNDLE, which MLflow's clients need, too. Then run `headrace aws up` again."
        ) from None
    except (OSError, http.client.HTTPException):
        return False


def round_trip(address: Address, token: str) -> str:
    """Log a param and an artifact, read both back, delete the run; its id. Raises AwsError with what went wrong."""
    try:
        return _round_trip(address, token)
    except (OSError, http.client.HTTPException) as error:
        raise AwsError(
            f"The server at {address.url} could not be used: {error}.\n"
            "`headrace aws logs` shows its log, `headrace aws status` its hosts."
        ) from None


def _round_trip(address: Address, token: str) -> str:
    experiment = _experiment(address, token)
    run = _api(address, token, "runs/create", {"experiment_id": experiment, "run_name": "headrace aws up"})["run"]
    run_id, value = run["info"]["run_id"], secrets.token_hex(8)
    _api(address, token, "runs/log-parameter", {"run_id": run_id, "key": "trial", "value": value})
    path = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run_id}/artifacts/trial.txt"
    _checked(address, "PUT", path, token, value.encode())
    if _checked(address, "GET", path, token) != value.encode():
        raise AwsError(f"{address.url} gave back another artifact than was written: {path}")
    read = _api(address, token, f"runs/get?run_id={run_id}")["run"]["data"].get("params", [])
    if {"key": "trial", "value": value} not in read:
        raise AwsError(f"{address.url} gave back other params than were logged: {read}")
    _api(address, token, "runs/delete", {"run_id": run_id})
    return str(run_id)


def _experiment(address: Address, token: str) -> str:
    status, body = _request(
        address, "GET", f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={EXPERIMENT}", token
    )
    if status == 200:
        return str(json.loads(body)["experiment"]["experiment_id"])
    return str(_api(address, token, "experiments/create", {"name": EXPERIMENT})["experiment_id"])


def _api(address: Address, token: str, endpoint: str, message: dict[str, Any] | None = None) -> dict[str, Any]:
    body = None if message is None else json.dumps(message).encode()
    answer = _checked(address, "GET" if body is None else "POST", f"/api/2.0/mlflow/{endpoint}", token, body)
    decoded: dict[str, Any] = json.loads(answer)
    return decoded


def _checked(address: Address, method: str, path: str, token: str, body: bytes | None = None) -> bytes:
    status, answer = _request(address, method, path, token, body)
    if status != 200:
        raise AwsError(
            f"{method} {address.url}{path} answers {status}: {answer.decode(errors='replace')[:500]}\n"
            "`headrace aws logs` shows the server's log."
        )
    return answer


def _request(address: Address, method: str, path: str, token: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=_SECONDS)
    if address.domain:
        connection.sock = _tls(address)
    headers = {"Host": address.domain or f"localhost:{address.port}", "Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _tls(address: Address) -> ssl.SSLSocket:
    """Its DNS entry may not be there yet: connect to the balancer, but let it prove the name.

    Trusts what MLflow's client does (`requests`): the CAs of REQUESTS_CA_BUNDLE, where that is set.
    """
    trusted = os.environ.get("REQUESTS_CA_BUNDLE") or None
    folder = trusted is not None and os.path.isdir(trusted)
    context = ssl.create_default_context(cafile=None if folder else trusted, capath=trusted if folder else None)
    plain = socket.create_connection((address.host, address.port), timeout=_SECONDS)
    try:
        return context.wrap_socket(plain, server_hostname=address.domain)
    except OSError:
        plain.close()
        raise
