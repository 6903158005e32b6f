"""What people do with the model registry, by MLflow's client of any version: `registry_script.py URL NAME`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

url, name = sys.argv[1:]
mlflow.set_tracking_uri(url)
client = mlflow.MlflowClient()
found: dict[str, Any] = {}


def refused(call: Callable[..., object], *arguments: object) -> str | None:
    try:
        call(*arguments)
    except MlflowException as error:
        return str(error.error_code)
    return None


run = client.create_run("0")
client.create_registered_model(name, tags={"team": "größe"}, description="what")
found["taken"] = refused(client.create_registered_model, name)
found["unknown"] = refused(client.get_registered_model, "no such model")
for _ in range(2):
    client.create_model_version(name, f"runs:/{run.info.run_id}/model", run.info.run_id, tags={"checked": "no"})
client.update_registered_model(name, description="what it does")
client.set_model_version_tag(name, "2", "checked", "yes")
client.set_registered_model_alias(name, "best", "1")
client.set_registered_model_alias(name, "best", "2")
client.set_registered_model_alias(name, "other", "1")
client.delete_registered_model_alias(name, "other")
client.transition_model_version_stage(name, "2", "Production", archive_existing_versions=True)
client.update_model_version(name, "2", description="second")
found["versions"] = [
    each.version for each in client.search_model_versions(f"name = '{name}'", order_by=["version_number DESC"])
]
found["versions"] = [str(each) for each in found["versions"]]
found["uri"] = client.get_model_version_download_uri(name, "2").endswith("/model")
client.rename_registered_model(name, f"{name} renamed")
name = f"{name} renamed"
model = client.get_registered_model(name)
found["description"], found["tags"] = model.description, dict(model.tags)
found["latest"] = {each.current_stage: str(each.version) for each in client.get_latest_versions(name)}
version = client.get_model_version_by_alias(name, "best")
found["by alias"], found["version tags"] = str(version.version), dict(version.tags)
found["found"] = [each.name for each in client.search_registered_models(f"name = '{name}'")]
found["copy"] = found["prompt"] = None
if int(mlflow.__version__.split(".")[0]) > 2:
    copy = client.copy_model_version(f"models:/{name}@best", f"{name} copied")
    found["copy"] = str(copy.version)
    for template in ("Say {{what}}.", "Shout {{what}}!"):
        mlflow.genai.register_prompt(name="greeting", template=template)
    found["prompt"] = [mlflow.genai.load_prompt(f"prompts:/greeting/{number}").template for number in (1, 2)]
client.delete_model_version(name, "1")
client.delete_registered_model(name)
found["after"] = refused(client.get_registered_model, name)
print(json.dumps(found))
