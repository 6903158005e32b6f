#!/usr/bin/env bash
# Builds Headrace's image and pushes it to ECR: what .gitlab-ci.yml runs, and anyone can.
#
#   container/publish.sh build    docker build, from the repository's folder
#   container/publish.sh push     make the ECR repository if it is missing, log in, push both tags
#
# AWS_DEFAULT_REGION is needed, and credentials where AWS's tools look for them.
#   APP_NAME          the repository's name in ECR (mlflow)
#   DOCKER_REGISTRY   ECR's host; by default this account's: ACCOUNT.dkr.ecr.REGION.amazonaws.com
#   IMAGE_TAG         the tag beside `latest`; by default GitLab's CI_COMMIT_SHORT_SHA, or git's
#   BASE_IMAGE        the image to build on (container/Dockerfile has the default)
#   RDS_CERTIFICATES  where AWS has the certificates of RDS, for hosts that can't fetch them; empty for an image without
#   RDS_CERTIFICATES_SHA256  of newer ones than container/Dockerfile knows
#   BUILD_OPTIONS     more options for docker build
set -euo pipefail
cd "$(dirname "$0")/.."

app=${APP_NAME:-mlflow}
tag=${IMAGE_TAG:-${CI_COMMIT_SHORT_SHA:-$(git rev-parse --short=8 HEAD)}}

find_registry() {
    : "${AWS_DEFAULT_REGION:?is not set: the region of the registry, such as us-east-1}"
    if [ -z "${DOCKER_REGISTRY:-}" ]; then
        local account
        account=$(aws sts get-caller-identity --query Account --output text)
        DOCKER_REGISTRY=$account.dkr.ecr.$AWS_DEFAULT_REGION.amazonaws.com
    fi
    image=$DOCKER_REGISTRY/$app
}

build() {
    local options=()
    if [ -n "${BASE_IMAGE:-}" ]; then options+=(--build-arg "BASE_IMAGE=$BASE_IMAGE"); fi
    local certificates=https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem
    options+=(--build-arg "RDS_CERTIFICATES=${RDS_CERTIFICATES-$certificates}")
    if [ -n "${RDS_CERTIFICATES_SHA256:-}" ]; then
        options+=(--build-arg "RDS_CERTIFICATES_SHA256=$RDS_CERTIFICATES_SHA256")
    fi
    # shellcheck disable=SC2206 # several options in one variable
    options+=(${BUILD_OPTIONS:-})
    docker build "${options[@]}" --file container/Dockerfile --tag "$image:$tag" --tag "$image:latest" .
}

push() {
    aws ecr describe-repositories --repository-names "$app" >/dev/null 2>&1 ||
        aws ecr create-repository --repository-name "$app" --image-scanning-configuration scanOnPush=true >/dev/null
    aws ecr get-login-password --region "$AWS_DEFAULT_REGION" |
        docker login --username AWS --password-stdin "$DOCKER_REGISTRY"
    docker push --quiet "$image:$tag"
    docker push --quiet "$image:latest"
}

case ${1:-} in
build | push)
    find_registry
    "$1"
    ;;
*)
    echo "usage: container/publish.sh build | push" >&2
    exit 2
    ;;
esac
