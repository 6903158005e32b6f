"""Endpoints for clients that send and fetch artifacts by themselves, over URLs that this server signs.

A handler gives an answer's JSON; it raises Declined before it has had any effect, and ApiError. Errors in what S3 says
are answered here where stock has only a 500. Source: mlflow/server/handlers.py, `_create_multipart_upload_artifact` and
those after it, `_create_presigned_upload_url`, `_create_presigned_download_url`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated

from msgspec import Meta

from headrace.api.message import Int64, Message, Reader
from headrace.artifacts.locations import Locations
from headrace.artifacts.paths import plain, safe
from headrace.artifacts.store import ArtifactStore, NotThere, Refused, SigningStore
from headrace.asgi.types import Scope
from headrace.errors import ApiError, Declined, InvalidParameter, NotServed

# (the body, the scope) -> JSON
JsonHandler = Callable[[bytes, Scope], Awaitable[object]]

MOST_PARTS = 10_000  # S3's
UPLOAD_SECONDS = 900  # stock's default
MOST_SECONDS = 604_800  # S3's


class CreateMultipartUpload(Message):
    """`path`: of the client's file; only its name counts."""

    path: str
    num_parts: Annotated[int, Meta(ge=1, le=2**31)]


class MultipartUploadPart(Message):
    part_number: Annotated[int, Meta(ge=1, le=MOST_PARTS)]
    etag: str
    url: str = ""


class CompleteMultipartUpload(Message):
    path: str
    upload_id: str
    parts: Annotated[list[MultipartUploadPart], Meta(min_length=1)]


class AbortMultipartUpload(Message):
    path: str
    upload_id: str


class CreatePresignedUploadUrl(Message):
    """`CreatePresignedUploadUrl`, of a run or of a logged model."""

    path: str
    run_id: str = ""
    model_id: str = ""
    expiration: Int64 | None = None


class CreatePresignedDownloadUrl(Message):
    """`CreatePresignedDownloadUrl`."""

    run_id: str
    path: str
    expiration: Int64 | None = None


_CREATE = Reader(CreateMultipartUpload)
_COMPLETE = Reader(CompleteMultipartUpload)
_ABORT = Reader(AbortMultipartUpload)
_PRESIGN_UPLOAD = Reader(CreatePresignedUploadUrl)
_PRESIGN_DOWNLOAD = Reader(CreatePresignedDownloadUrl)


class Direct:
    """The endpoints of one server.

    `run_uri`, `model_uri`: where a run's, a logged model's artifacts are, or Declined. `in_workspace`: where a
    client's path is. `closed`: each answers that there is no direct way.
    """

    def __init__(
        self,
        prefix: str,
        locations: Locations,
        run_uri: Callable[[str], Awaitable[str]],
        model_uri: Callable[[str], Awaitable[str]],
        in_workspace: Callable[[str, Scope], Awaitable[str]],
        environment: Mapping[str, str],
        closed: bool = False,
    ) -> None:
        self._locations, self._run_uri, self._model_uri = locations, run_uri, model_uri
        self._in_workspace = in_workspace
        self._closed = closed
        self._ttl = environment.get("MLFLOW_PRESIGNED_DOWNLOAD_URL_TTL_SECONDS") or "300"
        apis = [f"{prefix}/{api}/2.0" for api in ("api", "ajax-api")]
        self._exact: dict[tuple[str, str], JsonHandler] = {
            ("POST", f"{api}/mlflow/artifacts/presigned-{what}-url"): handler
            for api in apis
            for what, handler in (("upload", self._presign_upload), ("download", self._presign_download))
        }
        self._folders: dict[tuple[str, str], Callable[[str, bytes, Scope], Awaitable[object]]] = {
            (method, f"{api}/mlflow-artifacts/{folder}/"): handler
            for api in apis
            for method, folder, handler in (
                ("POST", "mpu/create", self._create),
                ("POST", "mpu/complete", self._complete),
                ("POST", "mpu/abort", self._abort),
                ("GET", "presigned", self._presigned),
            )
        }

    def find(self, method: str, path: str) -> JsonHandler | None:
        """What answers such a request; None: not these endpoints."""
        if exact := self._exact.get((method, path)):
            return self._refuse if self._closed else exact
        for (wanted, folder), handler in self._folders.items():
            if method == wanted and path.startswith(folder):
                return self._refuse if self._closed else partial(handler, path[len(folder) :])
        return None

    async def _refuse(self, body: bytes, scope: Scope) -> object:
        raise NotServed("Artifacts pass through this server alone (--artifact-transfer always-proxy).")

    @property
    def seconds(self) -> int:
        """How long a download's URL is good. Raises Declined for what stock shall complain of."""
        if not self._ttl.isdecimal() or not 1 <= int(self._ttl) <= MOST_SECONDS:
            raise Declined("MLFLOW_PRESIGNED_DOWNLOAD_URL_TTL_SECONDS")
        return int(self._ttl)

    async def _create(self, folder: str, body: bytes, scope: Scope) -> object:
        """POST mlflow-artifacts/mpu/create/FOLDER."""
        wanted = _CREATE.body(body)
        bucket, path = await self._target(folder, wanted.path, scope)
        if wanted.num_parts > MOST_PARTS:
            raise Refused(
                f"num_parts is {wanted.num_parts}, but S3 takes at most {MOST_PARTS} parts: send larger ones."
            )
        upload_id, urls = await bucket.begin_upload(path, wanted.num_parts)
        credentials = [{"url": url, "part_number": number} for number, url in enumerate(urls, 1)]
        return {"upload_id": upload_id, "credentials": credentials}

    async def _complete(self, folder: str, body: bytes, scope: Scope) -> object:
        """POST mlflow-artifacts/mpu/complete/FOLDER."""
        wanted = _COMPLETE.body(body)
        bucket, path = await self._target(folder, wanted.path, scope)
        await bucket.complete_upload(path, wanted.upload_id, [(part.part_number, part.etag) for part in wanted.parts])
        return b"{}"

    async def _abort(self, folder: str, body: bytes, scope: Scope) -> object:
        """POST mlflow-artifacts/mpu/abort/FOLDER."""
        wanted = _ABORT.body(body)
        bucket, path = await self._target(folder, wanted.path, scope)
        await bucket.abort_upload(path, wanted.upload_id)
        return b"{}"

    async def _presigned(self, path: str, body: bytes, scope: Scope) -> object:
        """GET mlflow-artifacts/presigned/PATH."""
        if body or scope["query_string"]:
            raise Declined("a GET with a body or a query")
        path = await self._in_workspace(safe(path), scope)
        bucket = _signing(self._locations.destination(), "Multipart download")
        url, size = await self._signed(bucket, path, self.seconds)
        return {"url": url, "headers": {}, "file_size": size}

    async def _presign_upload(self, body: bytes, scope: Scope) -> object:
        """POST artifacts/presigned-upload-url."""
        wanted = _PRESIGN_UPLOAD.body(body)
        if bool(wanted.run_id) == bool(wanted.model_id):
            raise InvalidParameter("Exactly one of run_id and model_id must be provided.")
        path = safe(wanted.path)
        uri = await (self._run_uri(wanted.run_id) if wanted.run_id else self._model_uri(wanted.model_id))
        bucket, path = self._of_its_own(uri, path, "upload", "", "")
        expiration = UPLOAD_SECONDS if wanted.expiration is None else int(wanted.expiration)
        url, headers = await bucket.sign_upload(path, expiration)
        return {"presigned_url": url, "headers": headers}

    async def _presign_download(self, body: bytes, scope: Scope) -> object:
        """POST artifacts/presigned-download-url."""
        wanted = _PRESIGN_DOWNLOAD.body(body)
        path = safe(wanted.path)
        seconds = self.seconds if wanted.expiration is None else int(wanted.expiration)
        if not 1 <= seconds <= MOST_SECONDS:
            raise InvalidParameter(f"expiration must be between 1 and {MOST_SECONDS} seconds (got {seconds}).")
        uri = await self._run_uri(wanted.run_id)
        bucket, path = self._of_its_own(uri, path, "download", "runs with ", "run with a ")
        url, size = await self._signed(bucket, path, seconds)
        return {"presigned_url": url, "file_size": size}

    async def _target(self, folder: str, file: str, scope: Scope) -> tuple[SigningStore, str]:
        """Where a client's file goes: to its name in the folder, however the rest of its path reads."""
        folder = await self._in_workspace(safe(folder), scope)
        bucket = _signing(self._locations.destination(), "Multipart upload")
        return bucket, f"{folder}/{plain(file.rsplit('/', 1)[-1])}"

    def _of_its_own(self, uri: str, path: str, what: str, runs: str, run: str) -> tuple[SigningStore, str]:
        """The bucket of artifacts at this URI, and where in it their `path` is. Raises Declined, and ApiError."""
        if uri.startswith("mlflow-artifacts:"):
            raise InvalidParameter(
                f"Presigned {what} is not supported for {runs}proxied artifact storage (artifact URI scheme: "
                f"mlflow-artifacts). This endpoint requires a {run}direct cloud storage artifact URI."
            )
        store, root = self._locations.find(uri)
        return _signing(store, f"Presigned {what}"), f"{root}/{path}" if root else path

    async def _signed(self, bucket: SigningStore, path: str, seconds: int) -> tuple[str, int]:
        """A download's URL. What S3 has against it, but that there is nothing, stock says."""
        try:
            return await bucket.sign_download(path, seconds)
        except NotThere as error:
            raise NotThere("Not Found") from error
        except ApiError as error:
            raise Declined(f"no URL: {error}") from error


def _signing(store: ArtifactStore, what: str) -> SigningStore:
    """Raises NotServed for one that can't: MLflow's client goes by its words, and sends the file itself."""
    if not isinstance(store, SigningStore):
        raise NotServed(f"{what} is not supported for the current artifact repository")
    return store
