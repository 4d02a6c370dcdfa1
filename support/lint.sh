#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Lint what GitHub and Docker run: action.yml, the workflows, the scripts and the Dockerfile. Needs no network.
#
# Schemas first: zizmor warns about a file that it cannot read, and skips it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The example workflows name each other, so they are linted where a team puts them.
lint_as_copied() {
  local repository
  repository=$(mktemp -d)
  mkdir -p "${repository}/.github"
  cp -R "$1" "${repository}/.github/workflows"
  git -C "${repository}" init --quiet
  (cd "${repository}" && jactionlint --no-color --format oneline)
  rm -rf "${repository}"
}

workflows=(.github/workflows/*.yml examples/workflows/*.yml)
check-jsonschema --quiet --builtin-schema vendor.github-actions action.yml
check-jsonschema --quiet --builtin-schema vendor.github-workflows "${workflows[@]}"
check-jsonschema --quiet --builtin-schema custom.github-workflows-require-timeout "${workflows[@]}"
shellcheck support/*.sh
jactionlint --no-color --format oneline action.yml .github/workflows/*.yml
lint_as_copied examples/workflows
zizmor --offline --quiet --no-progress --color=never action.yml "${workflows[@]}"
hadolint Dockerfile
echo "action, workflows, scripts and Dockerfile: clean"
