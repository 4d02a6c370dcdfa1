# SPDX-License-Identifier: Apache-2.0
"""Cut GitHub's OpenAPI description down to the endpoints that we call.

npm pack @octokit/openapi && tar xzf octokit-openapi-*.tgz
python make_openapi_subset.py package/generated/api.github.com.json github-openapi.json
"""

import json
import sys
from pathlib import Path
from typing import Any

ENDPOINTS = {
    "/repos/{owner}/{repo}": ("get",),
    "/repos/{owner}/{repo}/issues/{issue_number}/events": ("get",),
    "/repos/{owner}/{repo}/collaborators/{username}/permission": ("get",),
    "/repos/{owner}/{repo}/labels/{name}": ("get",),
    "/repos/{owner}/{repo}/rules/branches/{branch}": ("get",),
    "/repos/{owner}/{repo}/actions/runs": ("get",),
    "/repos/{owner}/{repo}/actions/permissions/workflow": ("get",),
    "/repos/{owner}/{repo}/issues/{issue_number}/comments": ("get", "post"),
    "/repos/{owner}/{repo}/issues/comments/{comment_id}": ("get", "patch", "delete"),
    "/repos/{owner}/{repo}/actions/runs/{run_id}": ("get",),
    "/repos/{owner}/{repo}/actions/runs/{run_id}/artifacts": ("get",),
    "/repos/{owner}/{repo}/actions/artifacts/{artifact_id}/{archive_format}": ("get",),
    "/repos/{owner}/{repo}/actions/workflows/{workflow_id}/runs": ("get",),
    "/repos/{owner}/{repo}/compare/{basehead}": ("get",),
    "/repos/{owner}/{repo}/contents/{path}": ("get",),
    "/repos/{owner}/{repo}/pulls": ("get",),
    "/repos/{owner}/{repo}/pulls/{pull_number}": ("get",),
    "/repos/{owner}/{repo}/pulls/{pull_number}/files": ("get",),
    "/repos/{owner}/{repo}/releases/latest": ("get",),
    "/repos/{owner}/{repo}/releases/assets/{asset_id}": ("get",),
    "/repos/{owner}/{repo}/statuses/{sha}": ("post",),
    "/user": ("get",),
}
UNNEEDED = {"examples", "example", "x-github", "externalDocs"}


def stripped(node: Any) -> Any:
    """Drop examples, and empty the prose: a response must have a description, but may say nothing in it."""
    if isinstance(node, dict):
        kept = {key: stripped(value) for key, value in node.items() if key not in UNNEEDED}
        return kept | ({"description": ""} if isinstance(kept.get("description"), str) else {})
    return [stripped(item) for item in node] if isinstance(node, list) else node


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(value) for value in node.values()))
    return set().union(*(references(item) for item in node)) if isinstance(node, list) else set()


def subset(whole: dict[str, Any]) -> dict[str, Any]:
    paths = {path: {m: stripped(whole["paths"][path][m]) for m in methods} for path, methods in ENDPOINTS.items()}
    components: dict[str, dict[str, Any]] = {}
    waiting, done = references(paths), set[str]()
    while waiting:
        reference = waiting.pop()
        done.add(reference)
        _, kind, name = reference.rsplit("/", 2)
        components.setdefault(kind, {})[name] = node = stripped(whole["components"][kind][name])
        waiting |= references(node) - done
    info = {"title": whole["info"]["title"], "version": whole["info"]["version"]}
    ordered = {kind: dict(sorted(named.items())) for kind, named in sorted(components.items())}
    return {"openapi": whole["openapi"], "info": info, "paths": paths, "components": ordered}


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_text(json.dumps(subset(json.loads(source.read_text())), separators=(",", ":")) + "\n")
