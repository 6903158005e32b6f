"""A command in the server's container, of which AWS keeps nothing that can be read.

Run Command keeps a command's text and its output for 30 days, for whoever may list commands. So the words go by a
SecureString that is deleted after, and what the command says comes back encrypted with a key that was in it.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
import zlib
from collections.abc import Sequence

from headrace.aws import hosts
from headrace.aws.client import Cloud
from headrace.aws.stacks import Say, Stack
from headrace.errors import AwsError, ConfigurationError

FOLDER = "exec"  # of the parameters that are on their way, below /NAME
_LONGEST = 4096  # characters of a parameter's value
_SECONDS = 24 * 3600  # that a command may take: an index of a large database is built for hours
_LEFT_BEHIND = 3600  # seconds after which the parameter of a command that was killed is deleted
_SEALED = re.compile(r"^(-?\d+) ([\w-]+\.\.[\w.-]+)$", re.M)  # how it ended, and its output encrypted
_TAIL = 1500  # characters of a failed command's output that an error shows

# Runs in the container, whose image has joserfc. Of what is longer than Run Command returns, the end.
_INSIDE = """
import base64, json, subprocess, sys, zlib
from joserfc import jwe, jwk
given = json.loads(base64.b64decode(sys.stdin.read()))
try:
    done = subprocess.run(given["words"], input=given["input"].encode(), stdout=-1, stderr=-2)
    code, output = done.returncode, done.stdout
except OSError as error:
    code, output = 127, str(error).encode()
key = jwk.OctKey.import_key(base64.b64decode(given["key"]))
while len(token := jwe.encrypt_compact({"alg": "dir", "enc": "A256GCM"}, zlib.compress(output), key)) > 23000:
    output = b"... " + output[len(output) // 4 + 4:]
print(code, token)
"""


def run(cloud: Cloud, name: str, data: Stack, host: str, words: Sequence[str], given: str, say: Say) -> str:
    """Run `words` in the container on a host, with `given` as their standard input; their output.

    Raises AwsError with the end of the output where they fail, ConfigurationError for words that are too long.
    """
    from joserfc import jwe, jwk

    key = secrets.token_bytes(32)
    told = json.dumps({"words": list(words), "input": given, "key": base64.b64encode(key).decode()})
    value = base64.b64encode(told.encode()).decode()  # SSM reads {{...}} in a parameter as another one's name
    if len(value) > _LONGEST:
        raise ConfigurationError(
            f"The command has {len(told)} bytes; {_LONGEST * 3 // 4} can be handed to a host. Put what is long into a "
            "bucket or an artifact, and let the command read it there."
        )
    _sweep(cloud, name)
    parameter = f"{_folder(name)}/{secrets.token_hex(8)}"
    try:
        cloud.call(
            "ssm",
            "put_parameter",
            Name=parameter,
            Description="Headrace: a command on its way to a host; deleted after",
            Type="SecureString",
            KeyId=data.output("KeyArn"),
            Value=value,
        )
        script, what = _script(cloud.region, parameter), "a command in the server's container"
        answer = hosts.run(cloud, host, script, what, say, _SECONDS)
    except AwsError as error:
        if "joserfc" in str(error):  # no module of that name
            raise AwsError(f"{error}\nThe image is older than `exec`: `headrace aws upgrade` first.") from None
        raise
    finally:
        cloud.drop_parameter(parameter)
    sealed_line = _SEALED.search(answer)  # a program on the way may have said something, too
    if sealed_line is None:
        raise AwsError(f"{host} in {cloud.region} did not say how {words[0]} ended, but:\n{answer[-_TAIL:]}")
    code, token = sealed_line.groups()
    sealed = jwe.decrypt_compact(token, jwk.OctKey.import_key(key)).plaintext or b""
    output = zlib.decompress(sealed).decode(errors="replace").strip()
    if code != "0":
        raise AwsError(f"{words[0]} on {host} in {cloud.region} ended with {code}.\n{output[-_TAIL:]}")
    return output


def _script(region: str, parameter: str) -> str:
    inside = base64.b64encode(_INSIDE.encode()).decode()
    return (
        f"set -o pipefail\naws ssm get-parameter --region {region} --name {parameter} --with-decryption "
        "--query Parameter.Value --output text | docker exec --interactive mlflow-server "
        f'python -c "$(echo {inside} | base64 --decode)"\n'
    )


def _sweep(cloud: Cloud, name: str) -> None:
    """Delete what commands that were killed have left."""
    for one in cloud.pages("ssm", "get_parameters_by_path", "Parameters", Path=_folder(name)):
        if time.time() - one["LastModifiedDate"].timestamp() > _LEFT_BEHIND:
            cloud.drop_parameter(one["Name"])


def _folder(name: str) -> str:
    return f"/{name}/{FOLDER}"
