#!/usr/bin/env bash
# `make rehearse`: finds a Docker engine, or starts one for the time of the rehearsal, and runs it.
#
# An engine that answers needs a base image with Python: BASE_IMAGE, or the Dockerfile's default where it can be pulled.
# Where none answers, the tool DOCKER_HERE starts one (by default ../shared/tools/docker-here.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
tool=${DOCKER_HERE:-../shared/tools/docker-here.sh}

if ! docker info >/dev/null 2>&1; then
    if [ ! -x "$tool" ]; then
        echo "REHEARSAL NOT RUN: no Docker engine answers here, and there is no $tool to start one" >&2
        exit 0
    fi
    trap '"$tool" stop' EXIT
    eval "$("$tool" start)"
fi
.venv/bin/pytest rehearsal --exitfirst "$@"
