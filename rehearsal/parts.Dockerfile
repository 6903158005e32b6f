# What stands for AWS's parts in the rehearsal: PostgreSQL for RDS, Docker's registry for ECR, and the host itself.
ARG BASE_IMAGE=python:3.12-slim
FROM ${BASE_IMAGE}
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        apache2-utils curl docker-registry openssl postgresql \
    && rm -rf /var/lib/apt/lists/*
