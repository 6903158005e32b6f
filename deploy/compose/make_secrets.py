"""Makes the passwords and keys of compose.yaml, once: each part finds its own below /secrets, readable by it alone."""

import json
import os
import secrets
from pathlib import Path

SECRETS = Path("/secrets")
HEADRACE = 10001  # the user of Headrace's image and, by compose.yaml, of the S3 server


def write(folder: str, owner: int, files: dict[str, str]) -> None:
    place = SECRETS / folder
    place.mkdir(exist_ok=True)
    for name, text in files.items():
        file = place / name
        file.write_text(text)
        file.chmod(0o400)
        os.chown(file, owner, owner)
    place.chmod(0o500)
    os.chown(place, owner, owner)


done = SECRETS / "done"
if not done.exists():
    password, key_id, key = secrets.token_hex(32), secrets.token_hex(10).upper(), secrets.token_hex(20)
    identity = {
        "name": "headrace",
        "credentials": [{"accessKey": key_id, "secretKey": key}],
        "actions": [f"{action}:mlflow" for action in ("Admin", "Read", "Write", "List", "Tagging")],
    }
    write("database", 0, {"password": password})
    write("storage", HEADRACE, {"s3.json": json.dumps({"identities": [identity]})})
    credentials = f"[default]\naws_access_key_id = {key_id}\naws_secret_access_key = {key}\n"
    write("headrace", HEADRACE, {"pgpass": f"database:5432:mlflow:mlflow:{password}\n", "aws-credentials": credentials})
    done.touch()
os.chown("/storage", HEADRACE, HEADRACE)
