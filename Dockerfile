# SPDX-License-Identifier: Apache-2.0
# The Linux image: `gate` with its engine, for `docker run --network none --read-only` (gate/action/apart.py says how it is run).
#
# Pin the base by digest when building for others, as .github/workflows/image.yml does:
#   docker build --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:… .
# The default torch of PyPI is the CUDA build, several GB. Name the index of the CPU build:
#   docker build --build-arg PIP_EXTRA_INDEX_URL=… .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS base

FROM base AS build
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python3 -m venv /opt/gate
COPY constraints.txt ./
# torch first, in a layer of its own: our code changes daily, torch does not.
RUN PIP_EXTRA_INDEX_URL="${PIP_EXTRA_INDEX_URL}" /opt/gate/bin/pip install --constraint constraints.txt torch numpy
COPY pyproject.toml README.md LICENSE ./
COPY gate gate
COPY policies policies
COPY templates templates
COPY examples/workflows examples/workflows
RUN PIP_EXTRA_INDEX_URL="${PIP_EXTRA_INDEX_URL}" \
      /opt/gate/bin/pip install --constraint constraints.txt ".[engine,onnx,images]" \
    && /opt/gate/bin/pip uninstall --yes pip setuptools
# What only builds, types and tests of others need; it is a fifth of the image. torch/testing stays, since torch imports it.
COPY support/slim.sh ./
RUN ./slim.sh /opt/gate

FROM base
COPY --from=build /opt/gate /opt/gate
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1 HOME=/tmp
USER 65534:65534
WORKDIR /gate/source
ENTRYPOINT ["/opt/gate/bin/gate"]
CMD ["--help"]
