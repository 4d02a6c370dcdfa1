#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Bring torch and coremltools: by image for a container, by wheels for anything else; coremltools alone to answer about a hand-over.
#
# An interpreter of the user's choice is left as it is.
set -euo pipefail

cd "${RUNNER_TEMP}"
if [[ ${GATE_SANDBOX} == container ]]; then
  if [[ ${GATE_IMAGE} == *@sha256:* ]]; then
    docker pull --quiet "${GATE_IMAGE}"
  else # support/image.lock says `local`: a development ref
    docker build --quiet --tag "${GATE_IMAGE}" \
      --build-arg "PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL:-}" "${GITHUB_ACTION_PATH}"
  fi
elif [[ -z ${INPUT_PYTHON:-} ]]; then
  "${GATE_PYTHON}" -m pip install --quiet --disable-pip-version-check \
    --constraint "${GITHUB_ACTION_PATH}/constraints.txt" "${GITHUB_ACTION_PATH}[${GATE_EXTRA:-engine,onnx}]"
fi
