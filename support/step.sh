#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Run one of our own steps, `prepare` or `report`, with our own code and nobody else's.
#
# A job may set PYTHONPATH=src, and the working directory is the pull request's: python must look into neither.
set -euo pipefail

cd "${RUNNER_TEMP}"
unset PYTHONHOME PYTHONSTARTUP
export PYTHONPATH=${GITHUB_ACTION_PATH} PYTHONNOUSERSITE=1 PYTHONSAFEPATH=1
exec "${GATE_PYTHON}" -P -m gate.action "$1"
