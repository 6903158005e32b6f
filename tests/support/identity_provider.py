"""A certified OpenID Connect provider: the npm package oidc-provider, as oidc_provider/provider.mjs sets it up."""

from __future__ import annotations

import shutil
from pathlib import Path

import requests

from tests.support.processes import Process

FOLDER = Path(__file__).with_name("oidc_provider")
CLIENT, SECRET, AUDIENCE = "headrace", "a secret: of % the client", "mlflow-api"


def missing() -> str | None:
    """Why it can't be started here."""
    if shutil.which("node") is None:
        return "no Node.js: the provider is an npm package (apt-get install nodejs npm, then `make test`)"
    if not (FOLDER / "node_modules" / "oidc-provider").exists():
        return f"the provider is not installed: `npm ci` in {FOLDER}, as `make test` does"
    return None


class IdentityProvider:
    """Running; `url` is the issuer. Who signs in as NAME is NAME@example.org, with whatever password."""

    def __init__(self, port: int, headrace: str, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        command: list[str | Path] = ["node", FOLDER / "provider.mjs", str(port), headrace]
        self._process = Process(command, folder / "provider.log", cwd=FOLDER)
        self._process.wait_until(self._answers, "the provider answers")

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/.well-known/openid-configuration", timeout=10).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    def machine_token(self) -> str:
        """A JWT of the client "trainer", by its own credentials."""
        form = {"grant_type": "client_credentials", "resource": "https://mlflow.example.org"}
        answer = requests.post(f"{self.url}/token", data=form, auth=("trainer", "of-a-machine"), timeout=60)
        token: str = answer.json()["access_token"]
        return token

    def rotate(self) -> None:
        """Other keys from now on; what it signed before is good no more."""
        assert requests.post(f"{self.url}/rotate", timeout=60).ok

    def stop(self) -> None:
        self._process.stop()
