"""The published attacks on MLflow, one row each, as data: `test_known_attacks.py` sends them.

A step's path and body may hold {secret} (a file outside of every artifact store), {folder} (the folder it is in), {up}
(twenty times `../`), {listener} (a web server on a loopback address that nobody may make ours call), {run}, {artifact}
(a run of another's, and its artifact's path below mlflow-artifacts), {name} (fresh for each sending), and {new_run},
{new_experiment}, what the steps before answered.

An attack has failed when no answer holds the secret, no file outside of the artifact stores has changed, nobody called
the listener, and the last step's status is one of those listed for who sent it.

What a client must mind by itself is not here: models that run code when they are loaded (CVE-2024-37052 to
CVE-2024-37061), recipes and pages rendered on a user's machine (CVE-2024-27132, CVE-2024-27133), serving and projects
(CVE-2023-6709, CVE-2023-6940, CVE-2025-15379, CVE-2026-0596), archives unpacked and temporary folders made by a client
(CVE-2024-27134, CVE-2025-15031, CVE-2026-4137).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

REFUSED = (400, 404)
FORBIDDEN = (403,)
EVIL = {"Origin": "https://evil.example"}


@dataclass(frozen=True)
class Step:
    """One request. `body`: text goes as it is, anything else as JSON with its Content-Type."""

    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> tuple[bytes | None, dict[str, str]]:
        if self.body is None or isinstance(self.body, str):
            return None if self.body is None else self.body.encode(), dict(self.headers)
        return json.dumps(self.body).encode(), {"Content-Type": "application/json", **self.headers}


@dataclass(frozen=True)
class Attack:
    """`nobody`, `viewer`, `editor`: the statuses of the last step that mean that it has failed.

    What stock answers to it is in stock_answers.json. `browser`: it comes with the session of a viewer's or an editor's
    browser, from another site's page.
    """

    cve: str
    what: str
    steps: tuple[Step, ...]
    viewer: tuple[int, ...] = FORBIDDEN
    editor: tuple[int, ...] = REFUSED
    nobody: tuple[int, ...] = (401,)
    browser: bool = False

    @property
    def name(self) -> str:
        return f"{self.cve}: {self.what}"


API = "/api/2.0/mlflow/"
AJAX = "/ajax-api/2.0/mlflow/"
AJAX3 = "/ajax-api/3.0/mlflow/"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"


def post(path: str, /, **body: Any) -> Step:
    return Step("POST", path if path.startswith("/") else API + path, body)


def get(path: str) -> Step:
    return Step("GET", path)


def _model_source(cve: str, what: str, source: str, path: str = "secret.txt", **more: Any) -> Attack:
    """Register a model whose source is not its owner's, and read from it."""
    return Attack(
        cve,
        f"model version source, {what}",
        (
            post("registered-models/create", name="{name}"),
            post("model-versions/create", name="{name}", source=source, **more),
            get("/model-versions/get-artifact?name={name}&version=1&path=" + path),
        ),
        viewer=(403, 404),
    )


MODEL_SOURCES = (
    _model_source("CVE-2023-1177", "a local path", "{folder}"),
    _model_source("CVE-2023-1177", "a file: URI", "file://{folder}"),
    _model_source("CVE-2023-1177", "a file: URI with a host", "file://localhost{folder}"),
    _model_source("CVE-2023-2356", "a relative path", "{up}{folder}"),
    _model_source("CVE-2023-2780", "backslashes", "file:///\\..\\..\\..\\..{folder}"),
    _model_source("CVE-2023-3765", "a second slash", "//{folder}"),
    _model_source("CVE-2023-6977", "a link of the process's own", "/proc/self/root{folder}"),
    _model_source("CVE-2023-6977", "a path, for a run that is not there", "{folder}", run_id="0" * 32),
    _model_source("CVE-2024-1558", "a path, for a run whose artifacts are elsewhere", "{folder}", run_id="{run}"),
    _model_source("CVE-2023-6909", "a query", "http:///?/{up}{folder}"),
    _model_source("CVE-2024-2928", "a fragment", "http:///#/{up}{folder}"),
    _model_source("CVE-2024-1594", "a fragment of a local path", "file:///#/{up}{folder}"),
    _model_source("CVE-2025-11201", "out of the artifact store", "mlflow-artifacts:/{up}{folder}"),
    _model_source("CVE-2025-11201", "out of the artifact store, encoded", "mlflow-artifacts:/%2e%2e/%2e%2e/{folder}"),
    _model_source("CVE-2025-11201", "out of it, encoded twice", "mlflow-artifacts:/%252e%252e/%252e%252e/{folder}"),
    _model_source("CVE-2024-8859", "another file system's", "dbfs:/{up}{folder}"),
    _model_source(
        "CVE-2026-2614",
        "of what says to be a prompt",
        "{folder}",
        tags=[{"key": "mlflow.prompt.is_prompt", "value": "true"}],
    ),
    _model_source("CVE-2023-6974", "on a server of the attacker's", "{listener}/a", path="b"),
    _model_source("CVE-2023-6974", "by FTP", "ftp://127.0.0.1/a", path="b"),
    _model_source(
        "GHSA-hh8p-p8mp-gqhm",
        "another run's artifacts",
        "mlflow-artifacts:/{artifact_folder}",
        path="a.txt",
    ),
)


def _location(cve: str, what: str, location: str) -> Attack:
    """Make an experiment that lies elsewhere, and read through a run of it."""
    return Attack(
        cve,
        f"artifact_location, {what}",
        (
            post(AJAX + "experiments/create", name="{name}", artifact_location=location),
            post(AJAX + "runs/create", experiment_id="{new_experiment}"),
            get("/get-artifact?run_id={new_run}&path=secret.txt"),
        ),
        viewer=(403, 404),
        editor=(400, 404, 500),
    )


LOCATIONS = (
    _location("CVE-2023-6909", "a query", "http:///?/../../../../../../../../..{folder}"),
    _location("CVE-2024-1483", "a fragment", "http:///#/../../../../../../../../..{folder}"),
    _location("CVE-2024-3848", "a fragment of a local path", "{folder}#/../.."),
    _location("CVE-2024-1594", "a fragment of a file: URI", "file://{folder}/#/../.."),
    _location("CVE-2024-2928", "dots behind a query", "file://{folder}?x=/../.."),
    _location("CVE-2024-3573", "a scheme in odd letters", "FILE://{folder}"),
    _location("CVE-2023-6974", "a server of the attacker's", "{listener}/a"),
)


def _read(cve: str, what: str, path: str, viewer: tuple[int, ...] = REFUSED) -> Attack:
    return Attack(cve, f"read a file, {what}", (get(path),), viewer=viewer)


RUN_ARTIFACT = "/get-artifact?run_id={run}&path="
PATHS = (
    _read("CVE-2023-30172", "dots in a path", RUN_ARTIFACT + "{up}{secret}"),
    _read("CVE-2023-30172", "an absolute path", RUN_ARTIFACT + "{secret}"),
    _read("CVE-2023-30172", "a file: URI", RUN_ARTIFACT + "file://{secret}"),
    _read("CVE-2023-1177", "encoded once", RUN_ARTIFACT + "..%2f..%2f..%2f..%2f..%2f..%2f..{secret}"),
    _read("CVE-2024-1560", "encoded twice", RUN_ARTIFACT + "%252e%252e%252f%252e%252e%252f%252e%252e{secret}"),
    _read("CVE-2023-2780", "backslashes", RUN_ARTIFACT + "..\\..\\..\\..\\..{secret}"),
    _read("CVE-2023-1176", "whether it exists", AJAX + "artifacts/list?run_id={run}&path={up}{folder}"),
    _read("CVE-2023-6018", "through the artifact store", ARTIFACTS + "..%2f..%2f..%2f..%2f..%2f..{secret}"),
    _read("CVE-2023-6018", "through it, encoded twice", ARTIFACTS + "%252e%252e/%252e%252e/%252e%252e{secret}"),
    _read("CVE-2023-6018", "through it, a second slash", ARTIFACTS + "/{secret}"),
    _read("CVE-2023-6018", "a listing of it", "/api/2.0/mlflow-artifacts/artifacts?path={up}{folder}"),
    _read("CVE-2023-6018", "static files", "/static-files/..%2f..%2f..%2f..%2f..%2f..%2f..{secret}"),
    _read("CVE-2023-6018", "static files, plain", "/static-files/../../../../../../../..{secret}", (400, 403, 404)),
)

WRITES = tuple(
    Attack(
        cve,
        f"{method} {what}",
        (Step(method, prefix + path, "overwritten" if method == "PUT" else None),),
        viewer=(400, 403, 404),
        editor=(400, 403, 404),
    )
    for cve, method, what, prefix, path in (
        ("CVE-2023-6018", "PUT", "over a file", ARTIFACTS, "..%2f..%2f..%2f..%2f..%2f..%2f..{secret}"),
        ("CVE-2023-6015", "PUT", "over a file, a second slash", ARTIFACTS, "/{secret}"),
        ("CVE-2023-6015", "PUT", "over a file, encoded twice", ARTIFACTS, "%252e%252e%252f%252e%252e{secret}"),
        ("CVE-2023-6831", "DELETE", "a file, encoded once", ARTIFACTS, "%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e{secret}"),
        ("CVE-2024-1560", "DELETE", "a file, encoded twice", ARTIFACTS, "%252e%252e%252f%252e%252e{secret}"),
        ("CVE-2024-1560", "DELETE", "a folder, encoded twice", ARTIFACTS, "%252e%252e%252f%252e%252e{folder}"),
    )
)

MULTIPART = (
    Attack(
        "CVE-2026-2651",
        "a multipart upload onto another's artifact",
        (post("/api/2.0/mlflow-artifacts/mpu/create/{artifact}", path="a.txt", num_parts=1),),
        editor=(400, 404, 501),  # an editor may write to every run, unless grants say otherwise
    ),
    Attack(
        "CVE-2026-2651",
        "a multipart upload out of the artifact store",
        (post("/api/2.0/mlflow-artifacts/mpu/create/..%2f..%2f..{folder}", path="secret.txt", num_parts=1),),
        editor=(400, 404, 501),
    ),
    Attack(
        "CVE-2024-4263",
        "DELETE of an artifact by who may only read",
        (Step("DELETE", ARTIFACTS + "{artifact}x"),),
        editor=(200, 404),  # an editor may; this one is not there
    ),
)

UNGUARDED = tuple(
    # jobs are off, which all are told alike
    Attack(
        cve,
        f"{step.method} {step.path}",
        (step,),
        viewer,
        editor,
        nobody=(403,) if step.path.endswith("jobs/") else (401,),
    )
    for cve, step, viewer, editor in (
        ("CVE-2026-0545", post("/ajax-api/3.0/jobs/", job_name="run_shell", params={}), (403,), (403,)),
        ("CVE-2026-0545", post("/ajax-api/3.0/jobs/search"), (403,), (403,)),
        ("CVE-2026-0545", get("/ajax-api/3.0/jobs/1"), (403, 404), (403, 404)),
        ("CVE-2026-0545", Step("PATCH", "/ajax-api/3.0/jobs/cancel/1"), (403,), (403, 404)),
        ("CVE-2026-2652", Step("POST", "/v1/traces", "x"), (403,), (400, 422)),
        (
            "CVE-2025-15381",
            post("/api/3.0/mlflow/traces/tr-1/assessments", assessment={"assessment_name": "a"}),
            (403,),
            (400, 404),
        ),
        ("CVE-2026-8147", Step("PATCH", "/api/3.0/mlflow/traces/tr-1/tags", {"key": "a"}), (403,), (400, 404)),
        ("CVE-2026-8147", post("/api/3.0/mlflow/traces/delete-traces", experiment_id="0"), (403,), (400,)),
        ("GHSA-3p64-6gvh-82v5", post("runs/log-inputs", run_id="{run}"), (403,), (200, 400)),
        (
            "GHSA-m97m-jq2c-qw46",
            Step("PUT", AJAX3 + "scorers/online-config", {"experiment_id": "0", "name": "{name}"}),
            (403,),
            (400, 404),
        ),
        ("CVE-2026-3198", get(AJAX3 + "gateway/secrets/list"), (403,), (403,)),
        ("CVE-2026-33866", get(AJAX + "logged-models/m-1/artifacts/files?artifact_file_path=a"), (404,), (404,)),
        ("CVE-2023-6014", post("/signup", username="{name}", password="x"), (403,), (403,)),
        ("CVE-2023-6014", post("/api/2.0/mlflow/users/create", username="{name}"), (403,), (403,)),
        (
            "CVE-2023-6014",
            Step("PATCH", "/api/2.0/mlflow/users/update-admin", {"username": "editor", "is_admin": True}),
            (403,),
            (403,),
        ),
    )
)


def _login(cve: str, what: str, login: str) -> Attack:
    """Basic credentials instead of the sender's own: nobody is let in by them, whoever sends them."""
    headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}
    step = Step("GET", API + "experiments/search?max_results=1", headers=headers)
    return Attack(cve, what, (step,), viewer=(401, 429), editor=(401, 429))


LOGINS = (
    _login("CVE-2025-11200", "an empty password", "editor:"),
    _login("CVE-2025-1474", "an empty password of a user without one", "nopassword:"),
    _login("GHSA-gq3w-7jj3-x7gr", "stock's default login", "admin:password1234"),
    _login("GHSA-gq3w-7jj3-x7gr", "stock's default login, the older one", "admin:password"),
)

OUTGOING = tuple(
    Attack(cve, f"{step.method} {step.path} to {what}", (step,), editor=(403,), nobody=(401, 403))
    for cve, what, step in (
        (
            "CVE-2026-2393",
            "a metadata service",
            post("webhooks", name="w", url="https://169.254.169.254/latest", events=[]),
        ),
        (
            "CVE-2026-2393",
            "a loopback address",
            post("webhooks", name="w", url="{listener}", events=[]),
        ),
        ("CVE-2026-2393", "what was set up before", post("webhooks/1/test")),
        (
            "CVE-2025-52967",
            "another server",
            get("/ajax-api/2.0/mlflow/gateway-proxy?gateway_path=../../x"),
        ),
        (
            "CVE-2026-2393",
            "a metadata service, as an AI provider",
            post(
                AJAX3 + "gateway/secrets/create",
                secret_name="{name}",
                secret_value=[{"key": "api_key", "value": "x"}],
                provider="openai",
                auth_config=[{"key": "api_base", "value": "http://169.254.169.254"}],
            ),
        ),
    )
)

GRAPHQL = (
    Attack(
        "CVE-2025-0453",
        "hundreds of searches in one GraphQL query",
        (
            post(
                "/graphql",
                query="query{"
                + "".join(
                    f'q{i}: mlflowSearchRuns(input:{{experimentIds:["0"]}}){{runs{{info{{runId}}}}}}'
                    for i in range(500)
                )
                + "}",
            ),
        ),
        viewer=(200, 400),
        editor=(200, 400),
    ),
    Attack(
        "CVE-2025-0453",
        "a batch of GraphQL queries",
        (Step("POST", "/graphql", [{"query": "{__typename}"}] * 500),),
        viewer=(400, 500),
        editor=(400, 500),
    ),
    Attack(
        "CVE-2025-0453",
        "a GraphQL query nested without an end",
        (post("/graphql", query="{" + "a{" * 20_000 + "b" + "}" * 20_001),),
        viewer=(200, 400, 500),
        editor=(200, 400, 500),
    ),
)

# Another site's page in a browser that is signed in here.
CROSS_SITE = (
    Attack(
        "CVE-2023-43472",
        "text/plain from another site's page",
        (
            Step(
                "POST",
                API + "experiments/create",
                '{"name": "{name}", "artifact_location": "/"}',
                {"Content-Type": "text/plain", **EVIL},
            ),
        ),
        editor=(403,),
        nobody=(401, 403),
        browser=True,
    ),
    Attack(
        "CVE-2023-43472",
        "text/plain from a page without an origin",
        (
            Step(
                "POST",
                API + "experiments/create",
                '{"name": "{name}"}',
                {"Content-Type": "text/plain", "Origin": "null"},
            ),
        ),
        editor=(403,),
        nobody=(401, 403),
        browser=True,
    ),
    Attack(
        "CVE-2023-43472",
        "a form from another site's page",
        (
            Step(
                "POST",
                "/graphql",
                "query=%7B__typename%7D",
                {"Content-Type": "application/x-www-form-urlencoded", **EVIL},
            ),
        ),
        viewer=(403,),
        editor=(403,),
        nobody=(401, 403),
        browser=True,
    ),
    Attack(
        "CVE-2023-43472",
        "a browser says that it comes from another site",
        (
            Step(
                "POST",
                API + "experiments/create",
                '{"name": "{name}"}',
                {"Content-Type": "text/plain", "Sec-Fetch-Site": "cross-site"},
            ),
        ),
        editor=(403,),
        nobody=(401, 403),
        browser=True,
    ),
    Attack(
        "CVE-2025-1473",
        "an account made by another site's page",
        (Step("POST", "/api/2.0/mlflow/users/create-ui", "username=x", EVIL),),
        editor=(403,),
        nobody=(401, 403),
        browser=True,
    ),
    Attack(
        "CVE-2026-2611",
        "the assistant set up by another site's page",
        (Step("PUT", AJAX3 + "assistant/config", {"providers": {}}, EVIL),),
        editor=(403,),
        nobody=(401, 403),
        browser=True,
    ),
    Attack(
        "CVE-2025-14279",
        "a name that was bound again (DNS rebinding)",
        (Step("GET", API + "experiments/search?max_results=1", headers={"Host": "evil.example:5000"}),),
        editor=(403,),
        nobody=(401, 403),
        browser=True,
    ),
    Attack(
        "CVE-2025-14279",
        "a name that was bound again, writing",
        (
            Step(
                "POST",
                API + "experiments/create",
                {"name": "{name}"},
                {"Host": "evil.example:5000", "Origin": "http://evil.example:5000"},
            ),
        ),
        editor=(403,),
        nobody=(401, 403),
        browser=True,
    ),
)

ATTACKS = (
    *MODEL_SOURCES,
    *LOCATIONS,
    *PATHS,
    *WRITES,
    *MULTIPART,
    *UNGUARDED,
    *LOGINS,
    *OUTGOING,
    *GRAPHQL,
    *CROSS_SITE,
)
