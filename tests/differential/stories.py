"""Stories: requests that build on one another, told to stock and to Headrace; the same answers and rows.

`<name>` in a path or a value stands for an id that an earlier answer gave (`keep`), or that the story starts with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.differential.harness import Subject

# of this year; the stories' own times are earlier
_NOW = re.compile(r"\b(?:179|18\d)\d{10}\b|\b20(?:2[6-9]|3\d)-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z?")
# of an assessment, a dataset, its record, a link
_ID = re.compile(r"\b(?:(?:a|d|dr)-)?[0-9a-f]{32}\b")
_EXPERIMENT = re.compile(r"(?:(?<=\bid=)|(?<=\bexperiment ))\d+")
_PLACEHOLDER = re.compile(r"<(\w+)>")


@dataclass(frozen=True)
class Step:
    """`given`: the body, or a GET's query. `keep`: name -> where the answer has an id, keys with dots."""

    method: str
    path: str
    given: Any = None
    keep: Mapping[str, str] = field(default_factory=dict)


class Teller:
    """One server, and the ids of one story."""

    def __init__(self, subject: Subject, ids: Mapping[str, str]) -> None:
        self.subject = subject
        self.ids = dict(ids)

    def send(self, step: Step) -> tuple[int, Any, str | None]:
        """Status, JSON and who answered."""
        given = json.loads(self._fill(json.dumps(step.given)))
        path = f"/api/3.0/mlflow/{self._fill(step.path)}"
        how = {} if given is None else {"params": given} if step.method == "GET" else {"json": given}
        answer = self.subject.request(step.method, path, **how)
        try:
            body = answer.json()
        except ValueError:
            body = answer.text
        for name, place in step.keep.items():
            found = body
            for key in place.split("."):
                found = found.get(key, {}) if isinstance(found, dict) else found[int(key)] if key.isdigit() else {}
            if isinstance(found, str):
                self.ids[name] = found
        return answer.status_code, self.comparable(body), answer.headers.get("headrace-answered-by")

    def rows(self, table: str, column: str) -> list[str]:
        """The rows of a table that have one of the story's ids in a column."""
        rows = self.subject.rows_of(table, column, self.ids.values())
        return sorted(repr(sorted(self.comparable(row).items())) for row in rows)

    def comparable(self, value: Any) -> Any:
        """Without ids and times; JSON in texts has its keys in order, and its length, since its spaces count, too."""
        if isinstance(value, dict):
            return {self.comparable(key): self._field(key, item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.comparable(item) for item in value]
        if isinstance(value, int) and not isinstance(value, bool) and _NOW.fullmatch(str(value)):
            return "a time"
        if not isinstance(value, str):
            return value
        for name, id_ in self.ids.items():
            if value == id_ or not id_.isdigit():
                value = value.replace(id_, f"<{name}>")
        value = _EXPERIMENT.sub(lambda match: self._experiment(match[0]), value)
        value = _NOW.sub("a time", _ID.sub("an id", value))
        if value[:1] in "{[" and value:
            try:
                return f"{len(value)}: {json.dumps(json.loads(value), sort_keys=True)}"
            except ValueError:
                pass
        return value

    def _field(self, key: str, item: Any) -> Any:
        if key == "digest" and item:
            return "a digest"
        if key == "experiment_id":
            return type(item).__name__, self._experiment(str(item))
        if key == "experiment_ids" and isinstance(item, list):  # stock reads them in no order
            return sorted(self.comparable(item))
        return self.comparable(item)

    def _experiment(self, number: str) -> str:
        """An experiment's id is a number of few digits, which may stand for something else elsewhere."""
        return next((f"<{name}>" for name, id_ in self.ids.items() if id_ == number), number)

    def _fill(self, text: str) -> str:
        return _PLACEHOLDER.sub(lambda match: self.ids.get(match[1], match[0]), text)


def goes_on(step: object, expected: tuple[int, Any], found: tuple[int, Any]) -> bool:
    """AssertionError where Headrace's status and JSON are not as stock's; whether both are in the same state then.

    Where stock fails, or tells of its database, Headrace must refuse.
    """
    where = f"{step}\nstock:    {expected}\nHeadrace: {found}"[:3000]
    if expected[0] >= 500 or "[SQL: " in str(expected[1]):
        assert 400 <= found[0] < 500, where
    elif found[0] == 400 and "exceeds the maximum length" in found[1]["message"]:
        return expected[0] != 200  # SQLite holds what PostgreSQL's columns don't; Headrace refuses it on both
    elif expected[0] == 400:  # Headrace may name a bad value more plainly
        assert found[0] == 400, where
        assert found[1]["error_code"] == expected[1]["error_code"], where
    else:
        assert found == expected, where
    return True


def tell(
    steps: Iterable[Step], stock: Teller, headrace: Teller, tables: Sequence[tuple[str, str]], *, native: bool = True
) -> None:
    """AssertionError where they differ. Where stock fails, or tells of its database, Headrace must refuse."""
    failed = False
    for step in steps:
        expected, found = stock.send(step), headrace.send(step)
        where = f"{step}\nstock:    {expected}\nHeadrace: {found}"[:4000]
        if expected[0] >= 500 or "[SQL: " in str(expected[1]):
            assert 400 <= found[0] < 500, where
            failed = True
        elif expected[0] == 400:  # Headrace may name a bad value more plainly
            assert found[0] == 400, where
            assert found[1]["error_code"] == expected[1]["error_code"], where
        else:
            assert found[:2] == expected[:2], where
        assert not native or found[2] == "native", where
    for table, column in tables:
        wanted, found_rows = stock.rows(table, column), headrace.rows(table, column)
        if failed:  # stock may have failed at its answer, with the row written
            wanted = [row for row in wanted if row in found_rows]
        assert found_rows == wanted, table
