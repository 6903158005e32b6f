"""Tokens that an OpenID Connect provider signs, verified by the keys that it publishes; an AWS load balancer's, too.

No algorithm is taken from a token alone: only signatures with a public key are (no `none`, no HMAC).
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet
from joserfc.jws import JWSRegistry

from headrace.auth.single_sign_on import Claims, is_jwt
from headrace.errors import Unauthenticated, Unavailable
from headrace.uri import what_is_wrong

T = TypeVar("T")
# The body of a GET. Raises Unavailable.
Fetch = Callable[[str], Awaitable[bytes]]
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
LEEWAY_SECONDS = 30
KEEP_SECONDS = 3600.0
# A provider is asked no more often than that, however many tokens name keys that nobody knows, also one that is away.
ASK_AGAIN_SECONDS = 5.0
_ALB_KID = re.compile(r"[0-9a-fA-F-]{8,64}")
_ALB_KEYS = 100


class Metadata(msgspec.Struct, frozen=True):
    """What a provider says of itself (OpenID Connect Discovery 1.0, section 3)."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    end_session_endpoint: str | None = None
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for an address that leads nowhere: a file, a path, a port that there is not."""
        for name in self.__struct_fields__[1:-1]:
            address = getattr(self, name)
            if address and (wrong := "is not ASCII" if not address.isascii() else what_is_wrong(address)):
                raise ValueError(f"{name} {wrong}")


class _Published(msgspec.Struct, frozen=True):
    """A set of keys (RFC 7517), which may have other members."""

    keys: list[Any]


class _Kept(Generic[T]):
    """What a provider publishes: asked for when it is wanted, kept for KEEP_SECONDS, and longer while it is away."""

    def __init__(self, ask: Callable[[], Awaitable[T]], clock: Callable[[], float]) -> None:
        self._ask, self._clock = ask, clock
        self._lock = asyncio.Lock()
        self._value: T | None = None
        self._failure: Unavailable | None = None
        self._read_at = self._asked_at = float("-inf")

    async def get(self, suffices: Callable[[T], bool] = lambda value: True) -> T:
        """What there is, read again where that does not suffice. Who can go on with what there is waits for nobody.

        Raises Unavailable where what there is does not suffice, and the provider has not answered.
        """
        if self._is_fresh(suffices) or (self._lock.locked() and self._suffices(suffices)):
            assert self._value is not None
            return self._value
        async with self._lock:
            if not self._is_fresh(suffices) and self._clock() - self._asked_at >= ASK_AGAIN_SECONDS:
                try:
                    self._value, self._failure = await self._ask(), None
                    self._read_at = self._clock()
                except Unavailable as error:
                    self._failure = error
                self._asked_at = self._clock()
            if self._failure is not None and not self._suffices(suffices):
                raise Unavailable(str(self._failure))
            assert self._value is not None
            return self._value

    def _suffices(self, suffices: Callable[[T], bool]) -> bool:
        return self._value is not None and suffices(self._value)

    def _is_fresh(self, suffices: Callable[[T], bool]) -> bool:
        return self._suffices(suffices) and self._clock() - self._read_at < KEEP_SECONDS


class _Signatures(JWSRegistry):
    """How much of a token is looked at: what a request's head, or a provider's answer, can hold."""

    max_header_length = 16 * 1024
    max_payload_length = 1024 * 1024


class Provider:
    """A provider: what it says of itself, and its keys."""

    def __init__(self, issuer: str, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer, self._fetch = issuer, fetch
        self._metadata, self._keys = _Kept(self._ask_metadata, clock), _Kept(self._ask_keys, clock)

    async def metadata(self) -> Metadata:
        """Raises Unavailable."""
        return await self._metadata.get()

    async def _ask_metadata(self) -> Metadata:
        address = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
        try:
            found = msgspec.json.decode(await self._fetch(address), type=Metadata)
        except (ValueError, RecursionError) as error:
            raise Unavailable(f"{address} is no description of an OpenID Connect provider: {error}.") from error
        if found.issuer != self._issuer:
            raise Unavailable(f"{address} is of the issuer {found.issuer}; --oidc-issuer must be the same text.")
        return found

    async def _ask_keys(self) -> KeySet:
        return _key_set(await self._fetch((await self.metadata()).jwks_uri))

    async def claims(self, token: str, audience: str, nonce: str | None = None) -> Claims:
        """What a token says, once it is verified. Raises Unauthenticated, Unavailable."""
        header = _header(token)
        options: dict[str, Any] = {
            "iss": {"essential": True, "value": self._issuer},
            "aud": {"essential": True, "value": audience},
            "exp": {"essential": True},
            "sub": {"essential": True},
        }
        if nonce is not None:
            options["nonce"] = {"essential": True, "value": nonce}
        kid = header.get("kid")
        keys = await self._keys.get(lambda known: kid is None or any(key.kid == kid for key in known.keys))
        try:
            claims = jwt.decode(token, keys, registry=_Signatures(algorithms=ALGORITHMS)).claims
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise Unauthenticated(f"The token is not valid: {error}.") from error
        return _validate(claims, options)


class LoadBalancer:
    """The header x-amzn-oidc-data of one AWS load balancer (its ARN), signed with a key that the region publishes."""

    def __init__(self, arn: str, fetch: Fetch, keys: str = "") -> None:
        self._arn, self._fetch = arn, fetch
        region = arn.split(":")[3]
        self._where = keys or f"https://public-keys.auth.elb.{region}.amazonaws.com/"
        self._keys: dict[str, ECKey] = {}

    async def claims(self, data: str) -> Claims:
        """What the load balancer says of a user. Raises Unauthenticated, Unavailable.

        Source: "Authenticate users using an Application Load Balancer", in AWS's user guide.
        """
        header = _header(data)
        if header.get("signer") != self._arn or header.get("alg") != "ES256":
            raise Unauthenticated("x-amzn-oidc-data is not of this server's load balancer.")
        kid = header.get("kid")
        if not isinstance(kid, str) or not _ALB_KID.fullmatch(kid):
            raise Unauthenticated("x-amzn-oidc-data names no key.")
        if kid not in self._keys:
            if len(self._keys) >= _ALB_KEYS:
                self._keys.clear()
            try:
                self._keys[kid] = ECKey.import_key((await self._fetch(self._where + kid)).decode())
            except ValueError as error:
                raise Unauthenticated("x-amzn-oidc-data names a key that there is not.") from error
        # AWS pads its base64, and puts the expiry and the issuer in the header
        claims = _validate(_padded(data, self._keys[kid]), {"sub": {"essential": True}})
        expires = header.get("exp", claims.get("exp"))
        if not isinstance(expires, int | float) or expires <= time.time() - LEEWAY_SECONDS:
            raise Unauthenticated("x-amzn-oidc-data has expired.")
        return claims | {"exp": expires, "iss": str(header.get("iss", claims.get("iss", "")))}


def _validate(claims: Claims, options: dict[str, Any]) -> Claims:
    """The claims, if they hold now. Raises Unauthenticated."""
    try:
        jwt.JWTClaimsRegistry(leeway=LEEWAY_SECONDS, **options).validate(claims)
    except (JoseError, ValueError, TypeError) as error:
        raise Unauthenticated(f"The token is not valid: {error}.") from error
    return claims


def _padded(data: str, key: ECKey) -> Claims:
    """The claims of what AWS signs: its base64 has padding, which RFC 7515 does not allow. Raises Unauthenticated."""
    signing, _, signature = data.rpartition(".")
    try:
        good = JWSRegistry.algorithms["ES256"].verify(signing.encode(), _decode(signature), key)
        claims = msgspec.json.decode(_decode(signing.split(".")[1])) if good else None
    except ValueError:
        claims = None
    if not isinstance(claims, dict):
        raise Unauthenticated("x-amzn-oidc-data is not signed by the load balancer.")
    return claims


def _key_set(body: bytes) -> KeySet:
    """The keys that are for signing, and known. Raises Unavailable."""
    try:
        keys = msgspec.json.decode(body, type=_Published).keys
    except (ValueError, RecursionError) as error:
        raise Unavailable(f"What the provider publishes is no set of keys: {error}.") from error
    usable = []
    for key in keys:
        try:
            if key.get("use", "sig") == "sig" and key.get("kty") in ("RSA", "EC", "OKP"):
                usable += KeySet.import_key_set({"keys": [key]}).keys
        except (JoseError, ValueError, KeyError, TypeError, AttributeError):
            continue  # of a kind that we don't have
    return KeySet(usable)


def _header(token: str) -> dict[str, Any]:
    """Raises Unauthenticated for what is no token that we take."""
    try:
        header = msgspec.json.decode(_decode(token.split(".")[0])) if is_jwt(token) else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("alg") not in ALGORITHMS:
        raise Unauthenticated("The token is no JSON Web Token that is signed with a public key.")
    return header


def _decode(text: str) -> bytes:
    text = text.rstrip("=")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
