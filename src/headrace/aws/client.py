"""AWS: the only module that imports boto3, and that lazily. Its errors become AwsError here."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

from headrace.errors import AwsError

Answer = dict[str, Any]
_LOG_IN = "Log in again (`aws sso login`, or new keys with `aws configure`), and run the command once more."
_NOT_KNOWN = (
    _LOG_IN + " Where other regions take the same credentials, this one is not switched on for the account, or, of a "
    "region that must be, the tokens come from STS's global endpoint: set AWS_STS_REGIONAL_ENDPOINTS=regional."
)
_WRONG_KEY = "The secret key does not belong to the access key: set both anew with `aws configure`."
_WAIT = "AWS asks for fewer calls. Wait a minute and run the command again: it continues."
_SWITCH_ON = "Switch the region on for this account in the AWS console, or take another with --region."
POLICY = "`headrace aws export deployer-policy` and `deployer-policy-2` print the IAM policies of who deploys."
# what to do next, by AWS's error code; each service has words of its own for the same
_NEXT = {
    **dict.fromkeys(("ExpiredToken", "ExpiredTokenException", "RequestExpired", "UnauthorizedException"), _LOG_IN),
    **dict.fromkeys(
        ("InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "AuthFailure"), _NOT_KNOWN
    ),
    **dict.fromkeys(("SignatureDoesNotMatch", "InvalidSignatureException"), _WRONG_KEY),
    **dict.fromkeys(
        (
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "RequestThrottled",
            "RequestLimitExceeded",
            "TooManyRequestsException",
            "PriorRequestNotComplete",
            "SlowDown",
        ),
        _WAIT,
    ),
    "OptInRequired": _SWITCH_ON,
}
_SKEW = 240  # seconds by which a clock may differ: AWS takes no more than five minutes
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError", "ForbiddenException"}
REFUSES_THE_CALLER = {*DENIED, *(code for code, instead in _NEXT.items() if instead in (_LOG_IN, _NOT_KNOWN))}
"""Codes of errors that the same credentials would get again."""
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
_ONLY_IN = {"pricing": "us-east-1"}  # the list of prices of all regions is in three of them
# what botocore asks of other services while it looks for credentials, whatever was called
_CREDENTIALS = {"AssumeRole": "sts", "AssumeRoleWithWebIdentity": "sts", "GetRoleCredentials": "sso"}


class Cloud:
    """One AWS account in one region, in the `partition` that the region's ARNs begin with.

    Raises AwsError when there is no region, none that the templates fit, or no such profile; credentials are looked for
    at the first call.
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
        self.partition = _partition(self._session, self.region)
        self.profile = profile
        self.endpoint_url = endpoint_url
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """boto3's client of a service; tests stub it."""
        if service not in self._clients:
            from botocore.config import Config

            self._clients[service] = self._session.client(
                service,
                region_name=_ONLY_IN.get(service),
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

    def environment(self) -> dict[str, str]:
        """For AWS's own tools that are started here: they mean the same account and region.

        With them keys in variables win over AWS_PROFILE, which --profile must not lose to, and AWS_REGION over
        AWS_DEFAULT_REGION (https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-envvars.html).
        """
        given = {name: value for name, value in os.environ.items() if not (self.profile and name in _KEYS)}
        given |= {"AWS_REGION": self.region, "AWS_DEFAULT_REGION": self.region}
        if self.profile:
            given["AWS_PROFILE"] = self.profile
        if self.endpoint_url:
            given["AWS_ENDPOINT_URL"] = self.endpoint_url
        return given

    def account(self) -> str:
        """The account's number."""
        return str(self.call("sts", "get_caller_identity")["Account"])

    def _refused(self, service: str, error: Any) -> AwsError:
        code = error.response.get("Error", {}).get("Code", "")
        message = error.response.get("Error", {}).get("Message", str(error))
        operation = error.operation_name
        action = f"{_CREDENTIALS.get(operation, service)}:{operation}"
        instead = _NEXT.get(code, "")
        if code in DENIED:
            instead = f"Ask for the permission {action}. {POLICY}"
            if operation in _CREDENTIALS:
                instead = (
                    f"The credentials{f' of the profile {self.profile}' if self.profile else ''} lead to a role that "
                    "may not be taken: look at role_arn, source_profile and mfa_serial (`aws configure list`), at the "
                    "role's trust policy, or at what Identity Center assigns to you."
                )
        if wrong := _clock(error.response):
            instead = wrong
        return AwsError(f"AWS refused {action} in {self.region} ({code}): {message}\n{instead}".rstrip(), code)

    def _failed(self, service: str, operation: str, error: Exception) -> AwsError:
        import botocore.exceptions as wrong
        from botocore.parsers import ResponseParserError

        if isinstance(error, (wrong.NoCredentialsError, wrong.PartialCredentialsError)):
            text = (
                "There are no AWS credentials here. Run `aws configure` or `aws sso login`, set AWS_PROFILE or "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --profile."
            )
        elif isinstance(
            error,
            (
                wrong.SSOError,
                getattr(wrong, "LoginError", wrong.SSOError),  # of `aws login`, since botocore 1.41
                wrong.TokenRetrievalError,
                wrong.NoAuthTokenError,
                wrong.CredentialRetrievalError,
            ),
        ):
            text = f"AWS credentials could not be had: {error}.\n{_LOG_IN}"
        elif isinstance(error, (wrong.InvalidConfigError, wrong.InfiniteLoopConfigError, wrong.UnknownCredentialError)):
            text = f"The AWS profile can't be used: {error}.\nPut it right in ~/.aws/config, or give another --profile."
        elif isinstance(error, wrong.SSLError):
            text = (
                f"The certificate of what answers for AWS is not trusted: {error}.\nWhere a proxy looks into TLS, set "
                "AWS_CA_BUNDLE to the file of its certificates."
            )
        elif isinstance(error, (wrong.HTTPClientError, wrong.ConnectionError)):
            text = f"AWS can't be reached: {error}.\nLook at the network, --region ({self.region}) and --endpoint-url."
        elif isinstance(error, ResponseParserError):
            text = f"What answered {service} {operation} is not AWS. Look at --endpoint-url and at proxies on the way."
        else:
            text = f"{service} {operation} in {self.region} failed: {error}"
        return AwsError(text, type(error).__name__)


def _partition(session: Any, region: str) -> str:
    """Raises AwsError in those that Headrace's templates do not fit, and for what is no region."""
    from botocore.exceptions import BotoCoreError

    try:
        partition: str = session.get_partition_for_region(region)
    except BotoCoreError:
        raise AwsError(f"{region} is no region of AWS. Give --region us-east-1, say.") from None
    if partition not in ("aws", "aws-us-gov"):
        raise AwsError(
            f"{region} is in the partition {partition}, whose services have other names: headrace aws works "
            "in aws and aws-us-gov. Take another --region, or deploy the container by hand (docs/container.md)."
        )
    return partition


def _clock(answer: Answer) -> str:
    """What to do about this machine's clock, by the date of a refusal; empty where that is right.

    Each service has another word for a signature of another time, EC2 that for wrong keys
    (https://github.com/aws/aws-sdk-java/issues/519).
    """
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if date is None or answer["ResponseMetadata"].get("HTTPStatusCode") not in (400, 401, 403):
        return ""
    try:
        behind = parsedate_to_datetime(date).timestamp() - time.time()
    except ValueError:
        return ""
    if abs(behind) < _SKEW:
        return ""
    way = "behind" if behind > 0 else "ahead of"
    return f"This machine's clock is {abs(behind):.0f} s {way} AWS's, which refuses that: set it, and run it once more."


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
