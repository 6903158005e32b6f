"""S3 calls that obstore has not got, by botocore, as stock makes them: signed URLs, a client's own multipart uploads,
and deleting. The client is made at the first one, which takes 0.3 s and some memory; each call runs in a thread.

Source: mlflow/store/artifact/s3_artifact_repo.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from mimetypes import guess_type
from typing import Any, TypeVar
from urllib.parse import quote

from headrace.artifacts.store import NotThere, Refused
from headrace.errors import ApiError, Forbidden, Unavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

# The headers that a client must send with a signed upload (stock's _S3_PARAM_TO_HEADER, what s3.py takes of it).
_HEADERS = {
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
}


class Calls:
    """The calls on one bucket. Each raises Forbidden, NotThere, Refused and Unavailable.

    `session`: botocore's, whose credentials the rest of s3.py uses, too; `extra`: MLFLOW_S3_UPLOAD_EXTRA_ARGS.
    """

    def __init__(self, bucket: str, session: Any, options: Mapping[str, Any], extra: Mapping[str, str]) -> None:
        self._bucket, self._session, self._options, self._extra = bucket, session, options, extra

    @cached_property
    def _client(self) -> Any:
        return self._session.create_client("s3", **self._options)

    async def begin(self, key: str, count: int) -> tuple[str, list[str]]:
        """A new multipart upload: its id, and a URL for a PUT of each of its parts."""

        def call() -> tuple[str, list[str]]:
            upload_id = self._client.create_multipart_upload(Bucket=self._bucket, Key=key, **self._extra)["UploadId"]
            part = {"Bucket": self._bucket, "Key": key, "UploadId": upload_id}
            return upload_id, [self._sign("upload_part", 3600, **part, PartNumber=n) for n in range(1, count + 1)]

        return await _done(call)

    async def complete(self, key: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> None:
        """`parts`: number and ETag of each, in order."""
        sent = {"Parts": [{"PartNumber": number, "ETag": etag} for number, etag in parts]}
        await _done(
            lambda: self._client.complete_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload=sent
            )
        )

    async def abort(self, key: str, upload_id: str) -> None:
        await _done(lambda: self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id))

    async def sign_download(self, key: str, seconds: int, content_type: str | None = None) -> tuple[str, int]:
        """A URL for a GET of the object as an attachment, and its size in bytes."""
        disposition = {"ResponseContentDisposition": _attachment(key.rsplit("/", 1)[-1])}
        if content_type is not None:
            disposition["ResponseContentType"] = content_type

        def call() -> tuple[str, int]:
            size: int = self._client.head_object(Bucket=self._bucket, Key=key)["ContentLength"]
            return self._sign("get_object", seconds, Bucket=self._bucket, Key=key, **disposition), size

        return await _done(call)

    async def sign_upload(self, key: str, seconds: int) -> tuple[str, dict[str, str]]:
        """A URL for a PUT of the object, and the headers to send with it."""
        content_type = guess_type(key)[0] or "application/octet-stream"
        wanted = {"Bucket": self._bucket, "Key": key, "ContentType": content_type, **self._extra}
        headers = {"Content-Type": content_type} | {_HEADERS[name]: value for name, value in self._extra.items()}
        return await _done(lambda: self._sign("put_object", seconds, **wanted)), headers

    async def delete(self, path: str) -> None:
        """The object of that key, and every one below it. One that is not there is no error."""

        def call() -> None:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=path)
            for page in pages:
                keys = [
                    o["Key"] for o in page.get("Contents", []) if o["Key"] == path or o["Key"].startswith(f"{path}/")
                ]
                if keys:
                    self._delete(keys)

        await _done(call)

    def _delete(self, keys: Sequence[str]) -> None:
        objects = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        if errors := self._client.delete_objects(Bucket=self._bucket, Delete=objects).get("Errors"):
            raise Forbidden(f"S3 did not delete {errors[0].get('Key')}: {errors[0].get('Message')}")

    def _sign(self, what: str, seconds: int, **parameters: Any) -> str:
        url: str = self._client.generate_presigned_url(what, Params=parameters, ExpiresIn=seconds)
        return url


async def _done(call: Callable[[], T]) -> T:
    """What it returns, from a thread; botocore's errors as ours."""
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

    try:
        return await asyncio.get_running_loop().run_in_executor(None, call)
    except ClientError as error:
        raise _translated(error.response) from error
    except ParamValidationError as error:
        raise Refused(f"S3 does not take that: {error}") from error
    except BotoCoreError as error:
        logger.warning("a call to S3 failed: %s", error)
        raise Unavailable("S3 can't be reached, or not with the server's credentials. Try again.") from error


def _translated(response: Mapping[str, Any]) -> ApiError:
    """Source for the codes: stock's BOTO_TO_MLFLOW_ERROR."""
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    said = response.get("Error", {})
    text = f"S3 says: {said.get('Message') or said.get('Code')}."
    if status in (401, 403):
        return Forbidden(f"{text} Check the permissions of the server's role.")
    if status == 404:
        return NotThere(text)
    return Refused(text) if 400 <= status < 500 and status not in (408, 429) else Unavailable(f"{text} Try again.")


def _attachment(name: str) -> str:
    """Stock's _attachment_content_disposition."""
    if not name.isascii() or not name.isprintable():
        return f"attachment; filename*=UTF-8''{quote(name)}"
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'attachment; filename="{escaped}"'
