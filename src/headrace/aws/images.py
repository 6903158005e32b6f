"""Container images in ECR: full names, digests, and publishing from a source tree."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from datetime import datetime
from pathlib import Path

import headrace
from headrace.aws.client import Cloud, passing_over
from headrace.aws.stacks import Say
from headrace.errors import AwsError

LATEST = "latest"
RUNNING, PREVIOUS = "headrace-running", "headrace-previous"  # tags; data.yaml's lifecycle rule knows their beginning
_MANIFESTS = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
]
_ARCHITECTURES = {"arm64": "arm64", "amd64": "x86_64"}  # Docker's word -> Amazon's


def full_name(cloud: Cloud, name: str, image: str | None) -> str:
    """An image's whole name: a tag means one of the deployment's own repository, nothing its latest."""
    if image and "/" in image:
        return image
    return f"{cloud.account()}.dkr.ecr.{cloud.region}.amazonaws.com/{name}:{image or LATEST}"


def repository_exists(cloud: Cloud, name: str) -> bool:
    """Whether ECR has the repository."""
    try:
        cloud.call("ecr", "describe_repositories", repositoryNames=[name])
    except AwsError as error:
        if error.code == "RepositoryNotFoundException":
            return False
        raise
    return True


def pinned(cloud: Cloud, name: str, image: str) -> str | None:
    """The image by its digest, so that every host runs the same; None where ECR does not have it.

    An image of another registry, or one with a digest, is taken as it is.
    """
    if "@" in image or not _is_ours(cloud, name, image):
        return image
    repository, tag = image.rsplit(":", 1)
    try:
        found = cloud.call("ecr", "describe_images", repositoryName=name, imageIds=[{"imageTag": tag}])
    except AwsError as error:
        if error.code in ("ImageNotFoundException", "RepositoryNotFoundException"):
            return None
        raise
    return f"{repository}@{found['imageDetails'][0]['imageDigest']}"


def pushed(cloud: Cloud, name: str, image: str) -> datetime | None:
    """When the image, by its digest, came to ECR; None for another registry's, and where it is gone."""
    _, _, digest = image.partition("@")
    if not digest or not _is_ours(cloud, name, image):
        return None
    found: list[datetime] = []
    with passing_over("ImageNotFoundException", "RepositoryNotFoundException"):
        answer = cloud.call("ecr", "describe_images", repositoryName=name, imageIds=[{"imageDigest": digest}])
        found = [one["imagePushedAt"] for one in answer["imageDetails"]]
    return found[0] if found else None


def keep(cloud: Cloud, name: str, running: str, previous: str, say: Say) -> None:
    """Tag what the hosts run, and what `rollback` goes back to, so that the repository's lifecycle rule spares both.

    Images of another registry are passed over, and those that are gone.
    """
    for tag, image in ((PREVIOUS, previous), (RUNNING, running)):  # at no time does what has just run have no tag
        _, _, digest = image.partition("@")
        if not digest or not _is_ours(cloud, name, image):
            continue
        found = cloud.call(
            "ecr",
            "batch_get_image",
            repositoryName=name,
            imageIds=[{"imageDigest": digest}],
            acceptedMediaTypes=_MANIFESTS,
        )["images"]
        if not found:
            say(f"ECR in {cloud.region} has no {image} any more: a new host could not pull it. Push it again.")
            continue
        with passing_over("ImageAlreadyExistsException"):  # it has that tag
            try:
                cloud.call(
                    "ecr",
                    "put_image",
                    repositoryName=name,
                    imageManifest=found[0]["imageManifest"],
                    imageManifestMediaType=found[0].get("imageManifestMediaType", _MANIFESTS[-1]),
                    imageDigest=digest,
                    imageTag=tag,
                )
            except AwsError as error:
                if error.code != "ImageTagAlreadyExistsException":
                    raise
                say(f"The tags of the repository {name} can't be moved: its own lifecycle rule must spare {image}.")


def architecture(cloud: Cloud, name: str, image: str) -> str | None:
    """arm64 or x86_64, as the image in ECR is built (arm64 of one for both); None where ECR has no such image."""
    if not _is_ours(cloud, name, image) or pinned(cloud, name, image) is None:
        return None
    _, separator, digest = image.partition("@")
    which = {"imageDigest": digest} if separator else {"imageTag": image.rsplit(":", 1)[1]}
    found = cloud.call("ecr", "batch_get_image", repositoryName=name, imageIds=[which], acceptedMediaTypes=_MANIFESTS)[
        "images"
    ]
    manifest = json.loads(found[0]["imageManifest"]) if found else {}
    if "manifests" in manifest:
        built = {one.get("platform", {}).get("architecture") for one in manifest["manifests"]}
    elif digest := manifest.get("config", {}).get("digest"):
        url = cloud.call("ecr", "get_download_url_for_layer", repositoryName=name, layerDigest=digest)["downloadUrl"]
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - a URL that AWS has signed
            built = {json.load(answer).get("architecture")}
    else:
        built = set()
    return next((ours for theirs, ours in _ARCHITECTURES.items() if theirs in built), None)


def publish(cloud: Cloud, name: str, image: str, built_for: str, say: Say) -> None:
    """Build the image for an architecture from this source tree and push it, with the pipeline's own script.

    Raises AwsError.
    """
    script = Path(headrace.__file__).resolve().parents[2] / "container" / "publish.sh"
    missing = [program for program in ("docker", "aws") if shutil.which(program) is None]
    if not script.exists() or missing or image.rsplit(":", 1)[1] != LATEST:
        why = (
            f"this Headrace is not run from its source tree, so that it can't build {image}"
            if not script.exists()
            else f"{' and '.join(missing)} is not installed here"
            if missing
            else "only `latest` is built by itself"
        )
        raise AwsError(
            f"ECR in {cloud.region} has no image {image}, and {why}.\nLet the pipeline push it (docs/pipeline.md), or "
            "run container/publish.sh build and push in the source tree; or name another image with --image. Then run "
            "the command again: it continues."
        )
    environment = {
        **cloud.environment(),
        "APP_NAME": name,
        "DOCKER_DEFAULT_PLATFORM": "linux/amd64" if built_for == "x86_64" else "linux/arm64",
    }
    for action in ("build", "push"):
        say(f"container/publish.sh {action}")
        if code := subprocess.run([script, action], env=environment, check=False).returncode:
            raise AwsError(
                f"container/publish.sh {action} failed with exit code {code}; its words are above. Then run the "
                "command again: it continues."
            )


def _is_ours(cloud: Cloud, name: str, image: str) -> bool:
    repository = full_name(cloud, name, LATEST).removesuffix(f":{LATEST}")
    return image.startswith((f"{repository}:", f"{repository}@"))
