"""AWS: the only module that imports boto3, and that lazily. Its errors become AwsError here."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from headrace.errors import AwsError

Answer = dict[str, Any]
_LOG_IN = "Log in again (`aws sso login`, or new keys with `aws configure`), and run the command once more."
POLICY = "`headrace aws export deployer-policy` and `deployer-policy-2` print the IAM policies of who deploys."
# what to do next, by AWS's error code
_NEXT = {
    "ExpiredToken": _LOG_IN,
    "ExpiredTokenException": _LOG_IN,
    "InvalidClientTokenId": _LOG_IN,
    "UnrecognizedClientException": _LOG_IN,
    "SignatureDoesNotMatch": "The secret key does not belong to the access key: set both anew with `aws configure`.",
    "Throttling": "AWS asks for fewer calls. Wait a minute and run the command again: it continues.",
    "ThrottlingException": "AWS asks for fewer calls. Wait a minute and run the command again: it continues.",
    "RequestLimitExceeded": "AWS asks for fewer calls. Wait a minute and run the command again: it continues.",
    "OptInRequired": "Switch the region on for this account in the AWS console, or take another with --region.",
}
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"}
REFUSES_THE_CALLER = {*_DENIED, *(code for code, instead in _NEXT.items() if instead is _LOG_IN)}
"""Codes of errors that the same credentials would get again."""


class Cloud:
    """One AWS account in one region.

    Raises AwsError when there is no region, or no such profile; credentials are looked for at the first call.
    """

    def __init__(self, region: str | None = None, profile: str | None = None, endpoint_url: str | None = None) -> None:
        import boto3
        from botocore.exceptions import BotoCoreError

        try:
            # boto3 reads AWS_DEFAULT_REGION only; the AWS CLI, and so everybody, AWS_REGION, too
            region = region or os.environ.get("AWS_REGION")
            self._session = boto3.Session(profile_name=profile, region_name=region)
        except BotoCoreError as error:
            raise AwsError(
                f"The AWS profile can't be used: {error}. `aws configure list-profiles` shows them."
            ) from None
        if not self._session.region_name:
            raise AwsError(
                "No AWS region is set. Give --region, or set AWS_REGION or a region in the profile (`aws configure`)."
            )
        self.region: str = self._session.region_name
        self.profile = profile
        self.endpoint_url = endpoint_url
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """boto3's client of a service; tests stub it."""
        if service not in self._clients:
            from botocore.config import Config

            self._clients[service] = self._session.client(
                service,
                endpoint_url=self.endpoint_url,
                config=Config(retries={"mode": "standard", "max_attempts": 8}, user_agent_extra="headrace"),
            )
        return self._clients[service]

    def call(self, service: str, operation: str, **arguments: Any) -> Answer:
        """One operation in boto3's words (`call("sts", "get_caller_identity")`).

        Raises AwsError, whose `code` is AWS's. Throttled calls and lost connections are tried again before.
        """
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        try:
            answer: Answer = getattr(self.client(service), operation)(**arguments)
        except ClientError as error:
            raise self._refused(service, error) from None
        except (BotoCoreError, ResponseParserError) as error:
            raise self._failed(service, operation, error) from None
        return answer

    def pages(self, service: str, operation: str, key: str, **arguments: Any) -> Iterator[Any]:
        """The items below `key` of all pages of an operation."""
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        try:
            for page in self.client(service).get_paginator(operation).paginate(**arguments):
                yield from page.get(key, [])
        except ClientError as error:
            raise self._refused(service, error) from None
        except (BotoCoreError, ResponseParserError) as error:
            raise self._failed(service, operation, error) from None

    def parameter(self, name: str) -> str | None:
        """The value of a parameter in SSM, None where there is none; that of a SecureString stays encrypted."""
        try:
            return str(self.call("ssm", "get_parameter", Name=name)["Parameter"]["Value"])
        except AwsError as error:
            if error.code != "ParameterNotFound":
                raise
            return None

    def secret(self, name: str) -> str | None:
        """The value of a SecureString, None where there is none."""
        try:
            return str(self.call("ssm", "get_parameter", Name=name, WithDecryption=True)["Parameter"]["Value"])
        except AwsError as error:
            if error.code != "ParameterNotFound":
                raise
            return None

    def put_secret(self, name: str, value: str, key: str) -> None:
        """Keep a SecureString, encrypted with a KMS key, in the place of what was kept before."""
        kept = {"Name": name, "Type": "SecureString", "KeyId": key, "Value": value, "Overwrite": True}
        self.call("ssm", "put_parameter", **kept)

    def database_token(self, host: str, port: int, user: str) -> str:
        """A token of IAM, good for connections of the next quarter of an hour; AWS is not asked."""
        from botocore.exceptions import BotoCoreError

        try:
            return str(self.client("rds").generate_db_auth_token(host, port, user))
        except BotoCoreError as error:
            raise self._failed("rds", "generate_db_auth_token", error) from None

    def put_parameter(self, name: str, value: str, description: str) -> None:
        """Keep a text in SSM, in the place of what was kept before."""
        kept = {"Name": name, "Description": description, "Type": "String", "Value": value, "Overwrite": True}
        self.call("ssm", "put_parameter", **kept)

    def drop_parameter(self, name: str) -> None:
        """Delete a parameter of SSM; nothing happens where there is none."""
        with passing_over("ParameterNotFound"):
            self.call("ssm", "delete_parameter", Name=name)

    @property
    def partition(self) -> str:
        """The first word of the region's ARNs. Raises AwsError in those that Headrace's templates do not fit."""
        partition: str = self._session.get_partition_for_region(self.region)
        if partition not in ("aws", "aws-us-gov"):
            raise AwsError(
                f"{self.region} is in the partition {partition}, whose services have other names: headrace aws works "
                "in aws and aws-us-gov. Take another --region, or deploy the container by hand (docs/container.md)."
            )
        return partition

    def account(self) -> str:
        """The account's number."""
        return str(self.call("sts", "get_caller_identity")["Account"])

    def _refused(self, service: str, error: Any) -> AwsError:
        code = error.response.get("Error", {}).get("Code", "")
        message = error.response.get("Error", {}).get("Message", str(error))
        action = f"{service}:{error.operation_name}"
        instead = _NEXT.get(code, "")
        if code in _DENIED:
            instead = f"Ask for the permission {action}. {POLICY}"
        return AwsError(f"AWS refused {action} in {self.region} ({code}): {message}\n{instead}".rstrip(), code)

    def _failed(self, service: str, operation: str, error: Exception) -> AwsError:
        kind = type(error).__name__
        if kind in ("NoCredentialsError", "PartialCredentialsError"):
            text = (
                "There are no AWS credentials here. Run `aws configure` or `aws sso login`, set AWS_PROFILE or "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --profile."
            )
        elif kind in (
            "TokenRetrievalError",
            "SSOTokenLoadError",
            "UnauthorizedSSOTokenError",
            "CredentialRetrievalError",
        ):
            text = f"AWS credentials could not be had: {error}.\n{_LOG_IN}"
        elif kind in ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError"):
            text = f"AWS can't be reached: {error}.\nLook at the network, --region ({self.region}) and --endpoint-url."
        elif kind == "ResponseParserError":
            text = f"What answered {service} {operation} is not AWS. Look at --endpoint-url and at proxies on the way."
        else:
            text = f"{service} {operation} in {self.region} failed: {error}"
        return AwsError(text, kind)


@contextmanager
def passing_over(*codes: str) -> Iterator[None]:
    """Where AWS refuses with one of these codes the block ends, and all is well: what it is for was done before."""
    try:
        yield
    except AwsError as error:
        if error.code not in codes:
            raise


def polling(first: float = 0.5, longest: float = 5.0) -> Iterator[None]:
    """For loops that wait for AWS: a step at once, then pauses (seconds) that grow."""
    pause = first
    while True:
        yield
        time.sleep(pause)
        pause = min(pause * 1.5, longest)
