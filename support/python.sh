#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Set the output `python`: the interpreter of the user's choice, or a virtual environment with our light dependencies.
#
# Ours lies below RUNNER_TEMP, not in the workspace, which belongs to the pull request. The engine comes later
# (engine.sh), when it is known that a model is concerned.
set -euo pipefail

if [[ -n ${INPUT_PYTHON:-} ]]; then
  python=$(command -v -- "${INPUT_PYTHON}") || {
    echo "::error title=Core ML gate::input python: ${INPUT_PYTHON//$'\n'/ }: not found; expected an interpreter with coreml-gate's dependencies"
    exit 2
  }
else
  cd "${RUNNER_TEMP}" # pip and python read files of the working directory, and here is nobody else's
  "${SETUP_PYTHON:-python3}" -m venv coreml-gate-venv
  python="${RUNNER_TEMP}/coreml-gate-venv/bin/python"
  "${python}" -m pip install --quiet --disable-pip-version-check \
    --constraint "${GITHUB_ACTION_PATH}/constraints.txt" "${GITHUB_ACTION_PATH}"
fi
echo "python=${python}" >>"${GITHUB_OUTPUT}"
