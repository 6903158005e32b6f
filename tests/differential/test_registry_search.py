"""registered-models/search and model-versions/search: generated searches of one registry, page by page as stock's."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.differential.reading import Readers
from tests.support.generated import TIMES, dice

SEARCHES = 30 * TIMES
NAMES = ["a", "A", "b", "it's", "a_b", "a%b", "ß", "日本語", '"x"', "a.b", "ab", "z z"]
VALUES = ["", "a", "A", "it's", "100%", "a_b", "ß", "true", "false", "True", "x\ny"]
KEYS = ["t", "T", "a.b", "mlflow.prompt.is_prompt"]
SOURCES = ["s3://b/a", "s3://b/A", "s3://b/a_b", "dbfs:/ß"]


@pytest.fixture(scope="module")
def registry(readers: Readers) -> Readers:
    """Fills what both servers read: every third model is a prompt, or says that it is none."""
    chance = random.Random(1)

    def made(endpoint: str, body: dict[str, Any]) -> Any:
        answer = readers.post("headrace", endpoint, body)
        assert answer.status == 200, (endpoint, body, answer)
        return answer.body

    def tags() -> list[dict[str, str]]:
        return [{"key": key, "value": chance.choice(VALUES)} for key in KEYS if chance.random() < 0.4]

    for number, name in enumerate([*NAMES, *(f"m{number}" for number in range(12))]):
        made("registered-models/create", {"name": name, "tags": tags(), "description": chance.choice(["", "d"])})
        for _ in range(number % 5):
            its_tags = tags()
            prompt = any(tag["key"] == KEYS[3] and tag["value"].lower() == "true" for tag in its_tags)
            source = "dummy-source" if prompt else chance.choice(SOURCES)
            version = {"name": name, "source": source, "run_id": chance.choice(["", "r1", "R1"]), "tags": its_tags}
            number_made = made("model-versions/create", version)["model_version"]["version"]
            if chance.random() < 0.3:
                stage = {"name": name, "version": number_made, "stage": chance.choice(["Staging", "Production"])}
                made("model-versions/transition-stage", stage)
            if chance.random() < 0.3:
                alias = {"name": name, "version": number_made, "alias": chance.choice(["x", "y"])}
                made("registered-models/alias", alias)
    for name in ("m4", "m9"):
        gone = readers._session.delete(
            f"{readers.urls[1]}/api/2.0/mlflow/model-versions/delete", json={"name": name, "version": "1"}, timeout=60
        )
        assert gone.status_code == 200
    return readers


def quoted(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"


def condition(chance: random.Random, versions: bool) -> str:
    pattern = chance.choice(["a%", "%b", "_", "%", "A_%", "m1%", "%ß%", "tru_", "S3://%"])
    texts = [("=", quoted(chance.choice(NAMES))), ("!=", quoted(chance.choice(NAMES)))]
    if chance.random() < 0.4:
        key = chance.choice(["tags.t", "tag.T", "tags.`a.b`", "tags.`mlflow.prompt.is_prompt`", 'tags."t"'])
        texts = [(sign, quoted(chance.choice(VALUES))) for sign in ("=", "!=")]
        compared = chance.choice([*texts, ("LIKE", quoted(pattern)), ("ILIKE", quoted(pattern))])
        return f"{key} {compared[0]} {compared[1]}"
    names = ", ".join(quoted(name) for name in chance.sample(NAMES, 3) if '"' not in name)
    lists = [("IN", f"({names})"), ("NOT IN", f"({names})")]
    likes = [("LIKE", quoted(pattern)), ("ILIKE", quoted(pattern)), ("like", quoted(pattern))]
    key = "name"
    if versions and chance.random() < 0.6:
        key = chance.choice(["version_number", "run_id", "source_path"])
        if key == "version_number":
            return f"{key} {chance.choice(['=', '!=', '<', '<=', '>', '>='])} {chance.choice(['1', '2', '3'])}"
        texts = [(sign, quoted(chance.choice(["r1", "R1", "", *SOURCES]))) for sign in ("=", "!=")]
        lists = [("IN", "('r1', '')"), ("NOT IN", "('R1')")] if key == "run_id" else []
    sign, value = chance.choice([*texts, *likes, *lists])
    return f"{chance.choice(['', 'attribute.'])}{key} {sign} {value}"


def generated(versions: bool) -> list[dict[str, Any]]:
    chance = dice(2 + versions)
    keys = ["name", "last_updated_timestamp"] + (
        ["version_number", "creation_timestamp"] if versions else ["timestamp"]
    )
    searches = []
    for _ in range(SEARCHES):
        search: dict[str, Any] = {"max_results": chance.choice([2, 7, 100])}
        if text := " AND ".join(condition(chance, versions) for _ in range(chance.choice([0, 1, 1, 2, 3]))):
            search["filter"] = text
        if chance.random() < 0.6:
            order = chance.sample(keys, chance.choice([1, 2]))
            if not {"timestamp", "last_updated_timestamp"} <= set(order):
                search["order_by"] = [f"{key}{chance.choice(['', ' ASC', ' DESC', ' desc'])}" for key in order]
        searches.append(search)
    return searches


def pages(registry: Readers, server: str, endpoint: str, search: dict[str, Any]) -> list[Any]:
    """All pages; what stock leaves out, or has in no order, is out or in order."""
    found: list[Any] = []
    token = ""
    while True:
        answer = registry.get(server, endpoint, search | ({"page_token": token} if token else {}))
        if answer.status != 200:
            return [answer.status, answer.body.get("error_code")]
        assert server == "stock" or answer.native, search
        found.append([in_order(each) for rows in answer.body.values() if isinstance(rows, list) for each in rows])
        token = answer.body.get("next_page_token", "")
        if not token:
            return found


def in_order(item: dict[str, Any]) -> dict[str, Any]:
    item = dict(item)
    if "current_stage" in item:
        item.pop("aliases", None)
    for name in ("tags", "aliases"):
        if name in item:
            item[name] = sorted(item[name], key=repr)
    if "latest_versions" in item:
        item["latest_versions"] = sorted(map(in_order, item["latest_versions"]), key=lambda each: each["version"])
    return item


@pytest.mark.generated
@pytest.mark.parametrize("what", ["registered-models", "model-versions"])
def test_generated_searches(registry: Readers, what: str) -> None:
    wrong, hits = [], 0
    for search in generated(what == "model-versions"):
        expected = pages(registry, "stock", f"{what}/search", search)
        found = pages(registry, "headrace", f"{what}/search", search)
        hits += any(expected)
        if found != expected:
            wrong.append((search, expected, found))
    assert not wrong, "\n".join(f"{search}\n  {str(a)[:600]}\n  {str(b)[:600]}" for search, a, b in wrong[:3])
    assert hits > SEARCHES / 3


REFUSED: list[dict[str, Any]] = [
    {"filter": text}
    for text in (
        "name", "name =", "name = a", "name > 'a'", "nothing = 'a'", "metrics.a = 'a'", "tags.a IN ('a')",
        "name = 'a' OR name = 'b'",
        "tags.a > 'x'", "name IN ()", "name IN (1)", "source_path IN ('a')",
        "version_number = 'x'",
        "version_number LIKE '1'",
        "version_number = 1.5", "run_id > 1", "name = 1", "name = 'a", " ", "name IS NULL", "(name = 'a')",
        "name = 'a'; x",
    )
] + [
    {"order_by": text} for text in ("nothing", "name UP", "tags.a", ["name", "name DESC"], "", "name,name", "run_id")
] + [
    {"max_results": text} for text in ("0", "-1", "1001", "200001", "x", str(2**31), str(2**63))
] + [{"page_token": "x"}]  # fmt: skip


@pytest.mark.parametrize("what", ["registered-models", "model-versions"])
def test_refusals(registry: Readers, what: str) -> None:
    wrong = []
    for search in REFUSED:
        expected = registry.get("stock", f"{what}/search", search)
        found = registry.get("headrace", f"{what}/search", search)
        right = found.status < 500
        if expected.status < 500:
            right = (found.status, found.body.get("error_code")) == (expected.status, expected.body.get("error_code"))
        if not right:
            wrong.append((search, expected, found))
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("what", ["registered-models", "model-versions"])
def test_a_page_of_stocks_is_gone_on_with(registry: Readers, what: str) -> None:
    """An upgrade in the middle of somebody's pages, or the way back."""
    search = {"max_results": 3, "order_by": ["name"]}
    for first, then in (("stock", "headrace"), ("headrace", "stock")):
        token = registry.get(first, f"{what}/search", search).body["next_page_token"]
        after = search | {"page_token": token}
        rows = [
            [each["name"] for each in registry.get(server, f"{what}/search", given).body[what.replace("-", "_")]]
            for server, given in ((then, after), (first, after))
        ]
        assert rows[0] == rows[1]


def test_versions_have_their_aliases_in_lists_too(registry: Readers) -> None:
    """As stock's model-versions/get says; its lists leave them out."""

    def of(version: dict[str, Any]) -> tuple[str, str, list[str]]:
        return version["name"], version["version"], sorted(version.get("aliases", []))

    versions = registry.get("headrace", "model-versions/search", {"max_results": 1_000}).body["model_versions"]
    models = registry.get("headrace", "registered-models/search", {"max_results": 1_000}).body["registered_models"]
    found = [*versions, *(version for model in models for version in model.get("latest_versions", []))]
    name = next(model["name"] for model in models if any(v.get("aliases") for v in model.get("latest_versions", [])))
    one = registry.get("headrace", "registered-models/get", {"name": name}).body["registered_model"]
    found += one["latest_versions"]
    assert len(found) > len(versions)
    for version in found:
        which = {"name": version["name"], "version": version["version"]}
        said = registry.get("stock", "model-versions/get", which).body["model_version"]
        assert of(version) == of(said)
