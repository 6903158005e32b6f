"""Artifacts in S3, or what speaks as it does: streamed, in parts, by obstore.

Settings come from where stock takes them: boto3's chain of credentials and regions, and MLflow's MLFLOW_S3_... and
MLFLOW_BOTO_... variables. With one that is not understood here (UNKNOWN) every request for S3 is stock's.
Source: mlflow/store/artifact/s3_artifact_repo.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from mimetypes import guess_type
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import obstore
from obstore import exceptions
from obstore.store import S3Store as Client

from headrace.artifacts.s3_calls import Calls
from headrace.artifacts.store import Entry, IsAFolder, NotThere, Size, no_artifact
from headrace.errors import Declined, Forbidden, InvalidParameter, StoreUnusable, Unavailable
from headrace.uri import what_is_wrong

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Credential

logger = logging.getLogger(__name__)

# Variables that change what stock's client does, in ways that this one has not got.
UNKNOWN = (
    "MLFLOW_S3_EXPECTED_BUCKET_OWNER",
    "MLFLOW_EXPERIMENTAL_S3_SIGNATURE_VERSION",
)
# The same, of botocore: variables (AWS_CA_BUNDLE, AWS_USE_FIPS_ENDPOINT, ...) and the AWS config file.
UNKNOWN_IN_FILE = ("ca_bundle", "use_fips_endpoint", "use_dualstack_endpoint")
# Settings in a profile's section `s3` that only the AWS CLI follows.
_OF_THE_CLI = (
    "max_concurrent_requests",
    "max_queue_size",
    "multipart_threshold",
    "multipart_chunksize",
    "max_bandwidth",
    "preferred_transfer_client",
    "target_bandwidth",
)
CREDENTIALS_KEPT = timedelta(minutes=10)
PART_BYTES = 5 * 1024 * 1024  # the least that S3 takes
MAX_PARTS = 9_000  # S3's limit is 10,000
UNSIZED_PART_BYTES = 16 * 1024 * 1024  # up to 140 GB from a client that does not say how much it sends
UPLOADS_AT_ONCE = 7  # each takes UNDER_WAY_BYTES and a part of memory
UNDER_WAY_BYTES = 4 * PART_BYTES
READ_BYTES = 256 * 1024
_STYLES = ("auto", "virtual", "path")
_CONNECTION_SECONDS = 5.0
_MOST_OF_KEY = 1024  # bytes: Amazon S3's user guide, "Naming Amazon S3 objects"
# S3 has so long to answer, the time that a part takes to be sent included: MLflow's client waits for us no longer.
STALLED = timedelta(seconds=120)
# S3's 5xx and resets: five tries, as boto3's, within a minute; more would keep a client that has a timeout of its own.
RETRIES: RetryConfig = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}
PROBE_AGAIN_SECONDS = 30.0
_REFUSED = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
_FAILED = (exceptions.BaseError, OSError)
_ENCRYPTION = {"ServerSideEncryption": "server_side_encryption", "SSEKMSKeyId": "sse_kms_key_id"}


class Buckets:
    """A client for each bucket, made when it is first asked for."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._buckets: dict[str, Bucket] = {}
        self._unusable: dict[str, tuple[float, StoreUnusable]] = {}
        self._uploads = asyncio.Semaphore(UPLOADS_AT_ONCE)

    def get(self, bucket: str) -> Bucket:
        """Raises Declined where this server's S3 settings are stock's alone, StoreUnusable where they can't work."""
        if bucket not in self._buckets:
            since, unusable = self._unusable.get(bucket, (0.0, None))
            if unusable is not None and time.monotonic() - since < PROBE_AGAIN_SECONDS:
                raise unusable  # to look for credentials takes up to two seconds
            try:
                self._buckets[bucket] = Bucket(*_clients(bucket, self._environment), self._uploads)
            except StoreUnusable as error:
                self._unusable[bucket] = time.monotonic(), error
                raise
        return self._buckets[bucket]


class Bucket:
    """A bucket, and whether it can be used from here: no wrong region, no missing credentials."""

    def __init__(
        self,
        client: Client,
        calls: Calls,
        credentials: Credentials,
        endpoint: str,
        authorities: str | None,
        uploads: asyncio.Semaphore,
    ) -> None:
        self.client, self.calls, self._credentials = client, calls, credentials
        self._endpoint, self._authorities = endpoint, authorities
        self.uploads = uploads
        self._usable = False
        self._probed = -PROBE_AGAIN_SECONDS

    async def probe(self) -> None:
        """Raises Declined when the bucket can't be looked at: a body once read can't be given to stock any more."""
        if self._usable:
            return
        if time.monotonic() - self._probed < PROBE_AGAIN_SECONDS:
            raise Declined("the bucket could not be looked at a moment ago")
        try:
            await obstore.head_async(self.client, ".headrace-is-there")
        except FileNotFoundError:
            pass
        except _FAILED as error:
            declined = await self.declined("the bucket can't be looked at", error)
            if not isinstance(declined, StoreUnusable):
                self._probed = time.monotonic()
                logger.warning("the bucket can't be used from here, so stock does: %s", " ".join(str(error).split()))
            raise declined from error
        self._usable = True

    async def declined(self, what: str, error: Exception) -> Declined:
        """What is left to stock; StoreUnusable where nobody takes a connection, or not one that stock would trust."""
        if self._credentials.failure:
            return _unusable(self._credentials.failure)
        if isinstance(error, exceptions.GenericError):
            parts = urlsplit(self._endpoint)
            if parts.scheme not in getproxies() or proxy_bypass(parts.hostname or ""):
                port = parts.port or (443 if parts.scheme == "https" else 80)
                trusted = ssl.create_default_context(cafile=self._authorities) if self._authorities else None
                try:
                    async with asyncio.timeout(_CONNECTION_SECONDS):
                        _, writer = await asyncio.open_connection(parts.hostname, port, ssl=trusted)
                    writer.close()
                except OSError as failure:  # TimeoutError, too
                    why = failure.strerror or type(failure).__name__
                    if isinstance(failure, ssl.SSLCertVerificationError):
                        why = f"{failure.verify_message}. Let AWS_CA_BUNDLE name a file with who signed its certificate"
                    logger.warning("S3 can't be reached at %s: %s", self._endpoint, why)
                    answer = Unavailable("The server can't reach its artifact store. Try again.")
                    return StoreUnusable(f"S3 can't be reached: {why}", answer)
        return Declined(f"{what}: {type(error).__name__}")


class S3Store:
    """The objects of a bucket below `prefix`, which has no slash at its end."""

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    def _key(self, path: str) -> str:
        """The object's key. Raises InvalidParameter for one that S3 does not take."""
        key = self._prefix + path
        if len(key.encode()) > _MOST_OF_KEY:
            raise InvalidParameter(
                f"The artifact's path {path[:60]!r}... makes a key of {len(key.encode())} bytes in the bucket; S3 "
                f"takes {_MOST_OF_KEY}. Use shorter names."
            )
        return key

    async def open(self, path: str) -> S3Download:
        try:
            result = await obstore.get_async(self._bucket.client, self._key(path))
        except FileNotFoundError as error:
            raise IsAFolder(path) if await self._is_a_folder(path) else no_artifact(path) from error
        except _FAILED as error:
            raise await self._bucket.declined("no object to read", error) from error
        return S3Download(self._bucket.client, self._key(path), result)

    async def create(self, path: str) -> S3Upload:
        await self._bucket.probe()
        return S3Upload(self._bucket, self._key(path))

    async def _is_a_folder(self, path: str) -> bool:
        """Whether objects are below it. Raises Declined where there is no bucket."""
        try:
            async for objects in obstore.list(self._bucket.client, self._key(path), chunk_size=1):
                return bool(objects)
        except _FAILED as error:
            raise await self._bucket.declined("no listing", error) from error
        return False

    async def list_folder(self, path: str) -> list[Entry]:
        folder = self._key(path).rstrip("/")
        try:
            found = await obstore.list_with_delimiter_async(self._bucket.client, folder or None)
        except _FAILED as error:
            raise await self._bucket.declined("no listing", error) from error
        start = len(self._prefix)
        folders = [Entry(name[start:], True) for name in found["common_prefixes"]]
        # an object of the folder's own name is the marker that S3's console makes
        files = [Entry(o["path"][start:], False, o["size"]) for o in found["objects"] if o["path"] != folder]
        return sorted(folders + files, key=lambda entry: entry.path)

    async def measure(self, path: str) -> Size:
        folder = self._key(path).rstrip("/")
        files = total = 0
        try:
            async for objects in obstore.list(self._bucket.client, folder or None, chunk_size=1000):
                files += len(objects)
                total += sum(each["size"] for each in objects)
        except _FAILED as error:
            raise await self._bucket.declined("no listing", error) from error
        return Size(files, total)

    async def delete(self, path: str) -> None:
        await self._bucket.calls.delete(self._key(path))

    async def begin_upload(self, path: str, count: int) -> tuple[str, list[str]]:
        return await self._bucket.calls.begin(self._key(path), count)

    async def complete_upload(self, path: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> None:
        await self._bucket.calls.complete(self._key(path), upload_id, parts)

    async def abort_upload(self, path: str, upload_id: str) -> None:
        await self._bucket.calls.abort(self._key(path), upload_id)

    async def sign_download(self, path: str, seconds: int, content_type: str | None = None) -> tuple[str, int]:
        return await self._bucket.calls.sign_download(self._key(path), seconds, content_type)

    async def sign_upload(self, path: str, seconds: int) -> tuple[str, dict[str, str]]:
        return await self._bucket.calls.sign_upload(self._key(path), seconds)


class S3Download:
    """See store.Download. The first read of the whole goes on with the answer that is there already."""

    def __init__(self, client: Client, key: str, result: obstore.GetResult) -> None:
        self._client, self._key = client, key
        self._whole: obstore.GetResult | None = result
        self.size = result.meta["size"]
        self.etag = result.meta["e_tag"] or ""
        self.modified = result.meta["last_modified"].timestamp()

    async def read(self, start: int, end: int) -> AsyncIterator[memoryview]:
        result, self._whole = self._whole, None
        try:
            if result is None or (start, end) != (0, self.size):
                result = await obstore.get_async(
                    self._client, self._key, options={"range": (start, end), "if_match": self.etag}
                )
            async for chunk in result.stream(min_chunk_size=READ_BYTES):
                yield memoryview(chunk)
                del chunk  # before the next one comes
        except exceptions.BaseError as error:
            raise OSError(f"S3 broke off: {error}") from error

    async def close(self) -> None:
        self._whole = None


class S3Upload:
    """See store.Upload: one request for a small object, otherwise a multipart upload, which is aborted on failure."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket, self._key = bucket, key

    async def write(self, chunks: AsyncIterator[bytes], size: int | None) -> None:
        async with self._bucket.uploads:
            try:
                await self._write(_Feed(chunks), _part_bytes(size))
            except _REFUSED as error:
                raise Forbidden("S3 does not let the server write there. Check its role's permissions.") from error
            except FileNotFoundError as error:  # the object is new: it is the bucket that is not there
                logger.warning("an upload to S3 failed: there is no such bucket. Look at --artifacts-destination")
                raise NotThere("The bucket of the server's artifacts does not exist.") from error
            except _FAILED as error:
                logger.warning("an upload to S3 failed: %s", error)
                raise Unavailable("S3 could not take the artifact; nothing of it was stored. Try again.") from error

    async def _write(self, feed: _Feed, part_bytes: int) -> None:
        first = await feed.up_to(part_bytes)
        content_type, encoding = guess_type(self._key)
        attributes: dict[str, str] = {}
        if content_type:
            attributes["Content-Type"] = content_type
        if encoding:
            attributes["Content-Encoding"] = encoding
        put = obstore.put_async(
            self._bucket.client,
            self._key,
            first if feed.ended else feed.after(first),
            attributes=attributes or None,
            use_multipart=not feed.ended,
            chunk_size=part_bytes,
            max_concurrency=max(1, UNDER_WAY_BYTES // part_bytes),
        )
        try:
            # Not cancelled with us: obstore aborts the upload when its source fails, but not when it is dropped.
            await asyncio.shield(put)
        except asyncio.CancelledError:
            feed.stop()
            raise
        except Exception:
            if feed.failure is not None:
                raise feed.failure from None
            raise


class _Feed:
    """The client's bytes on their way to obstore, and why they ended."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._stopped = False
        self.ended = False
        self.failure: Exception | None = None

    async def up_to(self, count: int) -> bytes:
        """The first bytes: all there are (then `ended` is set), or at least `count`."""
        parts, size = [], 0
        async for chunk in self._chunks:
            parts.append(chunk)
            size += len(chunk)
            if size >= count:
                return b"".join(parts)
        self.ended = True
        return b"".join(parts)

    async def after(self, first: bytes) -> AsyncIterator[bytes]:
        """`first` and then the rest."""
        yield first
        del first
        try:
            async for chunk in self._chunks:
                self._check()
                yield chunk
        except Exception as error:
            self.failure = error
            raise

    def stop(self) -> None:
        """Fail at the next bytes."""
        self._stopped = True

    def _check(self) -> None:
        if self._stopped:
            raise ConnectionAbortedError("the request was given up")


def _part_bytes(size: int | None) -> int:
    return UNSIZED_PART_BYTES if size is None else max(PART_BYTES, -(-size // MAX_PARTS))


class Credentials:
    """boto3's chain of credentials for obstore, which asks again within the last five minutes of what it has.

    obstore's own Boto3CredentialProvider keeps everything for half an hour, whatever its end: an instance role's
    credentials may have a few minutes left, and S3 then refuses every upload.
    """

    failure = ""  # why they could not be had the last time

    def __init__(self, session: Any) -> None:
        self._credentials = session.get_credentials()
        if self._credentials is None:
            raise ValueError("there are no AWS credentials")

    def __call__(self) -> S3Credential:
        try:
            found = self._credentials.get_frozen_credentials()
        except Exception as error:
            self.failure = str(error) or type(error).__name__
            raise
        self.failure = ""
        expires_at = datetime.now(UTC) + CREDENTIALS_KEPT
        # botocore tells nobody when they end. It renews them ten minutes before, if whoever gives them does.
        end: datetime | None = getattr(self._credentials, "_expiry_time", None)
        return {
            "access_key_id": found.access_key,
            "secret_access_key": found.secret_key,
            "token": found.token,
            "expires_at": expires_at if end is None else min(expires_at, end),
        }


def _unusable(why: object) -> StoreUnusable:
    """Stock, too, could only fail."""
    reason = " ".join(str(why).split()).rstrip(".")
    logger.warning(
        "S3 can't be used: %s. Look at the variables AWS_... and MLFLOW_S3_..., and at the AWS config files", reason
    )
    answer = Forbidden("The server can't use its artifact store as it is set up; its log says why.")
    return StoreUnusable(f"S3 can't be used: {reason}", answer)


def _clients(bucket: str, environment: Mapping[str, str]) -> tuple[Client, Calls, Credentials, str, str | None]:
    """With the endpoint, and the file of the authorities that its certificate is checked by; None: it is not."""
    # Imported here, because it takes 0.3 s and only S3 needs it.
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError
    from botocore.httpsession import get_cert_path
    from botocore.session import Session

    # with tracebacks; what can't be had is told by `_unusable`, in a line
    logging.getLogger("botocore.credentials").setLevel(logging.ERROR)
    session = Session()
    try:
        endpoint = environment.get("MLFLOW_S3_ENDPOINT_URL") or _endpoint(session, environment)
        region = session.get_config_variable("region") or "us-east-1"
        of_profile = [name for name in UNKNOWN_IN_FILE if session.get_config_variable(name)]
        of_profile += [name for name in session.get_config_variable("s3") or () if name not in _OF_THE_CLI]
        credentials = Credentials(session)
    except (BotoCoreError, ValueError) as error:  # a profile that is not there, a file that can't be read, no keys
        raise _unusable(error) from error
    if endpoint and (wrong := what_is_wrong(endpoint)):
        raise _unusable(f"the endpoint {endpoint!r} {wrong}")
    ignore_tls = environment.get("MLFLOW_S3_IGNORE_TLS", "").lower() in ("true", "1")
    unencrypted = bool(endpoint and endpoint.startswith("http:"))
    if unencrypted or ignore_tls:
        of_profile = [name for name in of_profile if name != "ca_bundle"]
    if unknown := [name for name in UNKNOWN if environment.get(name)] + of_profile:
        raise Declined(f"{', '.join(unknown)} is stock's to follow")
    style = environment.get("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE") or "auto"
    if style not in _STYLES:
        raise _unusable(f"MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE is {style!r}, but must be one of {', '.join(_STYLES)}")
    virtual = style == "virtual" or (style == "auto" and not endpoint and "." not in bucket)
    extra = _extra_arguments(environment)
    config: dict[str, Any] = {_ENCRYPTION[name]: value for name, value in extra.items()}
    if endpoint:
        url = urlsplit(endpoint)
        config["endpoint"] = f"{url.scheme}://{bucket}.{url.netloc}" if virtual else endpoint.rstrip("/")
    calls = Calls(
        bucket,
        session,
        {
            "config": Config(signature_version="s3v4", s3={"addressing_style": style}),
            "endpoint_url": environment.get("MLFLOW_S3_ENDPOINT_URL"),
            "verify": False if ignore_tls else None,
        },
        extra,
    )
    # No limit for a whole download: the client at the other end may be slow. One for a stall.
    options: ClientConfig = {"allow_http": True, "timeout": timedelta(days=7), "read_timeout": STALLED}
    if ignore_tls:
        options["allow_invalid_certificates"] = True
    try:
        client = Client(
            bucket,
            region=region,
            virtual_hosted_style_request=virtual,
            credential_provider=credentials,
            client_options=options,
            retry_config=RETRIES,
            **config,
        )
    except (exceptions.BaseError, BotoCoreError, ValueError, TypeError) as error:
        raise Declined(f"no client for S3: {error}") from error
    endpoint = endpoint or f"https://s3.{region}.amazonaws.com"
    checked = endpoint.startswith("https:") and not ignore_tls
    return client, calls, credentials, endpoint, get_cert_path(True) if checked else None


def _endpoint(session: Any, environment: Mapping[str, str]) -> str | None:
    """botocore's order: the variables, the profile's section of services, the profile."""
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    profile = session.get_scoped_config()
    services: Any = {}
    if name := profile.get("services"):
        services = session.full_config.get("services", {}).get(name)
        if services is None:
            raise Declined(f"the AWS config file has no services {name}")
    return (
        environment.get("AWS_ENDPOINT_URL_S3")
        or environment.get("AWS_ENDPOINT_URL")
        or services.get("s3", {}).get("endpoint_url")
        or profile.get("endpoint_url")
    )


def _extra_arguments(environment: Mapping[str, str]) -> dict[str, str]:
    """MLFLOW_S3_UPLOAD_EXTRA_ARGS, as far as it asks for encryption. Raises Declined for other arguments."""
    try:
        given: dict[str, str] = json.loads(environment.get("MLFLOW_S3_UPLOAD_EXTRA_ARGS") or "{}")
        unknown = given.keys() - _ENCRYPTION.keys()
    except (ValueError, AttributeError) as error:
        raise Declined("MLFLOW_S3_UPLOAD_EXTRA_ARGS is no JSON object") from error
    if unknown:
        raise Declined("MLFLOW_S3_UPLOAD_EXTRA_ARGS has arguments that stock knows")
    return given
