"""The table of settings: priorities, names, refusals; and that the page made from it is current."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import sqlalchemy

from headrace import database_url, stock_options
from headrace.cli.reference import PAGES
from headrace.errors import ConfigurationError
from headrace.listeners import listen
from headrace.settings import Settings
from headrace.settings.resolve import resolve
from headrace.settings.table import OF_STOCK, SETTINGS, Setting
from headrace.settings.values import networks, parse_quota
from headrace.stock_options import REFUSED

ROOT = Path(__file__).resolve().parents[2]
CONTAINER = {
    "BUCKET": "s3://mlflow-artifacts/",
    "USERNAME": "mlflow",
    "PASSWORD": "p@ss/w:rd %#?",
    "HOST": "db.example.com",
    "PORT": "5433",
    "DATABASE": "mlflow",
}


def test_quotas() -> None:
    text = "artifacts=50GB, metrics=1.5M; a:b:artifacts=1TB;3:metrics=200"
    assert parse_quota(text) == {
        "": {"artifacts": 50 * 10**9, "metrics": 1_500_000},
        "a:b": {"artifacts": 10**12},
        "3": {"metrics": 200},
    }
    for wrong in ("50GB", "artifacts=", "spans=3", "artifacts=-1", "artifacts=1PB", " ; "):
        with pytest.raises(ConfigurationError, match=r"--quota is .* but must be artifacts=50GB,metrics=10M for each"):
            resolve({"quota": wrong}, {})


def test_without_options() -> None:
    settings = resolve({}, {})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 5000, 1)
    assert settings.backend_store_uri == "sqlite:///headrace-data/mlflow.db"
    assert settings.artifacts_destination == "./headrace-data/artifacts"
    assert settings.default_artifact_root == "mlflow-artifacts:/"


def test_a_flag_wins_over_the_environment_and_an_empty_variable_is_none() -> None:
    environment = {"MLFLOW_PORT": "6000", "MLFLOW_HOST": "", "MLFLOW_SERVE_ARTIFACTS": "False"}
    settings = resolve({"port": "7000"}, environment)
    assert (settings.port, settings.host, settings.serve_artifacts) == (7000, "127.0.0.1", False)


def test_an_empty_option_is_none_where_that_changes_nothing() -> None:
    harmless = ("allowed_hosts", "cors_allowed_origins", "registry_store_uri", "x_frame_options", "expose_prometheus")
    assert resolve(dict.fromkeys(harmless, ""), {}) == resolve({}, {})


@pytest.mark.parametrize(
    ("host", "meant"), [("[::1]", "::1"), ("127.1", "127.0.0.1"), ("0", "0.0.0.0"), ("a.example", "a.example")]
)
def test_other_ways_to_write_a_host(host: str, meant: str) -> None:
    settings = resolve({"host": host}, {})
    assert settings.host == meant
    assert settings.protected == (not meant.endswith("1"))


def test_artifacts_lie_where_stock_has_them() -> None:
    backend = {"backend_store_uri": "postgresql://u@h/d"}
    assert resolve(backend, {}).artifacts_destination == "./mlartifacts"
    assert resolve(backend | {"serve_artifacts": "false"}, {}).default_artifact_root == "./mlruns"
    files = {"backend_store_uri": "/data/mlruns", "serve_artifacts": "false"}
    assert resolve(files, {}).default_artifact_root == "/data/mlruns"
    assert resolve({"default_artifact_root": "s3://b/"}, {}).default_artifact_root == "s3://b/"


@pytest.mark.parametrize(
    ("backend", "native"),
    [
        ("sqlite:///a.db", True),
        ("sqlite:///a.db?timeout=3", True),
        ("postgresql://h/d", True),
        ("postgresql+psycopg://h/d", True),
        ("postgresql+pg8000://h/d", False),
        ("mysql+pymysql://h/d", False),
        ("./mlruns", False),
        ("file:///mlruns", False),
    ],
)
def test_what_is_native(backend: str, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_url, "find_spec", lambda name: object())  # as if each driver were installed
    assert resolve({"backend_store_uri": backend}, {}).native is native


def test_the_container() -> None:
    settings = resolve({}, CONTAINER)
    url = sqlalchemy.make_url(settings.backend_store_uri)
    assert (url.username, url.password, url.host, url.port, url.database) == (
        "mlflow",
        CONTAINER["PASSWORD"],
        "db.example.com",
        5433,
        "mlflow",
    )
    assert (settings.host, settings.port) == ("0.0.0.0", 5000)
    assert settings.artifacts_destination == "s3://mlflow-artifacts/"
    assert settings.default_artifact_root == "mlflow-artifacts:/"


def test_the_container_without_proxied_artifacts() -> None:
    assert resolve({"serve_artifacts": "false"}, CONTAINER).default_artifact_root == "s3://mlflow-artifacts/"


def test_options_win_over_the_container() -> None:
    settings = resolve({"host": "127.0.0.1", "artifacts_destination": "/data"}, CONTAINER)
    assert (settings.host, settings.artifacts_destination) == ("127.0.0.1", "/data")
    other = resolve({}, CONTAINER | {"MLFLOW_BACKEND_STORE_URI": "sqlite:///a.db"})
    assert other == resolve({"backend_store_uri": "sqlite:///a.db"}, {})


def test_the_container_needs_both_host_and_database() -> None:
    # HOST and PORT alone are in the environment of many shells and platforms, and not meant for us.
    assert resolve({}, {"HOST": "my-machine", "PORT": "80", "USERNAME": "me"}) == Settings()


def test_the_container_names_what_is_missing() -> None:
    with pytest.raises(ConfigurationError, match="not USERNAME, PASSWORD, BUCKET"):
        resolve({}, {"HOST": "db", "DATABASE": "mlflow"})
    with pytest.raises(ConfigurationError, match="s3://mlflow-artifacts"):
        resolve({}, CONTAINER | {"BUCKET": "mlflow-artifacts"})
    with pytest.raises(ConfigurationError, match="PORT is 'x'"):
        resolve({}, CONTAINER | {"PORT": "x"})


def test_basic_auth_is_taken_for_auth() -> None:
    said: list[str] = []
    settings = resolve({"app_name": "basic-auth"}, {}, said.append)
    assert settings.auth
    assert settings.protected
    assert said == [
        "--app-name basic-auth is taken for --auth; `headrace user import basic_auth.db` takes over its users"
    ]


ODD = (
    *(" ", "-1", "1e400", "9" * 5000, "\u0663", "\u2100", "\udcff", "a\nb", "a\x01b", "x" * 5000, "/dev/null", "/a/b"),
    *("s3://[x", "http://[::1", "//[", "[", "%00", "..", "::1", "127.0.0.1/33", "99999999999d", "metrics=1e400M"),
    *(f"artifacts={'9' * 400}", "sqlite:////dev/null", "postgresql://[", "postgresql://u:p@h:x/d", "=viewer", "--help"),
)  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_odd_values_are_taken_or_refused_in_a_line(setting: Setting) -> None:
    for odd in ODD:
        for flags, environment in ({setting.name: odd}, {}), ({}, {setting.environment: odd}):
            if setting.name == "ssm_prefix":
                continue
            try:
                resolve(flags, environment)
            except ConfigurationError as error:
                in_a_line(error)


@pytest.mark.parametrize("variable", sorted(CONTAINER))
def test_odd_values_of_the_containers_variables(variable: str) -> None:
    for odd in ODD:
        try:
            settings = resolve({}, CONTAINER | {variable: odd})
        except ConfigurationError as error:
            in_a_line(error)
        else:  # it is taken for what it is, and for nothing beside it
            database = settings.database
            assert isinstance(database, database_url.PostgresURL), odd
            meant = {"USERNAME": "user", "PASSWORD": "password", "DATABASE": "dbname", "HOST": "host", "PORT": "port"}
            for name, parameter in meant.items():
                assert database.parameters[parameter] == (CONTAINER | {variable: odd})[name], odd


@pytest.mark.parametrize("host", ["..", "x" * 5000, "a..b", "\u202e.example", "\udcff"])
def test_a_name_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        listen(host, 0, 1)
    in_a_line(refused.value)


def in_a_line(error: ConfigurationError) -> None:
    assert len(str(error)) < 600
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("flags", "environment", "text"),
    [
        ({"port": "no"}, {}, "--port is 'no', but must be a whole number from 0 to 65535"),
        ({}, {"MLFLOW_PORT": "70000"}, "MLFLOW_PORT is '70000'"),
        ({"workers": "0"}, {}, "--workers"),
        ({"static_prefix": "/a\n"}, {}, "a new line at an end"),
        ({"artifacts_destination": "s3://b "}, {}, "--artifacts-destination is 's3://b ', which has a blank"),
        ({}, {"MLFLOW_BACKEND_STORE_URI": "postgresql://u:hidden@h/d\n"}, "MLFLOW_BACKEND_STORE_URI is"),
        ({}, {"MLFLOW_BACKEND_STORE_URI": '"postgresql://u:hidden@h/d"'}, "has quotes around it"),
        ({}, {"MLFLOW_BACKEND_STORE_URI": "\ufeffpostgresql://u:hidden@h/d"}, "nobody sees (U+FEFF)"),
        ({"artifacts_destination": "s3://b\u200b"}, {}, "nobody sees (U+200B)"),
        ({}, CONTAINER | {"PASSWORD": "hidden\n"}, "PASSWORD is ***, which has a blank or a new line"),
        ({}, CONTAINER | {"HOST": "'db'"}, "HOST is \"'db'\", which has quotes"),
        ({}, CONTAINER | {"PASSWORD": "hidden\udcff"}, "PASSWORD is not in UTF-8"),
        ({}, CONTAINER | {"DATABASE": "d\udcff"}, "DATABASE is not in UTF-8"),
        ({}, CONTAINER | {"HOST": "db/other?sslmode=disable"}, "must be the database's name or address"),
        ({}, CONTAINER | {"HOST": "me:secret@db"}, "must be the database's name or address"),
        ({}, CONTAINER | {"PORT": "\u0663"}, "PORT is"),
        ({"artifacts_destination": "s3://[x"}, {}, "--artifacts-destination is 's3://[x', which is no URI"),
        ({"default_artifact_root": "http://[::1"}, {}, "--default-artifact-root is 'http://[::1', which is no URI"),
        ({"artifacts_destination": "/dev/null"}, {}, "'/dev/null', which is a file"),
        ({"default_artifact_root": "file:///dev/null"}, {}, "'file:///dev/null', which is a file"),
        ({"artifacts_destination": "s3://"}, {}, "'s3://', which names no bucket. Write s3://BUCKET/PATH."),
        ({"artifacts_destination": "s3:///path"}, {}, "which names no bucket"),
        ({"artifacts_destination": "s3:bucket"}, {}, "which names no bucket"),
        ({"default_artifact_root": "gs:/bucket"}, {}, "which names no bucket. Write gs://BUCKET/PATH."),
        ({"artifacts_destination": "minio://bucket"}, {}, "'minio://bucket', which is no store that MLflow knows"),
        ({"default_artifact_root": "runs:/a"}, {}, "'runs:/a', which is no store that MLflow knows"),
        ({"artifacts_destination": "mlflow-artifacts:/a"}, {}, "which is this server itself"),
        ({"artifacts_destination": "http://minio:9000/b"}, {}, "which is no address of artifacts on another server"),
        ({"artifacts_destination": "sftp://h/x"}, {}, "needs a package that is not installed here: pip install pysftp"),
        ({"artifacts_destination": ""}, {}, "--artifacts-destination is empty. Give it a value, or leave it out."),
        ({"backend_store_uri": ""}, {}, "--backend-store-uri is empty"),
        ({"backend_store_uri": "sqlite:a.db"}, {}, "sqlite:a.db is no store that MLflow knows"),
        ({"host": ""}, {}, "--host is '', but must be an address or a name of this machine"),
        ({"host": "*"}, {}, "--host is '*', but must be an address"),
        ({"host": "http://a"}, {}, "--host is 'http://a', but must be an address"),
        ({"host": "localhost:5000"}, {}, "--host is 'localhost:5000', but must be an address"),
        ({"host": "a\x01b"}, {}, "which has a control character"),
        ({}, {"MLFLOW_LOGGING_LEVEL": "loud"}, "MLFLOW_LOGGING_LEVEL is 'loud'"),
        ({}, {"FORWARDED_ALLOW_IPS": "proxy.example"}, "FORWARDED_ALLOW_IPS is 'proxy.example', but must be addresses"),
        ({}, {"UVICORN_SSL_CERTFILE": "cert.pem"}, "TLS is the business of a proxy"),
        ({"stock": "sometimes"}, {}, "one of lazy, background, never"),
        ({"stock": "never", "enable_webhooks": "true"}, {}, "--enable-webhooks is stock MLflow's alone"),
        ({"stock": "never"}, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true"}, "--enable-jobs is stock MLflow's alone"),
        ({"enable_jobs": "true", "auth": "true", "grants": "true"}, {}, "a job works on any experiment"),
        ({"enable_all": "true", "auth": "true", "grants": "true"}, {}, "--enable-all and --grants are both set"),
        ({"enable_all": "true", "stock": "never"}, {}, "--enable-all is stock MLflow's alone"),
        ({"enable_all": "true", "artifacts_only": "true"}, {}, "--artifacts-only and --enable-all are both set"),
        ({"enable_jobs": "true", "backend_store_uri": "./mlruns"}, {}, "--enable-jobs needs a backend store in a d"),
        ({"read_replica_backend_store_uri": "postgresql://h/d"}, {}, "both must be postgresql://"),
        (
            {"read_replica_backend_store_uri": "mysql://h/d", "backend_store_uri": "postgresql://h/d"},
            {},
            "--read-replica-backend-store-uri",
        ),
        ({"trace_archival_config": "a.yaml"}, {}, "--trace-archival-config needs --enable-jobs"),
        ({}, {"MLFLOW_TRACE_ARCHIVAL_CONFIG": "a.yaml"}, "--trace-archival-config needs --enable-jobs"),
        ({"app_name": "basic-auth", "insecure_no_auth": "true"}, {}, "are both set"),
        (
            {"stock": "never", "backend_store_uri": "./mlruns"},
            {},
            "--backend-store-uri ./mlruns is stock",
        ),
        (
            {"stock": "never", "registry_store_uri": "sqlite:///r.db"},
            {},
            "--registry-store-uri sqlite:///r.db is",
        ),
        ({"static_prefix": "mlflow"}, {}, "--static-prefix"),
        ({"static_prefix": "/mlflow/"}, {}, "--static-prefix"),
        *(
            ({"static_prefix": bad}, {}, "--static-prefix is ")
            for bad in ("/a?b", "/a b", "/a#b", "/a//b", "/\u00e9", "/..")
        ),
        ({}, {"WEB_CONCURRENCY": "*"}, "WEB_CONCURRENCY is '*', but must be a whole number"),
        ({"serve_artifacts": "perhaps"}, {}, "true or false"),
        ({"secrets_cache_ttl": "5"}, {}, "from 10 to 300"),
        ({"backend_store_uri": "sqlite://"}, {}, "in memory"),
        ({"backend_store_uri": "sqlite:///:memory:"}, {}, "in memory"),
        ({"backend_store_uri": "postgresql://u:hidden@h:port/d"}, {}, "port that is no number"),
        ({"shutdown_timeout": "-1"}, {}, "--shutdown-timeout"),
        ({"artifacts_only": "true", "serve_artifacts": "false"}, {}, "nothing is left to serve"),
        ({"artifacts_only": "true", "enable_webhooks": "true"}, {}, "--artifacts-only and --enable-webhooks"),
        ({"artifacts_only": "true", "backend_store_uri": "sqlite:///a.db"}, {}, "has no use for a database"),
        ({"grants": "true"}, {}, "--grants is set, but this server asks nobody"),
        ({"grants": "true", "host": "0.0.0.0", "insecure_no_auth": "true"}, {}, "--grants is set, but"),
    ],
)
def test_bad_values(flags: dict[str, str], environment: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(text)) as caught:
        resolve(flags, environment)
    assert "hidden" not in str(caught.value)


def test_all_that_stock_has() -> None:
    def on(flags: dict[str, str], environment: dict[str, str]) -> set[str]:
        settings = resolve(flags, environment)
        return {name for name in OF_STOCK if getattr(settings, name)}

    assert on({}, {}) == set()
    assert on({"enable_all": "true"}, {}) == on({}, {"HEADRACE_ENABLE_ALL": "1"}) == set(OF_STOCK)
    without = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "HEADRACE_ENABLE_ASSISTANT": "false"}
    assert on({"enable_all": "true"}, without) == {"enable_ai_gateway", "enable_webhooks"}
    assert on({"enable_all": "true", "auth": "true", "grants": "true"}, without) == on({"enable_all": "1"}, without)


def test_settings_are_printed_without_passwords() -> None:
    assert "hidden" not in repr(resolve({"backend_store_uri": "postgresql://u:hidden@h/d"}, {}))
    assert "hidden" not in repr(Settings(jobs_token="hidden"))


def test_what_is_not_supported_is_refused_not_ignored() -> None:
    for refused in REFUSED:
        if refused.environment:
            with pytest.raises(ConfigurationError, match=refused.environment):
                resolve({}, {refused.environment: "true"})
            resolve({}, {refused.environment: ""})
    resolve({}, {"MLFLOW_ENABLE_WORKSPACES": "false", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "False"})


def test_a_server_of_artifacts_needs_no_database() -> None:
    settings = resolve({"artifacts_only": "true", "stock": "never", "workers": "4"}, {})
    assert (settings.native, settings.workers, settings.artifacts_destination) == (False, 4, "./mlartifacts")
    guarded = resolve(
        {}, {"MLFLOW_ARTIFACTS_ONLY": "True", "HEADRACE_AUTH": "1", "MLFLOW_BACKEND_STORE_URI": "sqlite:///a"}
    )
    assert guarded.native


def told(flags: dict[str, str], environment: dict[str, str]) -> tuple[Settings, list[str]]:
    lines: list[str] = []
    return resolve(flags, environment, lines.append), lines


def test_sqlite_has_one_worker() -> None:
    for flags, environment in (({"workers": "4"}, {}), ({}, {"MLFLOW_WORKERS": "4"}), ({}, {"WEB_CONCURRENCY": "4"})):
        settings, lines = told(flags, environment)
        assert settings.workers == 1
        assert "one worker runs, not 4" in lines[-1]
    assert told({"workers": "1"}, {}) == (Settings(), [])


def test_what_others_call_it() -> None:
    postgres = {"backend_store_uri": "postgresql://h/d"}
    settings, lines = told(
        postgres, {"WEB_CONCURRENCY": "3", "FORWARDED_ALLOW_IPS": "*", "MLFLOW_LOGGING_LEVEL": "warn"}
    )
    assert (settings.workers, settings.trusted_proxies, settings.log_level) == (3, "0.0.0.0/0,::/0", "warning")
    assert len(lines) == 2
    own = {"workers": "2", "trusted_proxies": "10.0.0.1", "log_level": "debug"}
    settings, lines = told(
        postgres | own, {"WEB_CONCURRENCY": "3", "FORWARDED_ALLOW_IPS": "*", "MLFLOW_LOGGING_LEVEL": "WARN"}
    )
    assert (settings.workers, settings.trusted_proxies, settings.log_level) == (2, "10.0.0.1/32", "debug")
    assert lines == []


@pytest.mark.parametrize(
    ("pool", "budget"),
    [
        ({"POOL_SIZE": "20", "MAX_OVERFLOW": "0"}, 20),
        ({"POOL_SIZE": "20"}, 30),
        ({"MAX_OVERFLOW": "3"}, 8),
        ({"POOL_SIZE": "1", "MAX_OVERFLOW": "0"}, 5),  # the least that works
        ({"MAX_OVERFLOW": "-1"}, None),
    ],
)
def test_stocks_pool_is_a_budget(pool: dict[str, str], budget: int | None) -> None:
    environment = {f"MLFLOW_SQLALCHEMYSTORE_{name}": value for name, value in pool.items()}
    settings, lines = told({"backend_store_uri": "postgresql://h/d"}, environment)
    assert (settings.database_connections, len(lines)) == (budget, 0 if budget is None else 1)
    settings, lines = told({"backend_store_uri": "postgresql://h/d", "database_connections": "40"}, environment)
    assert (settings.database_connections, len(lines)) == (40, 1)
    assert told({}, environment)[1] == []  # SQLite


def test_kubernetes_words_about_services() -> None:
    settings, (line,) = told({}, {"MLFLOW_PORT": "tcp://10.0.0.1:80", "HEADRACE_PORT": "tcp://10.0.0.2:80"})
    assert settings.port == 5000
    assert "not taken for --port" in line


def test_what_has_no_effect_is_said() -> None:
    given = {"UVICORN_ROOT_PATH": "/a", "GUNICORN_CMD_ARGS": "-k x", "MLFLOW_AUTH_CONFIG_PATH": "a.ini"}
    _, lines = told({}, {**given, "HEADRACE_STOK": "never", "HEADRACE_PORT": "1", "HEADRACE_IMAGE": "x"})
    assert [line.split()[0] for line in lines] == [*reversed(given), "HEADRACE_PORT", "HEADRACE_STOK"]
    assert lines[-2:] == [
        "HEADRACE_PORT is set, but is no setting; did you mean MLFLOW_PORT?",
        "HEADRACE_STOK is set, but is no setting; did you mean HEADRACE_STOCK?",
    ]


def test_what_works_is_not_said() -> None:
    names = [name for row in (*stock_options.WORKS, *stock_options.STOCKS) for name in row.names]
    assert "MLFLOW_SERVER_JOB_LEASE_TTL" in names
    assert list(stock_options.lines_of(dict.fromkeys(names, "1"), ())) == []


def test_the_table_and_the_struct_agree() -> None:
    defaults = msgspec.to_builtins(Settings())
    filled_in_by_serve = {"admin_hashes", "jobs_token", "stock_socket", "builds_indexes"}
    assert set(defaults) == {setting.name for setting in SETTINGS} | filled_in_by_serve
    for setting in SETTINGS:
        words = setting.default.split(",")[0].split(" with ")[0]
        value = defaults[setting.name]
        shown = str(value).lower() if isinstance(value, bool) else str(value).removesuffix(".0")
        assert value in (None, "") or words == shown, setting.name


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_are_current(name: str) -> None:
    page = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert page == PAGES[name](), "run: python -m headrace.cli.reference docs/reference"


@pytest.mark.parametrize("workers", range(1, 33))
@pytest.mark.parametrize("given", [None, 8, 12, 13, 40, 500])
def test_the_budget_of_connections_is_never_exceeded(workers: int, given: int | None) -> None:
    flags = {"workers": str(workers), "backend_store_uri": "postgresql://h/d"}
    least = 3 + 2 * workers
    if given is not None:
        flags["database_connections"] = str(given)
        if given < least:
            with pytest.raises(ConfigurationError, match=f"need {least}"):
                resolve(flags, {})
            return
    connections = resolve(flags, {}).connections
    assert min(connections) >= 2
    assert connections.stock + workers * connections.worker + 1 <= (given or max(12, least))


@pytest.mark.parametrize("text", ["10.0.0.1,", ",10.0.0.1", "10.0.0.1, ,"])
def test_a_list_of_addresses_may_have_a_comma_too_many(text: str) -> None:
    """As a template leaves one behind; uvicorn takes it."""
    assert networks(text) == "10.0.0.1/32"
    with pytest.raises(ValueError, match=r"^$"):
        networks(text.replace("10.0.0.1", ""))
