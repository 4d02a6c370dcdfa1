# SPDX-License-Identifier: Apache-2.0
"""What do we ask of GitHub's REST API, and what do we say when it refuses?

Few calls: changed files of an event, one comment per pull request, the artifact of another run, and which pull request
that run belongs to. Retries follow GitHub's best practices for REST; writes are serial and at least a second apart. A token that
may not comment is an outcome (`CannotComment`), not a failure. No search endpoint: it is the usual source of secondary
limits. The text of the comment is made elsewhere.
"""

import base64
import io
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import quote

import requests

from gate.errors import NoAnswer, UsageError

HEADERS = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
COMMENT_LIMIT = (
    65_000  # GitHub refuses above 65,536 and does not say what it counts; we count UTF-16 units and stay below
)
PAGE = 100
MAX_PAGES = 100
COMPARED_FILES_LIMIT = 300  # the compare endpoint lists no more, and does not say that it left some out
PULL_FILES_LIMIT = 3_000
DESCRIPTION_LIMIT = 140
FILE_BYTES = 100_000_000  # GitHub's own limit for the contents of a file
WRITE_PAUSE_SECONDS = 1.0
ARTIFACT_BYTES = 8_000_000
MEMBER_BYTES = 32_000_000
TIMEOUT_SECONDS = (10, 30)  # to connect, to read

_MARKER_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NO_COMMIT = "0" * 40


class GitHubError(NoAnswer):
    """GitHub did not answer, or not as its documentation says."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class CannotComment(GitHubError):
    """The token may not write comments here, as with a pull request from a fork."""


class CannotSetStatus(GitHubError):
    """The token may not set commit statuses: the job lacks `statuses: write`."""


class Uncertain(GitHubError):
    """The connection broke during a write that must not be repeated blindly."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for GitHub. Numbers from its "Best practices for using the REST API"."""

    total_seconds: float = 300.0
    attempts: int = 6
    secondary_seconds: float = 60.0  # "wait for at least one minute" when no header says how long
    backoff_seconds: float = 1.0


@dataclass(frozen=True)
class Clock:
    """Time, so that tests need not wait for it."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class PullRequest:
    """A pull request, as far as the gate cares."""

    number: int
    head_sha: str
    base_sha: str
    head_repository: str | None  # None when the fork was deleted
    base_repository: str
    head_branch: str = ""

    @property
    def from_fork(self) -> bool:
        return self.head_repository != self.base_repository

    @staticmethod
    def read(data: Mapping[str, Any]) -> "PullRequest":
        """Read the object that events and the API share."""
        head, base = data["head"], data["base"]
        return PullRequest(
            number=int(data["number"]),
            head_sha=head["sha"],
            base_sha=base["sha"],
            head_repository=head["repo"]["full_name"] if head.get("repo") else None,
            base_repository=base["repo"]["full_name"],
            head_branch=head.get("ref") or "",
        )


@dataclass(frozen=True)
class WorkflowRun:
    """The run that a `workflow_run` event is about."""

    id: int
    event: str
    path: str
    head_sha: str
    head_branch: str
    head_owner: str
    conclusion: str = ""

    @staticmethod
    def read(data: Mapping[str, Any]) -> "WorkflowRun":
        return WorkflowRun(
            id=int(data["id"]),
            event=data["event"],
            path=(data.get("path") or "").partition("@")[0],
            head_sha=data["head_sha"],
            head_branch=data.get("head_branch") or "",
            head_owner=((data.get("head_repository") or {}).get("owner") or {}).get("login", ""),
            conclusion=data.get("conclusion") or "",
        )


@dataclass(frozen=True)
class Event:
    """What started the workflow."""

    name: str
    repository: str
    pull_request: PullRequest | None = None
    workflow_run: WorkflowRun | None = None
    before: str | None = None  # of a push or a merge group: the commit that it builds upon
    after: str | None = None

    @staticmethod
    def read(name: str, repository: str, payload: Mapping[str, Any]) -> "Event":
        """Read an event's payload; what the event does not carry stays None."""
        group = payload.get("merge_group") or {}
        pull, run = payload.get("pull_request"), payload.get("workflow_run")
        before = payload.get("before") or group.get("base_sha")
        return Event(
            name=name,
            repository=repository,
            pull_request=PullRequest.read(pull) if pull else None,
            workflow_run=WorkflowRun.read(run) if run else None,
            before=None if before == _NO_COMMIT else before,
            after=payload.get("after") or group.get("head_sha"),
        )


@dataclass(frozen=True)
class Comment:
    """One comment of a pull request."""

    id: int
    url: str
    body: str


class Written(StrEnum):
    """What became of the comment."""

    CREATED = "created"
    EDITED = "edited"
    UNCHANGED = "unchanged"


@dataclass
class Client:
    """Requests to one GitHub server, with its limits respected."""

    token: str
    api_url: str = "https://api.github.com"
    session: requests.Session = field(default_factory=requests.Session)
    patience: Patience = Patience()
    clock: Clock = Clock()
    _last_write: float = field(default=0.0, init=False)

    def get(self, path: str, **params: str | int) -> Any:
        """Return the JSON answer of a read."""
        return _json(self._send("GET", self.api_url + path, params=params))

    def described(self, path: str, **params: str) -> Any:
        """Return what lies at a path of the repository, as an object whatever it is."""
        headers = HEADERS | {"Accept": "application/vnd.github.object+json"}
        return _json(self._send("GET", self.api_url + path, params=params, headers=headers))

    def list(self, path: str, key: str | None = None, **params: str | int) -> Iterator[Any]:
        """Yield the items of all pages, following `Link` headers; `key` names the list inside an object."""
        url, query = self.api_url + path, {"per_page": PAGE, **params}
        for _ in range(MAX_PAGES):
            response = self._send("GET", url, params=query)
            page = _json(response)
            yield from page[key] if key else page
            following = response.links.get("next", {}).get("url")
            if following is None:
                return
            url, query = self._same_server(following), {}

    def write(self, method: str, path: str, body: Mapping[str, Any]) -> Any:
        """Send a write, at least a second after the last; a POST whose fate is unknown raises `Uncertain`."""
        pause = self._last_write + WRITE_PAUSE_SECONDS - self.clock.now()
        if pause > 0:
            self.clock.sleep(pause)
        try:
            return _json(self._send(method, self.api_url + path, json=body))
        finally:
            self._last_write = self.clock.now()

    def raw(self, path: str, limit: int, **params: str) -> bytes:
        """Return the bytes of a file of the repository."""
        headers = HEADERS | {"Accept": "application/vnd.github.raw+json"}
        return _capped(self._send("GET", self.api_url + path, params=params, headers=headers), path, limit)

    def download(self, path: str, limit: int, accept: str = HEADERS["Accept"]) -> bytes:
        """Return a file that GitHub redirects to; our token does not travel to the other host."""
        response = self._send("GET", self.api_url + path, allow_redirects=False, headers=HEADERS | {"Accept": accept})
        if response.is_redirect:
            with self.session.request(
                "GET", response.headers["location"], timeout=TIMEOUT_SECONDS, stream=True
            ) as target:
                if target.status_code != requests.codes.ok:
                    raise GitHubError(f"GET {path}: the download answered {target.status_code}", target.status_code)
                return _capped(target, path, limit)
        return _capped(response, path, limit)

    def _same_server(self, url: str) -> str:
        if not url.startswith(self.api_url + "/"):
            raise GitHubError(f"{url}: the next page is on another server than {self.api_url}; not followed")
        return url

    def _send(self, method: str, url: str, **options: Any) -> requests.Response:
        """Send until answered, refused for good, or out of patience."""
        options = {"timeout": TIMEOUT_SECONDS, "headers": HEADERS, "auth": self._sign, **options}
        deadline = self.clock.now() + self.patience.total_seconds
        for attempt in range(self.patience.attempts):
            response = self._attempt(method, url, options)
            if response is not None and response.status_code < 400:
                return response
            if method == "POST" and _fate_unknown(response):
                raise Uncertain(f"{method} {url}: {_reason(response)}; it may or may not have been done")
            wait = wait_before_retry(response, attempt, self.clock.now(), self.patience)
            last = attempt + 1 == self.patience.attempts
            if wait is None or last or self.clock.now() + wait > deadline:
                raise _error(method, url, response)
            self.clock.sleep(wait)
        raise AssertionError("unreachable: the last attempt raises")

    def _attempt(self, method: str, url: str, options: dict[str, Any]) -> requests.Response | None:
        try:
            return self.session.request(method, url, **options)
        except (requests.ConnectionError, requests.Timeout):
            return None

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token as `auth=` rather than as a header, which a ~/.netrc would silently replace."""
        if self.token:
            request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def wait_before_retry(response: requests.Response | None, attempt: int, now: float, patience: Patience) -> float | None:
    """Return the seconds to wait before trying again, or None when trying again is pointless.

    `response` is None when the connection broke.
    """
    doubled = float(1 << attempt)
    if response is None:
        return patience.backoff_seconds * doubled
    status, headers = response.status_code, response.headers
    if status not in (403, 429) and status < 500:
        return None
    if (told := headers.get("retry-after", "")).isdigit():
        return float(told)
    if status >= 500:
        return patience.backoff_seconds * doubled
    if headers.get("x-ratelimit-remaining") == "0" and headers.get("x-ratelimit-reset", "").isdigit():
        return max(float(headers["x-ratelimit-reset"]) - now, 0.0) + 1.0  # the reset is in whole seconds
    if status == 429 or "rate limit" in _message(response).lower():
        return patience.secondary_seconds * doubled
    return None


# --- the one comment ---------------------------------------------------------------------------------------------


def marker(comment_id: str) -> str:
    """Return the hidden first line by which we find our comment again."""
    if not _MARKER_ID.fullmatch(comment_id):
        raise UsageError(
            f"comment-id: found {comment_id!r}, expected 1 to 64 letters, digits, dots, dashes or underscores"
        )
    return f"<!-- coreml-gate:report id={comment_id} -->"


def find_comment(client: Client, repository: str, number: int, comment_id: str) -> Comment | None:
    """Return our earliest comment on a pull request. A marker in somebody else's comment is not ours."""
    head, is_ours = marker(comment_id), _author_check(client)
    for item in client.list(f"/repos/{repository}/issues/{number}/comments"):
        body = item.get("body") or ""
        if body.startswith(head) and is_ours(item.get("user") or {}):
            return Comment(item["id"], item["html_url"], body)
    return None


def upsert_comment(client: Client, repository: str, number: int, comment_id: str, text: str) -> tuple[Written, Comment]:
    """Write `text` into our one comment: edit it where it exists, create it where not, and never twice.

    Raises `CannotComment` when the token may not.
    """
    head = marker(comment_id)
    body = fit_comment(text if text.startswith(head) else f"{head}\n{text}")
    for _ in range(client.patience.attempts):
        existing = find_comment(client, repository, number, comment_id)
        if existing and _same_text(existing.body, body):
            return Written.UNCHANGED, existing
        try:
            if existing is None:
                return Written.CREATED, _write_comment(client, "POST", f"issues/{number}/comments", repository, body)
            return Written.EDITED, _write_comment(client, "PATCH", f"issues/comments/{existing.id}", repository, body)
        except Uncertain:
            client.clock.sleep(client.patience.backoff_seconds)  # it may be there: look again before posting again
        except GitHubError as error:
            if existing is None or error.status != requests.codes.not_found:
                raise
            # It was deleted since we listed it: look again, and post anew.
    raise GitHubError(f"{repository}#{number}: the comment could not be written in {client.patience.attempts} attempts")


def fit_comment(body: str) -> str:
    """Cut a body that GitHub would refuse. The renderer drops detail first; this is the net beneath it."""
    if _utf16_units(body) <= COMMENT_LIMIT:
        return body
    notice = "\n\n</details>\n\n*Cut here: GitHub takes no more. The whole report is in the run's artifacts.*\n"
    encoded = body.encode("utf-16-le")[: 2 * (COMMENT_LIMIT - _utf16_units(notice))]
    return encoded.decode("utf-16-le", errors="ignore").rpartition("\n")[0] + notice


def _write_comment(client: Client, method: str, path: str, repository: str, body: str) -> Comment:
    try:
        answer = client.write(method, f"/repos/{repository}/{path}", {"body": body})
    except GitHubError as error:
        if error.status in (401, 403):
            raise CannotComment(f"{repository}: the token may not write this comment ({error})", error.status) from None
        raise
    return Comment(answer["id"], answer["html_url"], body)


def _author_check(client: Client) -> Callable[[Mapping[str, Any]], bool]:
    """Return the test for "we wrote it".

    An app's token, GITHUB_TOKEN among them, may not ask who it is; a marker written by any person is then refused.
    """
    try:
        login = client.get("/user")["login"]
    except GitHubError as error:
        if error.status not in (401, 403, 404):
            raise
        return lambda user: user.get("type") == "Bot"
    return lambda user: user.get("login") == login


def _same_text(old: str, new: str) -> bool:
    return old.replace("\r\n", "\n").rstrip() == new.rstrip()


def _utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


# --- the commit status -----------------------------------------------------------------------------------------------


class State(StrEnum):
    """What a commit status can say."""

    ERROR = "error"
    FAILURE = "failure"
    SUCCESS = "success"


def set_status(
    client: Client, repository: str, sha: str, state: State, context: str, description: str, url: str | None
) -> None:
    """Set a commit status. It is safe to repeat: the newest of a context counts."""
    body = {"state": state.value, "context": context, "description": description[:DESCRIPTION_LIMIT], "target_url": url}
    for _ in range(client.patience.attempts):
        try:
            client.write("POST", f"/repos/{repository}/statuses/{sha}", body)
            return
        except Uncertain:
            client.clock.sleep(client.patience.backoff_seconds)
        except GitHubError as error:
            if error.status in (401, 403):
                raise CannotSetStatus(f"{repository}: the token may not set a status ({error})", error.status) from None
            raise
    raise GitHubError(f"{repository}@{sha[:12]}: the status could not be set in {client.patience.attempts} attempts")


# --- which files, which pull request, which artifact ---------------------------------------------------------------


def changed_files(client: Client, event: Event) -> frozenset[str] | None:
    """Return the paths that an event changes, old names of renamed files included; None when GitHub cannot tell."""
    repository = event.repository
    if event.pull_request:
        number, limit = event.pull_request.number, PULL_FILES_LIMIT
        files = [*client.list(f"/repos/{repository}/pulls/{number}/files")]
    elif event.before and event.after:
        limit = COMPARED_FILES_LIMIT
        files = client.get(f"/repos/{repository}/compare/{event.before}...{event.after}").get("files", [])
    else:
        return None
    if len(files) >= limit:
        return None
    return frozenset(name for file in files for name in (file["filename"], file.get("previous_filename")) if name)


def file_at(client: Client, repository: str, path: str, ref: str) -> bytes | None:
    """Return a file as it is at a commit, or None where there is none."""
    where = f"/repos/{repository}/contents/{quote(path, safe='')}"
    try:
        return client.raw(where, FILE_BYTES, ref=ref)
    except GitHubError as error:
        if error.status == requests.codes.not_found:
            return None
        raise


@dataclass(frozen=True)
class Entry:
    """What lies at a path at a commit. A link to a file is that file; any other link is a `symlink`."""

    kind: str  # file, dir, symlink, submodule
    content: bytes = b""


def entry_at(client: Client, repository: str, path: str, ref: str) -> Entry | None:
    """Return what lies at a path at a commit, or None where nothing does."""
    where = f"/repos/{repository}/contents/{quote(path, safe='')}"
    try:
        found = client.described(where, ref=ref)
        if found["type"] != "file":
            return Entry(str(found["type"]))
        if found["encoding"] == "base64":
            return Entry("file", base64.b64decode(found["content"]))
        return Entry("file", client.raw(where, FILE_BYTES, ref=ref))  # more than 1 MB
    except GitHubError as error:
        if error.status == requests.codes.not_found:
            return None
        raise


def pull_request_of_run(client: Client, repository: str, run: WorkflowRun) -> PullRequest | None:
    """Return the one open pull request whose head is exactly what the run judged, or None.

    `workflow_run.pull_requests` is empty for forks, and a branch may have several pull requests or have moved on.
    """
    if not run.head_owner or not run.head_branch:
        return None
    found = client.list(f"/repos/{repository}/pulls", state="open", head=f"{run.head_owner}:{run.head_branch}")
    pulls = [PullRequest.read(item) for item in found]
    exact = [p for p in pulls if p.head_sha == run.head_sha and p.base_repository == repository]
    return exact[0] if len(exact) == 1 else None


def artifact_member(client: Client, repository: str, run_id: int, artifact: str, member: str) -> bytes | None:
    """Return one file of a run's newest artifact of a name, or None when there is none.

    It is read in memory: nothing of the archive reaches the disk.
    """
    path = f"/repos/{repository}/actions/runs/{run_id}/artifacts"
    found = [item for item in client.list(path, key="artifacts", name=artifact) if item["name"] == artifact]
    usable = [item["id"] for item in found if not item["expired"]]
    if not usable:
        return None
    archive = client.download(f"/repos/{repository}/actions/artifacts/{max(usable)}/zip", ARTIFACT_BYTES)
    return _member(archive, artifact, member)


def _member(archive: bytes, artifact: str, member: str) -> bytes:
    where = f"artifact {artifact!r}"
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            named = [info for info in opened.infolist() if info.filename == member]
            if len(named) != 1 or named[0].file_size > MEMBER_BYTES:
                raise UsageError(f"{where}: expected one {member} of at most {MEMBER_BYTES} bytes")
            with opened.open(named[0]) as stream:
                data = stream.read(MEMBER_BYTES + 1)  # the size in the directory is the sender's word
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as problem:
        raise UsageError(f"{where}: not a readable zip file ({problem})") from None
    if len(data) > MEMBER_BYTES:
        raise UsageError(f"{where}: {member} is larger than {MEMBER_BYTES} bytes")
    return data


# --- answers -------------------------------------------------------------------------------------------------------


def _fate_unknown(response: requests.Response | None) -> bool:
    return response is None or response.status_code >= 500


def _json(response: requests.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise GitHubError(
            f"{response.url}: expected JSON, found {response.text[:80]!r}", response.status_code
        ) from None


def _message(response: requests.Response) -> str:
    try:
        return str(response.json().get("message", ""))
    except (ValueError, AttributeError):
        return response.text[:200]


def _reason(response: requests.Response | None) -> str:
    return "no answer" if response is None else f"{response.status_code} {_message(response)}".strip()


def _error(method: str, url: str, response: requests.Response | None) -> GitHubError:
    return GitHubError(f"{method} {url}: {_reason(response)}", None if response is None else response.status_code)


def _capped(response: requests.Response, path: str, limit: int) -> bytes:
    data = bytearray()
    for chunk in response.iter_content(65_536):
        data += chunk
        if len(data) > limit:
            raise UsageError(f"{path}: larger than {limit} bytes; refused")
    return bytes(data)
