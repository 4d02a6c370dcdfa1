#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Run the evaluation without anything of the job's environment.
#
# `exec env -i` replaces this process, so that /proc/PID/environ of it forgets what the job's environment held: a token, the
# paths of the command files, the folders of the runner. What is let through is listed here and nowhere else.
set -euo pipefail

cd "${GATE_WORK}"
kept=(PATH="${PATH}" HOME="${HOME}" LANG=C.UTF-8 GATE_WORK="${GATE_WORK}")
kept+=(PYTHONPATH="${GITHUB_ACTION_PATH}" PYTHONNOUSERSITE=1 PYTHONSAFEPATH=1)
for name in DOCKER_HOST DOCKER_CONFIG INPUT_CONFIG INPUT_MODELS INPUT_POLICIES INPUT_ENGINE INPUT_FAIL_ON INPUT_TIME_LIMIT_MINUTES \
  INPUT_SHARD INPUT_PLAN INPUT_HAND_OVER INPUT_DEVICE INPUT_DEVELOPMENT_TEAM INPUT_CACHE \
  INPUT_CACHE_KEY; do
  if [[ -n ${!name:-} ]]; then
    kept+=("${name}=${!name}")
  fi
done
exec env -i "${kept[@]}" "${GATE_PYTHON}" -P -m gate.action evaluate
