"""The settings of a command line, an environment, the container's variables and AWS Systems Manager."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from headrace import database_url, rds_token, ssm, stock_options, uri
from headrace.errors import ConfigurationError
from headrace.settings import Settings, least_connections
from headrace.settings.checks import check_server, check_stores
from headrace.settings.table import CONTAINER, LEVELS, OF_STOCK, SETTINGS, Setting
from headrace.settings.values import text as as_text


def resolve(
    flags: Mapping[str, str],
    environment: Mapping[str, str],
    say: Callable[[str], None] = lambda line: None,
    serves: bool = True,
) -> Settings:
    """Make the settings of the command line's `flags` (name -> text), the environment and the defaults.

    A flag wins over its environment variable, and that over the container's variables (BUCKET, USERNAME,
    PASSWORD, HOST, PORT, DATABASE), which come from AWS Systems Manager where a prefix is set and no backend store.
    An empty environment variable counts as unset, as click has it. `say` is told what is set and has another effect
    than one may think, or none. `serves`: for a server; another command that has the server's variables does not care
    which of them a server could not start with. Raises ConfigurationError, which names the option and what to do.
    """
    for refused in stock_options.REFUSED:
        if environment.get(refused.environment, "").lower() not in refused.harmless:
            raise ConfigurationError(f"{refused.environment} is set, but {refused.instead}.")
    for line in stock_options.lines_of(environment, {setting.environment for setting in SETTINGS}):
        say(line)
    of_ssm = _with_parameters(flags, environment)
    asked_ssm, environment = of_ssm is not environment, of_ssm
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        source, text = setting.flag, flags.get(setting.name)
        if text == "" and setting.parse is as_text:  # mostly a shell's variable that is not set
            if setting.name in _NEVER_EMPTY:
                raise ConfigurationError(f"{source} is empty. Give it a value, or leave it out.")
            continue
        if text is None:
            source, text = setting.environment, environment.get(setting.environment) or None
        if text is not None and source == "MLFLOW_PORT" and stock_options.is_of_kubernetes(text):
            say(f"{source} is {text}, Kubernetes' word about a service: it is not taken for --port")
        elif text is not None:
            values[setting.name] = _parse(setting, source, text)
    if not asked_ssm:
        values.pop("ssm_prefix", None)  # another store wins
    _take_others(values, environment, say)
    if values.get("enable_all"):
        values = dict.fromkeys(OF_STOCK, True) | values
    given = "backend_store_uri" in values
    if not given and environment.get("DATABASE") and environment.get("HOST"):
        values = _of_container(values, environment) | values
        given = True
    if given or values.get("artifacts_only"):
        values.setdefault("artifacts_destination", "./mlartifacts")  # stock's default: an existing server's artifacts
    settings = _within_budget(_artifact_root(Settings(**values), values), environment, say)
    if settings.native and isinstance(settings.database, database_url.SqliteURL) and settings.workers > 1:
        say(f"SQLite has one writer: one worker runs, not {settings.workers}. With PostgreSQL all of them would")
        settings = msgspec.structs.replace(settings, workers=1)
    check_stores(settings, environment)
    if serves:
        check_server(settings)
    return _with_token(settings, environment)


# Another server would start than the one that was meant. The others are as if they were not given, as in stock.
_NEVER_EMPTY = ("backend_store_uri", "artifacts_destination", "default_artifact_root", "ssm_prefix")


# What other programs call these things, and what it may say.
_LEVELS_OF_PYTHON = {"WARN": "warning", "CRITICAL": "error", "FATAL": "error"} | {name.upper(): name for name in LEVELS}


_EVERYBODY = "0.0.0.0/0,::/0"


def _take_others(values: dict[str, Any], environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Settings that are not given, from variables that stock, uvicorn or gunicorn have for the same thing."""
    if "log_level" not in values and (level := environment.get("MLFLOW_LOGGING_LEVEL")):
        if level.upper() not in _LEVELS_OF_PYTHON:
            raise ConfigurationError(f"MLFLOW_LOGGING_LEVEL is {level!r}, but must be DEBUG, INFO, WARNING or ERROR.")
        values["log_level"] = _LEVELS_OF_PYTHON[level.upper()]
    if "app_name" in values and values.get("insecure_no_auth"):
        raise ConfigurationError("--app-name basic-auth and --insecure-no-auth are both set. Leave one of them out.")
    if "app_name" in values and not values.get("auth"):
        values["auth"] = True
        say("--app-name basic-auth is taken for --auth; `headrace user import basic_auth.db` takes over its users")
    by_name = {setting.name: setting for setting in SETTINGS}
    others = ("workers", "WEB_CONCURRENCY", "*"), ("trusted_proxies", "FORWARDED_ALLOW_IPS", _EVERYBODY)
    for name, variable, everybody in others:
        if name not in values and (text := environment.get(variable)):
            values[name] = _parse(by_name[name], variable, everybody if text.strip() == "*" else text)
            say(f"{variable} is taken for {by_name[name].flag}")


def _within_budget(settings: Settings, environment: Mapping[str, str], say: Callable[[str], None]) -> Settings:
    """With stock's variables of its pool as --database-connections, where that is not given. SQLAlchemy's defaults."""
    names = ("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW")
    given = [environment.get(name) for name in names]
    if not any(given) or not isinstance(settings.database, database_url.PostgresURL):
        return settings
    if settings.database_connections:
        say(f"{' and '.join(names)} have no effect beside --database-connections")
        return settings
    try:
        size, overflow = (int(text or default) for text, default in zip(given, (5, 10), strict=True))
    except ValueError:
        raise ConfigurationError(f"{' and '.join(names)} must be whole numbers.") from None
    if size <= 0 or overflow < 0:  # without a limit
        return settings
    most = 10_000  # of --database-connections
    connections = min(max(size + overflow, sum(least_connections(settings))), most)
    say(f"{' and '.join(names)} are taken for --database-connections {connections}")
    return msgspec.structs.replace(settings, database_connections=connections)


def _with_parameters(flags: Mapping[str, str], environment: Mapping[str, str]) -> Mapping[str, str]:
    """The environment, with the parameters of --ssm-prefix as the container's variables and those of settings."""
    prefix = flags.get("ssm_prefix") or environment.get("HEADRACE_SSM_PREFIX")
    if not prefix or flags.get("backend_store_uri") or environment.get("MLFLOW_BACKEND_STORE_URI"):
        return environment
    return {**environment, **ssm.read(prefix, environment, {each.name: each.environment for each in SETTINGS})}


def _parse(setting: Setting, source: str, text: str) -> Any:
    try:
        value = setting.parse(text)
    except ValueError:
        shown = _shown(text, setting.secret)
        raise ConfigurationError(f"{source} is {shown}, but must be {setting.parse.__doc__}.") from None
    if isinstance(value, str):
        _check_ends(source, text, setting.secret)
        if not setting.secret and _CONTROL.search(text):
            raise ConfigurationError(f"{source} is {_shown(text)}, which has a control character in it. Take it out.")
        if not setting.secret and (unseen := _UNSEEN.search(text)):
            raise ConfigurationError(
                f"{source} is {_shown(text)}, which has a character in it that nobody sees (U+{ord(unseen[0]):04X}). "
                "Write it anew; files and web pages bring such along."
            )
    return value


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNSEEN = re.compile("[\u200b\u202a-\u202e\u2060\ufeff]")
_MOST_SHOWN = 200  # letters of a value


def _shown(text: str, secret: bool = False) -> str:
    """For a message of one line."""
    if secret:
        return "***"
    text = uri.redact(text)
    return repr(text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "...")


def _check_ends(source: str, text: str, secret: bool = False) -> None:
    """Raises ConfigurationError for what came along: a file's new line, quotes that only a shell takes off."""
    shown = _shown(text, secret)
    if text != text.strip():
        raise ConfigurationError(
            f"{source} is {shown}, which has a blank or a new line at an end. Take it out; `echo` and files add one."
        )
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        raise ConfigurationError(
            f"{source} is {shown}, which has quotes around it. Take them out: docker's --env-file and systemd's lists "
            "keep them."
        )


_NO_UTF8 = re.compile("[\ud800-\udfff]")  # bytes of an environment that are none
_NO_HOST = re.compile(r"[\x00-\x20\x7f/?#@\[\]\\]|.{400}")


def _of_container(values: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings that the container's variables stand for."""
    by_token = values.get("db_auth") == "iam"
    needed = ["USERNAME"] if by_token else ["USERNAME", "PASSWORD"]
    if "artifacts_destination" not in values and "default_artifact_root" not in values:
        needed.append("BUCKET")
    if missing := [name for name in needed if not environment.get(name)]:
        raise ConfigurationError(
            f"HOST and DATABASE are set, but not {', '.join(missing)}. "
            "Set what is missing (--env in docker run, or a parameter of --ssm-prefix), or use --backend-store-uri."
        )
    for name in CONTAINER.keys() & environment.keys():
        # a password may have quotes around it, and blanks; a new line at its end is a file's
        if name != "PASSWORD" or environment[name].endswith("\n"):
            _check_ends(name, environment[name], name == "PASSWORD")
        if _NO_UTF8.search(environment[name]):
            raise ConfigurationError(
                f"{name} is not in UTF-8, as PostgreSQL and MLflow read it. Write it anew in that."
            )
    port = environment.get("PORT") or "5432"
    if not (port.isascii() and port.isdecimal() and len(port) <= 5):
        raise ConfigurationError(f"PORT is {_shown(port)}, but must be the database's port number, such as 5432.")
    host = environment["HOST"].removeprefix("[").removesuffix("]")
    if not host or _NO_HOST.search(host):
        raise ConfigurationError(
            f"HOST is {_shown(environment['HOST'])}, but must be the database's name or address, as in "
            "db.example.com, and nothing beside it. Use --backend-store-uri for a socket."
        )
    login = quote(environment["USERNAME"], safe="")
    if not by_token:
        login += f":{quote(environment['PASSWORD'], safe='')}"
    address = f"{f'[{host}]' if ':' in host else host}:{port}"
    made = {
        "backend_store_uri": f"postgresql://{login}@{address}/{quote(environment['DATABASE'], safe='')}",
        "host": "0.0.0.0",  # noqa: S104 - inside a container, whose published ports decide
    }
    if bucket := environment.get("BUCKET"):
        if "://" not in bucket:
            raise ConfigurationError(f"BUCKET is {_shown(bucket)}, but must be a URI such as s3://mlflow-artifacts.")
        made["artifacts_destination"] = bucket
        if values.get("serve_artifacts") is False:
            made["default_artifact_root"] = bucket
    return made


def _artifact_root(settings: Settings, values: dict[str, Any]) -> Settings:
    """Stock's default root (mlflow.utils.server_cli_utils.resolve_default_artifact_root)."""
    if settings.serve_artifacts or "default_artifact_root" in values:
        return settings
    root = "./mlruns" if settings.database is not None else settings.backend_store_uri
    return msgspec.structs.replace(settings, default_artifact_root=root)


_LOGIN = re.compile(r"//([^:@/]*)(?::[^@]*)?@")


def _with_token(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """With a token in the place of the password, good for connections of the next quarter of an hour."""
    if settings.db_auth != "iam" or not settings.native:
        return settings
    database = database_url.parse(settings.backend_store_uri, environment)
    assert isinstance(database, database_url.PostgresURL)
    host = database.hosts[0]
    token = quote(rds_token.make(host.name, host.port, database.user, environment), safe="")
    url = _LOGIN.sub(lambda found: f"//{found[1]}:{token}@", settings.backend_store_uri, count=1)
    return msgspec.structs.replace(settings, backend_store_uri=url)


def without_password(settings: Settings, passfile: str) -> Settings:
    """With a password file in the place of the password in the backend store's URL."""
    url = _LOGIN.sub(lambda found: f"//{found[1]}@", settings.backend_store_uri, count=1)
    url += f"{'&' if '?' in url else '?'}passfile={quote(passfile, safe='')}"
    return msgspec.structs.replace(settings, backend_store_uri=url)
