"""Cut GitHub's OpenAPI description (npm: @octokit/openapi, MIT) down to the endpoints we call.
usage: make_openapi_subset.py api.github.com.json out.json   (same for ghes-3.19.json)"""

import json, sys

WANT = {
    "/repos/{owner}/{repo}/issues/{issue_number}/comments": ["get", "post"],
    "/repos/{owner}/{repo}/issues/comments/{comment_id}": ["get", "patch", "delete"],
    "/repos/{owner}/{repo}/check-runs": ["post"],
    "/repos/{owner}/{repo}/check-runs/{check_run_id}": ["patch"],
    "/repos/{owner}/{repo}/actions/runs/{run_id}": ["get"],
    "/repos/{owner}/{repo}/actions/runs/{run_id}/artifacts": ["get"],
    "/repos/{owner}/{repo}/actions/artifacts/{artifact_id}/{archive_format}": ["get"],
    "/repos/{owner}/{repo}/actions/workflows/{workflow_id}/runs": ["get"],
    "/repos/{owner}/{repo}/pulls": ["get"],
    "/repos/{owner}/{repo}/pulls/{pull_number}": ["get"],
    "/repos/{owner}/{repo}/commits/{commit_sha}/pulls": ["get"],
    "/repos/{owner}/{repo}/contents/{path}": ["get", "put"],
    "/repos/{owner}/{repo}/pulls/{pull_number}/files": ["get"],
    "/repos/{owner}/{repo}/compare/{basehead}": ["get"],
    "/repos/{owner}/{repo}/statuses/{sha}": ["post"],
    "/user": ["get"],
}
DROP = {"examples", "example", "x-github", "externalDocs"}
d = json.load(open(sys.argv[1]))
out = {k: d[k] for k in ("openapi", "info", "servers")} | {"paths": {}, "components": {}}
seen = set()


def strip(n):
    if isinstance(n, dict):
        return {k: strip(v) for k, v in n.items() if k not in DROP}
    return [strip(x) for x in n] if isinstance(n, list) else n


def get(ref):
    cur = d
    for s in ref.lstrip("#/").split("/"):
        cur = cur[s.replace("~1", "/").replace("~0", "~")]
    return cur


def walk(n):
    if isinstance(n, dict):
        for k, v in n.items():
            if k == "$ref" and isinstance(v, str) and v not in seen:
                seen.add(v)
                _, kind, name = v.split("/")[-3:]
                node = strip(get(v))
                out["components"].setdefault(kind, {})[name] = node
                walk(node)
            else:
                walk(v)
    elif isinstance(n, list):
        for x in n:
            walk(x)


for p, methods in WANT.items():
    if p not in d["paths"]:
        print("missing", p, file=sys.stderr)
        continue
    item = {m: strip(d["paths"][p][m]) for m in methods}
    if "parameters" in d["paths"][p]:
        item["parameters"] = d["paths"][p]["parameters"]
    out["paths"][p] = item
    walk(item)
json.dump(out, open(sys.argv[2], "w"), separators=(",", ":"))
