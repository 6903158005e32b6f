"""docs/reference/endpoints.md, made from the declarations: `python -m headrace.resources.reference FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from headrace.api.endpoint import Endpoint
from headrace.auth.objects import Both, ModelVersionFiles, OneOf, Target, WithModels
from headrace.resources import all_endpoints
from headrace.settings import Settings

_HEAD = """\
# Endpoints

<!-- Made by `python -m headrace.resources.reference docs/reference/endpoints.md`. -->

Every endpoint that MLflow's server has, from the declarations in `src/headrace/resources/`. *Native*: Headrace answers
by itself, from the tables that are named, as long as these are as it knows them. *Stock*: the stock process behind it
answers. The right is what the sender needs, and on what; a path that is not here needs an administrator.

"""


def render() -> str:
    """The page."""
    endpoints = all_endpoints(Settings())
    native = [each for each in endpoints if each.handler is not None]
    native.sort(key=lambda each: (each.path, each.method))  # not by which module was imported first
    others = [each for each in endpoints if each.handler is None]
    page = _HEAD + f"## Native: {len(native)}\n\n| method | path | right | on | tables |\n|---|---|---|---|---|\n"
    page += "".join(f"{_row(each)} {', '.join(sorted(each.tables))} |\n" for each in native)
    page += "\n## Stock, or streamed by Headrace (artifacts, the UI's files)\n\n"
    page += "| method | path | right | on |\n|---|---|---|---|\n"
    return page + "".join(f"{_row(each)}\n" for each in others)


def _row(each: Endpoint) -> str:
    right = each.right.name.lower().replace("_", "-")
    return f"| {each.method} | `{each.path}` | {right} | {_words(each.target)} |"


def _words(target: Target) -> str:
    if isinstance(target, Both):
        return " and ".join(map(_words, target.targets))
    if isinstance(target, WithModels):
        return f"{_words(target.target)}, and the logged models that it names"
    if isinstance(target, OneOf):
        return " or ".join(map(_words, target.targets))
    if isinstance(target, ModelVersionFiles):
        return "model: `name`, and the experiment of the `version`'s files"
    if target.filtered:
        return "what is granted"
    if target.creates:
        return f"a new {target.creates}"
    if not target.checked:
        return "the server"
    return f"{target.kind or 'source'}: {' or '.join(f'`{field}`' for field in target.fields or ('locations',))}"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")
