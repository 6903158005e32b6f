"""Tokens of IAM with which a role logs in at RDS in the place of a password: signed here, nothing is asked of AWS.

A token begins a connection within 15 minutes; the connection lives on
(https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html). It is what `aws rds
generate-db-auth-token` prints: a request for `connect` of the service rds-db, signed in its query. That needs
botocore, but not its model of RDS.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from headrace.errors import ConfigurationError

SECONDS = 900  # for which a token is good
_SCHEME = "https://"


def make(host: str, port: int, user: str, environment: Mapping[str, str]) -> str:
    """A token for a role at an instance's own address, whatever leads there.

    Region and credentials are found as every AWS client finds them. Raises ConfigurationError where there are none.
    """
    import botocore.exceptions as wrong
    import botocore.session
    from botocore.model import ServiceId
    from botocore.signers import RequestSigner

    session = botocore.session.Session()
    what = f"No token of IAM could be made for the role {user} at {host}"
    if not (region := session.get_config_variable("region") or environment.get("AWS_REGION")):
        raise ConfigurationError(f"{what}: no region is set. Set AWS_DEFAULT_REGION.")
    try:
        credentials = session.get_credentials()
        if credentials is None:
            raise wrong.NoCredentialsError
        signer = RequestSigner(
            ServiceId("RDS"), region, "rds", "v4", credentials, session.get_component("event_emitter")
        )
        query = urlencode({"Action": "connect", "DBUser": user})
        request = {"method": "GET", "url": f"{_SCHEME}{host}:{port}/?{query}", "body": {}, "headers": {}, "context": {}}
        url: str = signer.generate_presigned_url(
            request, operation_name="connect", region_name=region, expires_in=SECONDS, signing_name="rds-db"
        )
    except (wrong.BotoCoreError, ValueError) as error:
        raise ConfigurationError(
            f"{what}: {error}. On EC2, give the instance a role that may rds-db:connect, and its metadata service a "
            "hop limit of 2, which a container needs; elsewhere set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        ) from None
    return url.removeprefix(_SCHEME)
