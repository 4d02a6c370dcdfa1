# SPDX-License-Identifier: Apache-2.0
"""A GitHub that can be asked, written to and broken: real HTTP on loopback, held to GitHub's own OpenAPI description.

Every request and every answer is validated; what does not fit lands in `violations`, which `FakeGitHub.__exit__` refuses. The
description lacks three things that matter to us, added here: a comment holds 65,536 characters, `GET /user` is refused to the
token of an app, and any write may be answered with 403. Faults are put in a queue by `fail`; they may strike before or after the work was done.
"""

import base64
import io
import json
import re
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from openapi_core import Config, OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest, MockResponse

DESCRIPTION = Path(__file__).with_name("github-openapi.json")
COMMENT_LIMIT = 65_536
TOKEN = "ghs_0123456789abcdefFAKE"
BOT = "github-actions[bot]"
HOST = "https://api.github.com"
OBJECT = "application/vnd.github.object"

Answer = tuple[int, Any]


@cache
def description() -> tuple[dict[str, Any], OpenAPI]:
    spec = json.loads(DESCRIPTION.read_text())
    spec["servers"] = [{"url": HOST}]
    return spec, OpenAPI.from_dict(spec, config=Config(extra_media_type_deserializers={OBJECT: json.loads}))


def specimen(schema: Mapping[str, Any]) -> Any:
    """Return the smallest value that fits a schema: required properties only."""
    if "$ref" in schema:
        return specimen(description()[0]["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    if schema.get("nullable") and not {"anyOf", "oneOf"} & schema.keys():
        return None
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return specimen(schema[union][0])
    if "allOf" in schema:
        return {key: value for part in schema["allOf"] for key, value in specimen(part).items()}
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: specimen(schema["properties"][name]) for name in schema.get("required", ())}
        case "array":
            return []
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return False
    return {
        "date-time": "2026-01-02T03:04:05Z",
        "uri": "https://example.test/x",
        "email": "x@example.test",
    }.get(schema.get("format", ""), "x" * schema.get("minLength", 1))


def component(name: str, /, **values: Any) -> dict[str, Any]:
    """Return a specimen of a named schema with some values set, nested ones merged."""
    return _merged(specimen({"$ref": f"#/components/schemas/{name}"}), values)


def _merged(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: _merged(base.get(key), value) for key, value in over.items()}}
    return over


def user(login: str) -> dict[str, Any]:
    return component("simple-user", login=login, type="Bot" if login.endswith("[bot]") else "User")


@dataclass
class Fault:
    pattern: str
    status: int | None  # None: the connection is closed without an answer
    headers: Mapping[str, str]
    message: str
    times: int
    after: bool


@dataclass
class FakeGitHub:
    """The state of one server with one repository."""

    repository: str = "team/app"
    prefix: str = ""  # "/api/v3" for Enterprise Server
    link_root: str | None = None  # where the links to next pages point, when not to this server
    login: str | None = None  # None: the token of an app, which may not ask for its user
    read_only: bool = False
    comments: list[dict[str, Any]] = field(default_factory=list)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    files: dict[int, list[str]] = field(default_factory=dict)
    history: dict[str, list[str]] = field(default_factory=dict)  # commit → its ancestors, the nearest first
    release: dict[str, Any] | None = None
    artifacts: dict[int, dict[str, bytes]] = field(default_factory=dict)  # run id → name → zip
    contents: dict[str, bytes] = field(default_factory=dict)  # path → bytes, of the base branch
    links: set[str] = field(default_factory=set)  # links of the base branch that lead to no file
    accept: str = ""  # of the last request
    events: list[dict[str, Any]] = field(default_factory=list)  # of the pull request
    permissions: dict[str, str] = field(default_factory=dict)  # login → permission
    runs: list[dict[str, Any]] = field(default_factory=list)  # newest first
    statuses: list[dict[str, Any]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    rules: list[dict[str, Any]] = field(default_factory=list)
    forbidden: str = r"(?!)"  # what "METHOD /path" the token may not do; nothing by default
    log: list[tuple[str, str]] = field(default_factory=list)
    authorizations: list[tuple[str, str | None]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _next_id: int = 1000
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> "FakeGitHub":
        fake = self

        class Handler(_Handler):
            github = fake

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        assert self.violations == [], self.violations

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def api_url(self) -> str:
        return self.root + self.prefix

    def fail(
        self,
        pattern: str,
        status: int | None,
        *,
        headers: Mapping[str, str] | None = None,
        message: str = "injected",
        times: int = 1,
        after: bool = False,
    ) -> None:
        """Break the next `times` requests whose "METHOD /path" matches; `after` breaks only the answer."""
        self.faults.append(Fault(pattern, status, headers or {}, message, times, after))

    def add_comment(self, body: str, author: str = BOT) -> dict[str, Any]:
        self._next_id += 1
        number = self._next_id
        comment = component(
            "issue-comment",
            id=number,
            body=body,
            user=user(author),
            html_url=f"https://github.test/{self.repository}/pull/7#issuecomment-{number}",
        )
        self.comments.append(comment)
        return comment

    def add_pull(
        self, number: int, head_sha: str, *, owner: str = "team", branch: str = "work", base_sha: str = "b" * 40
    ) -> dict[str, Any]:
        owner_repository, base = f"{owner}/app", self.repository
        pull = component("pull-request-simple", number=number, state="open")
        minimal = component("repository")
        pull["head"] |= {"sha": head_sha, "ref": branch, "label": f"{owner}:{branch}"}
        pull["head"]["repo"] = _merged(minimal, {"full_name": owner_repository})
        pull["base"] |= {"sha": base_sha, "ref": "main"}
        pull["base"]["repo"] = _merged(minimal, {"full_name": base})
        pull["head"]["user"], pull["base"]["user"] = user(owner), user(base.split("/", maxsplit=1)[0])
        self.pulls.append(pull)
        return pull

    def label(self, name: str, actor: str, at: str, event: str = "labeled") -> None:
        """Note that somebody set a label, or took it off with event="unlabeled"."""
        label = {"name": name, "color": "ffffff"}
        self.events.append(component("labeled-issue-event", event=event, label=label, actor=user(actor), created_at=at))

    def add_run(self, head_sha: str, created_at: str, *, owner: str = "team", branch: str = "work") -> None:
        """Note that a workflow run of a head was created: the newest is added last."""
        repository = component("minimal-repository", full_name=f"{owner}/app")
        run = component(
            "workflow-run", head_sha=head_sha, created_at=created_at, head_branch=branch, event="pull_request"
        )
        self.runs.insert(0, run | {"head_repository": repository})

    def add_artifact(self, run: int, name: str, members: Mapping[str, bytes]) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in members.items():
                archive.writestr(member, data)
        self.artifacts.setdefault(run, {})[name] = buffer.getvalue()

    def requests(self, pattern: str) -> int:
        """Count the requests whose "METHOD /path" matches."""
        return sum(bool(re.search(pattern, f"{method} {path}")) for method, path in self.log)

    # --- endpoints -------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        for wanted, pattern, act in self.routes():
            found = re.fullmatch(pattern, path)
            if wanted == method and found:
                return act(*found.groups(), query=query, body=body)
        return 404, component("basic-error", message="Not Found")

    def routes(self) -> tuple[tuple[str, str, Callable[..., Answer]], ...]:
        repo = f"/repos/{self.repository}"
        return (
            ("GET", "/user", self.get_user),
            ("GET", rf"{repo}/issues/(\d+)/comments", self.list_comments),
            ("POST", rf"{repo}/issues/(\d+)/comments", self.create_comment),
            ("PATCH", rf"{repo}/issues/comments/(\d+)", self.edit_comment),
            ("GET", rf"{repo}/pulls", self.list_pulls),
            ("GET", rf"{repo}/pulls/(\d+)/files", self.list_files),
            ("GET", rf"{repo}/compare/(\w+)\.\.\.(\w+)", self.compare),
            ("GET", repo, self.get_repository),
            ("GET", rf"{repo}/contents/([^/]+)", self.get_contents),
            ("GET", rf"{repo}/issues/(\d+)/events", self.list_events),
            ("GET", rf"{repo}/collaborators/([^/]+)/permission", self.get_permission),
            ("GET", rf"{repo}/actions/runs", self.list_runs),
            ("GET", rf"{repo}/releases/latest", self.get_latest_release),
            ("GET", rf"{repo}/releases/assets/(\d+)", self.download_asset),
            ("GET", rf"{repo}/labels/([^/]+)", self.get_label),
            ("GET", rf"{repo}/rules/branches/([^/]+)", self.list_rules),
            ("GET", rf"{repo}/actions/permissions/workflow", self.get_workflow_permissions),
            ("POST", rf"{repo}/statuses/(\w+)", self.create_status),
            ("GET", rf"{repo}/actions/runs/(\d+)/artifacts", self.list_artifacts),
            ("GET", rf"{repo}/actions/artifacts/(\d+)/zip", self.download_artifact),
        )

    def get_user(self, *, query: dict[str, str], body: Any) -> Answer:
        if self.login is None:
            return 403, component("basic-error", message="Resource not accessible by integration")
        return 200, component("public-user", login=self.login, type="User", user_view_type="public")

    def list_comments(self, number: str, *, query: dict[str, str], body: Any) -> Answer:
        return 200, self.comments

    def create_comment(self, number: str, *, query: dict[str, str], body: Any) -> Answer:
        if refused := self._refused(body):
            return refused
        return 201, self.add_comment(body["body"], self.login or BOT)

    def edit_comment(self, identifier: str, *, query: dict[str, str], body: Any) -> Answer:
        if refused := self._refused(body):
            return refused
        for comment in self.comments:
            if comment["id"] == int(identifier):
                if comment["user"]["login"] != (self.login or BOT):
                    raise AssertionError("edited somebody else's comment")
                comment["body"] = body["body"]
                comment["updated_at"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                return 200, comment
        return 404, component("basic-error", message="Not Found")

    def _refused(self, body: Any) -> Answer | None:
        if self.read_only:
            return 403, component("basic-error", message="Resource not accessible by integration")
        if len(body["body"]) > COMMENT_LIMIT:
            error = {"resource": "IssueComment", "field": "data", "code": "unprocessable"}
            return 422, component("validation-error", message="Validation Failed: Body is too long", errors=[error])
        return None

    def get_repository(self, *, query: dict[str, str], body: Any) -> Answer:
        return 200, component("full-repository", full_name=self.repository, default_branch="main")

    def get_contents(self, path: str, *, query: dict[str, str], body: Any) -> Answer:
        path = unquote(path)
        content = self.contents.get(path)
        described = OBJECT in self.accept
        if content is not None and described:
            large = len(content) > 1_000_000
            told = {"content": "" if large else base64.encodebytes(content).decode()}
            return 200, component("content-tree", type="file", encoding="none" if large else "base64", **told)
        if content is not None:
            return 200, content
        if described and path in self.links:
            return 200, component("content-tree", type="symlink")
        if described and any(name.startswith(f"{path}/") for name in self.contents):
            return 200, component("content-tree", type="dir", entries=[])
        return 404, component("basic-error", message="Not Found")

    def list_events(self, number: str, *, query: dict[str, str], body: Any) -> Answer:
        return 200, self.events

    def get_permission(self, login: str, *, query: dict[str, str], body: Any) -> Answer:
        if login not in self.permissions:
            return 404, component("basic-error", message="Not Found")
        said = self.permissions[login]
        return 200, {"permission": said, "role_name": said, "user": None}

    def list_runs(self, *, query: dict[str, str], body: Any) -> Answer:
        wanted = {"head_branch": query.get("branch"), "event": query.get("event"), "head_sha": query.get("head_sha")}
        found = [run for run in self.runs if all(value in (None, run[key]) for key, value in wanted.items())]
        return 200, {"total_count": len(found), "workflow_runs": found}

    def get_latest_release(self, *, query: dict[str, str], body: Any) -> Answer:
        if self.release is None:
            return 404, component("basic-error", message="Not Found")
        return 200, self.release

    def download_asset(self, number: str, *, query: dict[str, str], body: Any) -> Answer:
        return 302, f"{self.root}/signed-download/{number}"

    def get_label(self, name: str, *, query: dict[str, str], body: Any) -> Answer:
        if unquote(name) not in self.labels:
            return 404, component("basic-error", message="Not Found")
        return 200, component("label", name=unquote(name))

    def list_rules(self, branch: str, *, query: dict[str, str], body: Any) -> Answer:
        return 200, self.rules

    def get_workflow_permissions(self, *, query: dict[str, str], body: Any) -> Answer:
        return 200, {"default_workflow_permissions": "read", "can_approve_pull_request_reviews": False}

    def create_status(self, sha: str, *, query: dict[str, str], body: Any) -> Answer:
        if self.read_only:
            return 403, component("basic-error", message="Resource not accessible by integration")
        status = component("status", state=body["state"], context=body.get("context", "default"))
        self.statuses.append(status | {"sha": sha, "description": body.get("description")})
        return 201, status

    def list_pulls(self, *, query: dict[str, str], body: Any) -> Answer:
        head = query.get("head")
        return 200, [pull for pull in self.pulls if head in (None, pull["head"]["label"])]

    def list_files(self, number: str, *, query: dict[str, str], body: Any) -> Answer:
        names = self.files.get(int(number), [])
        return 200, [component("diff-entry", sha="a" * 40, filename=name, status="modified") for name in names]

    def compare(self, before: str, after: str, *, query: dict[str, str], body: Any) -> Answer:
        if self.history:
            return 200, self.compared(before, after)
        names = self.files.get(0, [])
        files = [component("diff-entry", sha="a" * 40, filename=name, status="modified") for name in names]
        return 200, component("commit-comparison", files=files, status="ahead")

    def compared(self, before: str, after: str) -> dict[str, Any]:
        """Compare two commits of `history`: commit → all its ancestors, the nearest first."""
        ours, theirs = [before, *self.history[before]], [after, *self.history[after]]
        base = next(commit for commit in theirs if commit in ours)
        behind, ahead = ours.index(base), theirs.index(base)
        status = {
            (False, False): "identical",
            (False, True): "ahead",
            (True, False): "behind",
            (True, True): "diverged",
        }
        commit = component("commit", sha=base)
        return component(
            "commit-comparison",
            status=status[behind > 0, ahead > 0],
            ahead_by=ahead,
            behind_by=behind,
            merge_base_commit=commit,
        )

    def list_artifacts(self, run: str, *, query: dict[str, str], body: Any) -> Answer:
        named = [name for name in self.artifacts.get(int(run), {}) if query.get("name") in (None, name)]
        artifacts = [component("artifact", id=int(run), name=name, expired=False) for name in named]
        return 200, {"total_count": len(artifacts), "artifacts": artifacts}

    def download_artifact(self, run: str, *, query: dict[str, str], body: Any) -> Answer:
        return 302, f"{self.root}/signed-download/{run}"


class _Handler(BaseHTTPRequestHandler):
    github: FakeGitHub

    def serve(self) -> None:
        github, path = self.github, urlsplit(self.path).path
        query = dict(parse_qsl(urlsplit(self.path).query))
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        if path.startswith("/signed-download/"):
            return self.send_archive(int(path.rsplit("/", 1)[1]))
        if not path.startswith(github.prefix):
            return self.send(404, component("basic-error", message="Not Found"))
        path = path.removeprefix(github.prefix)
        with github._lock:
            github.log.append((self.command, path))
            github.authorizations.append((path, self.headers.get("authorization")))
            fault = self.take_fault(f"{self.command} {path}")
            if fault and not fault.after:
                return self.break_down(fault)
            request = MockRequest(
                HOST, self.command.lower(), path, args=query, data=raw or None, content_type="application/json"
            )
            if not self.accepted(request):
                return self.send(422, component("validation-error", message="does not fit the description"))
            github.accept = self.headers.get("accept") or ""
            status, answer = github.answer(self.command, path, query, json.loads(raw) if raw else None)
            if re.search(github.forbidden, f"{self.command} {path}"):
                return self.send(403, component("basic-error", message="Resource not accessible by integration"))
            if fault:
                return self.break_down(fault)
            return self.reply(request, status, answer, query, path)

    do_GET = do_POST = do_PATCH = serve

    def reply(self, request: MockRequest, status: int, answer: Any, query: dict[str, str], path: str) -> None:
        if status == 302:
            return self.send(302, None, {"location": answer})
        if isinstance(answer, bytes):
            return self.send_bytes(answer)
        headers = {}
        if isinstance(answer, list):
            answer, headers = self.page(answer, query, path)
        body = json.dumps(answer).encode()
        if status == 403:
            return self.send(status, answer)
        try:
            kind = (
                "application/vnd.github.object"
                if status == 200 and OBJECT in self.github.accept
                else "application/json"
            )
            response = MockResponse(body, status_code=status, content_type=kind)
            description()[1].validate_response(request, response)
        except OpenAPIError as problem:
            self.github.violations.append(f"answer to {request.method} {path}: {_causes(problem)}")
        return self.send(status, answer, headers)

    def accepted(self, request: MockRequest) -> bool:
        try:
            description()[1].validate_request(request)
        except OpenAPIError as problem:
            self.github.violations.append(f"{request.method} {request.path}: {_causes(problem)}")
            return False
        return True

    def page(self, items: list[Any], query: dict[str, str], path: str) -> tuple[list[Any], dict[str, str]]:
        size, number = min(int(query.get("per_page", 30)), 100), int(query.get("page", 1))
        rest = "&".join(f"{key}={value}" for key, value in query.items() if key != "page")
        following = f'<{self.github.link_root or self.github.api_url}{path}?{rest}&page={number + 1}>; rel="next"'
        more = len(items) > size * number
        return items[size * (number - 1) : size * number], {"link": following} if more else {}

    def take_fault(self, request: str) -> Fault | None:
        for fault in self.github.faults:
            if fault.times > 0 and re.search(fault.pattern, request):
                fault.times -= 1
                return fault
        return None

    def break_down(self, fault: Fault) -> None:
        if fault.status is None:
            self.close_connection = True
            self.connection.close()
        else:
            self.send(fault.status, {"message": fault.message, "documentation_url": "x"}, fault.headers)

    def send_archive(self, run: int) -> None:
        self.github.authorizations.append(("signed-download", self.headers.get("authorization")))
        (data,) = self.github.artifacts[run].values()
        self.send_bytes(data)

    def send_bytes(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def send(self, status: int, answer: Any, headers: Mapping[str, str] | None = None) -> None:
        body = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the log is in `FakeGitHub.log`."""


def _causes(problem: BaseException) -> str:
    cause = problem.__cause__ or problem
    return "; ".join(str(error)[:200] for error in getattr(cause, "schema_errors", [cause]))
