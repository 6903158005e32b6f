"""Tokens of a provider and of a load balancer: real keys, and every way to forge one that we know."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from headrace.auth.jwt import ASK_AGAIN_SECONDS, KEEP_SECONDS, LoadBalancer, Provider
from headrace.errors import Unauthenticated, Unavailable

ISSUER, AUDIENCE = "https://id.example", "mlflow"
ARN = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/mlflow/0123456789abcdef"
KEY = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
OTHER = RSAKey.generate_key(2048, {"kid": "two", "use": "sig"})
SECRET = b"a secret of thirty-two characters"
CURVE = ECKey.generate_key("P-256", {"kid": "curve"})


class Site:
    """What a provider publishes; the only mock: the network in between."""

    def __init__(self, *keys: RSAKey | ECKey) -> None:
        self.keys, self.asked, self.away = keys, 0, False
        self.issuer, self.more = ISSUER, {}  # type: str, dict[str, Any]
        self.answers, self.waiting = asyncio.Event(), asyncio.Event()
        self.answers.set()

    async def fetch(self, address: str) -> bytes:
        if self.away:
            raise Unavailable("away")
        if address == f"{ISSUER}/.well-known/openid-configuration":
            return json.dumps({"issuer": self.issuer, "jwks_uri": f"{ISSUER}/keys", **self.more}).encode()
        assert address == f"{ISSUER}/keys"
        self.asked += 1
        self.waiting.set()
        await self.answers.wait()
        odd = [{"kty": "oct", "k": unpadded(SECRET), "kid": "secret"}, {"kty": "new", "kid": "odd"}, 5, None]
        return json.dumps({"keys": [*(key.as_dict(private=False) for key in self.keys), *odd]}).encode()


def claims(**more: Any) -> dict[str, Any]:
    now = int(time.time())
    base = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u1", "iat": now, "exp": now + 300}
    return {name: value for name, value in (base | more).items() if value is not None}


def signed(content: Mapping[str, Any], key: Any = KEY, alg: str = "RS256", **header: Any) -> str:
    return jwt.encode({"alg": alg, "kid": key.kid} | header, dict(content), key, algorithms=[alg])


def unpadded(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


async def test_a_good_token() -> None:
    provider = Provider(ISSUER, Site(KEY, CURVE).fetch)
    for token in (
        signed(claims()),
        signed(claims(aud=["x", AUDIENCE])),
        signed(claims(), CURVE, "ES256"),
        signed(claims(nbf=int(time.time()) + 10)),  # a clock that is a little ahead
        signed(claims(), alg="PS256"),
        signed(claims(groups=["a group"] * 10_000)),
    ):
        assert (await provider.claims(token, AUDIENCE))["sub"] == "u1"
    assert (await provider.claims(signed(claims(nonce="n")), AUDIENCE, "n"))["nonce"] == "n"


def forged() -> dict[str, str]:
    now = int(time.time())
    head, body, signature = signed(claims()).split(".")
    hashed = f"{unpadded({'alg': 'HS256', 'kid': 'one'})}.{body}"
    code = hmac.digest(KEY.as_pem(private=False), hashed.encode(), "sha256")
    return {
        "alg none": f"{unpadded({'alg': 'none'})}.{body}.",
        "alg none, signed": f"{unpadded({'alg': 'none', 'kid': 'one'})}.{body}.{signature}",
        "alg None": f"{unpadded({'alg': 'None', 'kid': 'one'})}.{body}.{signature}",
        "the public key as a secret": f"{hashed}.{unpadded(code)}",
        "a secret among the keys": jwt.encode(
            {"alg": "HS256", "kid": "secret"}, claims(), OctKey.import_key(SECRET), algorithms=["HS256"]
        ),
        "another's key": signed(claims(), OTHER, kid="one"),
        "a key that comes along": signed(claims(), OTHER, jwk=OTHER.as_dict(private=False)),
        "another's body": f"{head}.{unpadded(claims(sub='u2'))}.{signature}",
        "no signature": f"{head}.{body}.",
        "cut": f"{head}.{body}",
        "wrong audience": signed(claims(aud="other")),
        "no audience": signed(claims(aud=None)),
        "wrong issuer": signed(claims(iss=ISSUER + "/")),
        "no issuer": signed(claims(iss=None)),
        "expired": signed(claims(exp=now - 60)),
        "no expiry": signed(claims(exp=None)),
        "expiry as text": signed(claims(exp="tomorrow")),
        "not yet": signed(claims(nbf=now + 3600)),
        "of tomorrow": signed(claims(iat=now + 3600)),
        "no subject": signed(claims(sub=None)),
        "no object": f"{head}.{unpadded([1])}.{signature}",
        "no token": "..",
        "nested without an end": base64.urlsafe_b64encode(b"[" * 10_000).decode() + f".{body}.{signature}",
        "not base64": "\xff.\xff.\xff",
    }


@pytest.mark.parametrize("kind", forged())
async def test_a_forged_token(kind: str) -> None:
    with pytest.raises(Unauthenticated):
        await Provider(ISSUER, Site(KEY).fetch).claims(forged()[kind], AUDIENCE)


@pytest.mark.parametrize("nonce", [None, "another"])
async def test_another_logins_nonce(nonce: str | None) -> None:
    with pytest.raises(Unauthenticated):
        await Provider(ISSUER, Site(KEY).fetch).claims(signed(claims(nonce=nonce)), AUDIENCE, "n")


async def test_keys_change() -> None:
    site, now = Site(KEY), 1000.0
    provider = Provider(ISSUER, site.fetch, lambda: now)
    await provider.claims(signed(claims()), AUDIENCE)
    site.keys = (OTHER,)
    now += ASK_AGAIN_SECONDS
    await provider.claims(signed(claims(), OTHER), AUDIENCE)
    assert site.asked == 2
    with pytest.raises(Unauthenticated):
        await provider.claims(signed(claims()), AUDIENCE)
    assert site.asked == 2, "a flood of unknown keys reaches nobody"
    site.away, now = True, now + KEEP_SECONDS
    assert await provider.claims(signed(claims(), OTHER), AUDIENCE), "known keys go on while the provider is away"


async def test_a_provider_that_is_away_or_another() -> None:
    site = Site(KEY)
    site.away = True
    with pytest.raises(Unavailable):
        await Provider(ISSUER, site.fetch).claims(signed(claims()), AUDIENCE)
    site.away, site.issuer = False, "https://evil.example"
    with pytest.raises(Unavailable, match="evil"):
        await Provider(ISSUER, site.fetch).claims(signed(claims()), AUDIENCE)


async def test_a_provider_that_does_not_answer_holds_up_nobody_whose_key_is_known() -> None:
    site, now = Site(KEY), 1000.0
    provider = Provider(ISSUER, site.fetch, lambda: now)
    await provider.claims(signed(claims()), AUDIENCE)
    site.answers.clear()
    site.waiting.clear()
    now += KEEP_SECONDS
    of_nobody = asyncio.create_task(provider.claims(signed(claims(), OTHER), AUDIENCE))
    await site.waiting.wait()
    assert await asyncio.wait_for(provider.claims(signed(claims()), AUDIENCE), 60)
    site.away = True
    site.answers.set()
    with pytest.raises(Unauthenticated):
        await of_nobody
    now += KEEP_SECONDS
    for _ in range(2):
        with pytest.raises(Unavailable):  # it may be good: 401 would end a training
            await provider.claims(signed(claims(), OTHER), AUDIENCE)
        assert await provider.claims(signed(claims()), AUDIENCE)
    asked = site.asked
    site.away = False
    with pytest.raises(Unavailable):
        await provider.claims(signed(claims(), OTHER), AUDIENCE)
    assert site.asked == asked, "one that was away a moment ago is not asked"
    now += ASK_AGAIN_SECONDS
    with pytest.raises(Unauthenticated):
        await provider.claims(signed(claims(), OTHER), AUDIENCE)


@pytest.mark.parametrize("name", ["jwks_uri", "token_endpoint", "authorization_endpoint", "userinfo_endpoint"])
async def test_addresses_that_lead_nowhere(name: str) -> None:
    for address in ("file:///etc/passwd", "/keys", "https://h:99999/", "https://[::1/", "https://\u00e9/", "https:///"):
        site = Site(KEY)
        site.more = {name: address}
        with pytest.raises(Unavailable, match=name):
            await Provider(ISSUER, site.fetch).claims(signed(claims()), AUDIENCE)
    site.more = {} if name == "jwks_uri" else {name: None}
    assert await Provider(ISSUER, site.fetch).claims(signed(claims()), AUDIENCE)


@pytest.mark.parametrize("keys", [b"", b"null", b"[]", b'{"keys": 5}', b'{"keys": "abc"}', b'{"keys": {}}'])
async def test_what_is_no_set_of_keys(keys: bytes) -> None:
    async def fetch(address: str) -> bytes:
        return keys if address == f"{ISSUER}/keys" else await Site().fetch(address)

    with pytest.raises(Unavailable, match="no set of keys"):
        await Provider(ISSUER, fetch).claims(signed(claims()), AUDIENCE)


def of_aws(content: Mapping[str, Any], key: ECKey = CURVE, padded: bool = True, **header: Any) -> str:
    """x-amzn-oidc-data, with AWS's padding."""
    from joserfc.jws import JWSRegistry

    head = {
        "alg": "ES256",
        "kid": "0123-abcd-0123",
        "signer": ARN,
        "iss": ISSUER,
        "exp": int(time.time()) + 120,
    } | header
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in (head, content)]
    parts = parts if padded else [part.rstrip("=") for part in parts]
    signing = ".".join(parts)
    signature = JWSRegistry.algorithms["ES256"].sign(signing.encode(), key)
    return f"{signing}.{base64.urlsafe_b64encode(signature).decode()}"


async def aws_keys(address: str) -> bytes:
    assert address == "https://public-keys.auth.elb.eu-central-1.amazonaws.com/0123-abcd-0123"
    return CURVE.as_pem(private=False)


@pytest.mark.parametrize("padded", [True, False])
async def test_a_load_balancers_user(padded: bool) -> None:
    found = await LoadBalancer(ARN, aws_keys).claims(of_aws({"sub": "u1", "email": "a@b"}, padded=padded))
    assert (found["sub"], found["email"], found["iss"]) == ("u1", "a@b", ISSUER)


@pytest.mark.parametrize(
    "data",
    [
        of_aws({"sub": "u1"}, signer=ARN.replace("mlflow", "other")),
        of_aws({"sub": "u1"}, exp=int(time.time()) - 60),
        of_aws({"sub": "u1"}, exp=None),
        of_aws({"sub": "u1"}, kid="../../evil"),
        of_aws({"sub": "u1"}, alg="none"),
        of_aws({"sub": "u1"}, ECKey.generate_key("P-256")),
        of_aws({"email": "a@b"}),
        of_aws({"sub": "u1"})[:-4],
        "a.b.c",
        "",
    ],
)
async def test_a_forged_load_balancers_user(data: str) -> None:
    with pytest.raises(Unauthenticated):
        await LoadBalancer(ARN, aws_keys).claims(data)
