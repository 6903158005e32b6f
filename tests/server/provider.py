"""A provider of OpenID Connect in a thread: real keys, real codes with PKCE, and nobody who is asked.

A mock: it stands for a provider such as Keycloak, and checks what they check.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET, AUDIENCE = "headrace", "a secret: of % the client", "mlflow-api"


class Provider:
    """`user`: the claims of whoever comes by. `url` is the issuer."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.key = RSAKey.generate_key(2048, {"kid": "k1", "use": "sig"})
        self.user: dict[str, Any] = {"sub": "1", "email": "ada@example.org", "groups": ["ml-team"]}
        self.codes: dict[str, dict[str, str]] = {}

    def token(self, audience: str = AUDIENCE, **more: Any) -> str:
        """A signed token of the user's."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": audience, "iat": now, "exp": now + 300, **self.user, **more}
        return jwt.encode({"alg": "RS256", "kid": self.key.kid}, claims, self.key, algorithms=["RS256"])

    def rotate(self) -> None:
        """Sign with another key from now on."""
        self.key = RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"})

    def get(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, Any] | str]:
        if path == "/.well-known/openid-configuration":
            names = {"jwks_uri": "keys", "authorization_endpoint": "authorize", "token_endpoint": "token"}
            names["end_session_endpoint"] = "logout"
            return 200, {"issuer": self.url, **{name: f"{self.url}/{path}" for name, path in names.items()}}
        if path == "/keys":
            return 200, {"keys": [self.key.as_dict(private=False)]}
        if path == "/authorize" and query["response_type"] == "code" and query["client_id"] == CLIENT:
            assert query["code_challenge_method"] == "S256"
            code = secrets.token_urlsafe(8)
            self.codes[code] = query
            return 303, query["redirect_uri"] + "?" + urlencode({"code": code, "state": query["state"]})
        return 404, {}

    def redeem(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        began = self.codes.pop(form.get("code", ""), None)
        pair = base64.b64encode(f"{CLIENT}:a%20secret%3A%20of%20%25%20the%20client".encode()).decode()
        if began is None or authorization != f"Basic {pair}" or form["redirect_uri"] != began["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if challenge.decode() != began["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        return 200, {"id_token": self.token(CLIENT, nonce=began["nonce"]), "token_type": "Bearer"}


@contextmanager
def running_provider() -> Iterator[Provider]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            self._send(*provider.get(parts.path, {k: v[0] for k, v in parse_qs(parts.query).items()}))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self._send(*provider.redeem(form, self.headers.get("Authorization", "")))

        def _send(self, status: int, answer: dict[str, Any] | str) -> None:
            body = b"" if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            if isinstance(answer, str):
                self.send_header("Location", answer)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider = Provider(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield provider
        server.shutdown()
        thread.join()
