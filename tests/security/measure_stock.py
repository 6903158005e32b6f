"""What stock MLflow answers to the known attacks: `python -m tests.security.measure_stock` writes stock_answers.json.

Stock as it comes: on a loopback address, without its basic-auth, with its checks of Host and Origin; everybody is
nobody there. An attack's name -> the statuses of its steps and, if it did any of these: "read" the secret, "changed" a
file outside of the artifact store, "called" a server that it may not call.
"""

from __future__ import annotations

import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.security.known_attacks import ATTACKS, Attack
from tests.security.sending import SECRET, Listener, attempt, listening, outside, values_of
from tests.support.databases import Database, initialise
from tests.support.servers import start_stock

ANSWERS = Path(__file__).with_name("stock_answers.json")


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary, listening() as listener:
        folder = Path(temporary)
        database = Database("sqlite", str(folder / "a.db"), f"sqlite:///{folder / 'a.db'}")
        initialise(database)
        server = start_stock(database, folder)
        try:
            secrets = folder / "outside"
            secrets.mkdir()
            values = values_of(server.url, secrets, listener, {})
            found = {attack.name: _answer(server.url, attack, values, secrets) for attack in ATTACKS}
        finally:
            server.stop()
    ANSWERS.write_text(json.dumps({"mlflow": version("mlflow"), "answers": found}, indent=1) + "\n")


def _answer(url: str, attack: Attack, values: dict[str, str], secrets: Path) -> dict[str, Any]:
    before = outside(secrets)
    Listener.calls.clear()
    try:
        answers = attempt(url, attack, values, {})
    except TimeoutError:
        return {"statuses": [], "did": ["hang"]}
    after = outside(secrets)
    did = {
        "read": any(SECRET in text for _, text in answers),
        "changed": before != after,
        "called": bool(Listener.calls),
    }
    (secrets / "secret.txt").write_text(SECRET)  # as it was
    return {"statuses": [status for status, _ in answers], "did": [what for what, done in did.items() if done]}


if __name__ == "__main__":
    main()
