"""Parameters of AWS Systems Manager below a prefix such as /mlflow, in place of the container's variables.

The names are those of the project's first deployment: /mlflow/DB_HOST, /mlflow/DB_USER, /mlflow/DB_PASS, ... A secret
that the server fetches by itself is not in `docker inspect`, in an argument or in an instance's user data.

This is the server's only importer of botocore for SSM, and only where a prefix is set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from headrace.errors import ConfigurationError

# parameter -> the variable that it stands for
PARAMETERS = {
    "DB_HOST": "HOST",
    "DB_USER": "USERNAME",
    "DB_PASS": "PASSWORD",
    "DB_AUTH": "HEADRACE_DB_AUTH",
    "DB_PORT": "PORT",
    "DB_NAME": "DATABASE",
    "BUCKET": "BUCKET",
    "ADMIN_TOKEN": "HEADRACE_ADMIN_TOKEN",
}
OLD = "_OLD"
"""How a secret's name ends that is valid beside the new one, while `headrace aws rotate` replaces it."""
_SECRETS = ("DB_PASS", "ADMIN_TOKEN")
LIVE = (*(f"{name}{ending}" for name in _SECRETS for ending in ("", OLD)), "DB_AUTH")
"""What may change under a running server."""
SETTINGS = "settings"
"""The folder below the prefix that has settings of the server: /mlflow/settings/grants."""
_AT_ONCE = 10  # names in one call
_NEEDED = ("DB_HOST", "DB_USER", "DB_PASS")
_DEFAULTS = {"PORT": "5432", "DATABASE": "mlflow"}
_SECONDS = 10  # to connect, and to wait for an answer


def read(prefix: str, environment: Mapping[str, str], settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """The container's variables (HOST, USERNAME, PASSWORD, PORT, DATABASE, ...) that the parameters hold.

    With `settings` (a setting's name -> its environment variable) those below PREFIX/settings, too.

    Region, credentials and endpoint (AWS_ENDPOINT_URL) are found as every AWS client finds them. Raises
    ConfigurationError: no region, no credentials, no permission, no connection, a parameter missing; each with its fix.
    """
    prefix = _normal(prefix)
    names = {f"{prefix}/{name}": variable for name, variable in PARAMETERS.items()}
    names |= {f"{prefix}/{SETTINGS}/{name}": variable for name, variable in (settings or {}).items()}
    values: dict[str, str] = {}
    with _client(prefix, environment, "ssm:GetParameters and kms:Decrypt") as client:
        # by their names: GetParametersByPath would be one more permission
        asked = list(names)
        for start in range(0, len(asked), _AT_ONCE):
            answer = client.get_parameters(Names=asked[start : start + _AT_ONCE], WithDecryption=True)
            values |= {names[found["Name"]]: str(found["Value"]) for found in answer["Parameters"]}
    needed = set(_NEEDED)
    if (values.get("HEADRACE_DB_AUTH") or environment.get("HEADRACE_DB_AUTH")) == "iam":
        needed.remove("DB_PASS")
        values.pop("PASSWORD", None)
    if missing := [f"{prefix}/{name}" for name in _NEEDED if name in needed and not values.get(PARAMETERS[name])]:
        region = client.meta.region_name
        raise ConfigurationError(
            f"SSM in {region} has no parameter {', '.join(missing)} (the prefix {prefix} is that of --ssm-prefix or "
            f"HEADRACE_SSM_PREFIX).\nMake it: aws ssm put-parameter --region {region} --name {missing[-1]} --type "
            f"{'SecureString' if missing[-1].endswith('PASS') else 'String'} --value ..."
        )
    if "BUCKET" in values and "://" not in values["BUCKET"]:
        values["BUCKET"] = f"s3://{values['BUCKET']}/"
    return _DEFAULTS | values


class Secrets(NamedTuple):
    """The secrets that may change under a running server, the newest of each first.

    `db_auth` is how it logs in at the database, empty where no parameter says it. `revision` tells them from others
    without telling them: the parameters' versions.
    """

    passwords: tuple[str, ...]
    admin_tokens: tuple[str, ...]
    db_auth: str
    revision: str


def read_secrets(prefix: str, environment: Mapping[str, str]) -> Secrets:
    """What is valid now. Raises ConfigurationError as `read` does."""
    prefix = _normal(prefix)
    names = [f"{prefix}/{name}" for name in LIVE]
    with _client(prefix, environment, "ssm:GetParameters and kms:Decrypt") as client:
        found = client.get_parameters(Names=names, WithDecryption=True)["Parameters"]
    values = {one["Name"]: str(one["Value"]) for one in found}
    passwords, tokens = (
        tuple(dict.fromkeys(values[each] for ending in ("", OLD) if (each := f"{prefix}/{name}{ending}") in values))
        for name in _SECRETS
    )
    return Secrets(passwords, tokens, values.get(f"{prefix}/DB_AUTH", ""), revision(prefix, found))


def revision(prefix: str, found: Sequence[Mapping[str, Any]]) -> str:
    """Of GetParameters' answer: `ADMIN_TOKEN=1 DB_PASS=2`."""
    return " ".join(sorted(f"{one['Name'].removeprefix(f'{prefix}/')}={one['Version']}" for one in found))


def write_login(prefix: str, environment: Mapping[str, str], user: str, password: str, key: str | None = None) -> None:
    """Store DB_USER (String) and DB_PASS (SecureString, with the KMS key `key` or the account's own for SSM).

    Raises ConfigurationError as `read` does.
    """
    prefix = _normal(prefix)
    with _client(prefix, environment, "ssm:PutParameter and kms:Encrypt") as client:
        encryption = {"KeyId": key} if key else {}
        client.put_parameter(
            Name=f"{prefix}/DB_PASS", Type="SecureString", Value=password, Overwrite=True, **encryption
        )
        client.put_parameter(Name=f"{prefix}/DB_USER", Type="String", Value=user, Overwrite=True)


def _normal(prefix: str) -> str:
    return "/" + prefix.strip("/")


@contextmanager
def _client(prefix: str, environment: Mapping[str, str], actions: str) -> Iterator[Any]:
    """A client of SSM; what goes wrong with it is said as a ConfigurationError with its fix."""
    import botocore.config
    import botocore.exceptions as wrong
    import botocore.session

    config = botocore.config.Config(
        connect_timeout=_SECONDS, read_timeout=_SECONDS, retries={"mode": "standard", "total_max_attempts": 4}
    )
    session = botocore.session.Session()
    region = session.get_config_variable("region") or environment.get("AWS_REGION")
    what = f"The parameters below {prefix} can't be used in SSM"
    try:
        yield session.create_client("ssm", region_name=region, config=config)
    except wrong.NoRegionError:
        raise ConfigurationError(
            f"{what}: no region is set. Set AWS_DEFAULT_REGION (docker run --env AWS_DEFAULT_REGION=us-east-1)."
        ) from None
    except (wrong.NoCredentialsError, wrong.PartialCredentialsError, wrong.CredentialRetrievalError) as error:
        raise ConfigurationError(
            f"{what}: {error}. On EC2, give the instance a role (instance profile) and its metadata service a hop "
            "limit of 2, which a container needs; elsewhere set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        ) from None
    except wrong.ClientError as error:
        raise ConfigurationError(f"{what} of {region}: {error}.\n{_fix(error, prefix, actions)}") from None
    except (wrong.HTTPClientError, wrong.BotoCoreError, ValueError) as error:
        raise ConfigurationError(
            f"{what} of {region}: {error}.\nLook at the region, at AWS_ENDPOINT_URL, and at the network: a private "
            "subnet needs a NAT gateway or a VPC endpoint for SSM."
        ) from None


def _fix(error: Any, prefix: str, actions: str) -> str:
    code = error.response.get("Error", {}).get("Code", "")
    if code.startswith("AccessDenied") or "KMS" in code or code == "InvalidKeyId":
        return f"The role or user needs {actions}: on parameter{prefix}/*, and on the key that encrypts the password."
    if code in (
        "ExpiredTokenException",
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
    ):
        return "The credentials are expired or wrong: sign in again, or look at AWS_ACCESS_KEY_ID."
    return "Run the command again; if it stays, look at the region and at the parameters."
