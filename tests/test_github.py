# SPDX-License-Identifier: Apache-2.0
"""Does the client keep GitHub's rules, and does one pull request get one comment?"""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from gate import github
from gate.errors import UsageError

sys.path.insert(0, str(Path(__file__).parent / "action"))
from fake_github import BOT, TOKEN, FakeGitHub

REPOSITORY, NUMBER = "team/app", 7
HEAD = "c" * 40


class StoppedClock:
    """Time passes only by sleeping."""

    def __init__(self) -> None:
        self.time, self.slept = 1_000.0, list[float]()

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.slept.append(seconds)


@pytest.fixture
def fake() -> Iterator[FakeGitHub]:
    with FakeGitHub() as fake:
        yield fake


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def client(fake: FakeGitHub, clock: StoppedClock) -> github.Client:
    return github.Client(TOKEN, fake.api_url, clock=github.Clock(clock.now, clock.sleep))


def upsert(client: github.Client, text: str, comment_id: str = "default") -> github.Written:
    return github.upsert_comment(client, REPOSITORY, NUMBER, comment_id, text)[0]


def ours(fake: FakeGitHub, comment_id: str = "default") -> list[dict[str, Any]]:
    return [c for c in fake.comments if c["body"].startswith(github.marker(comment_id))]


# --- the one comment -----------------------------------------------------------------------------------------------


def test_the_first_push_posts_and_the_second_edits(fake: FakeGitHub, client: github.Client) -> None:
    assert upsert(client, "first") is github.Written.CREATED
    assert upsert(client, "second") is github.Written.EDITED
    assert [c["body"].splitlines()[1] for c in ours(fake)] == ["second"]


def test_the_marker_is_the_first_thing_in_the_comment(fake: FakeGitHub, client: github.Client) -> None:
    upsert(client, "text")
    assert fake.comments[0]["body"] == "<!-- coreml-gate:report id=default -->\ntext"


def test_an_unchanged_comment_is_not_written_again(fake: FakeGitHub, client: github.Client) -> None:
    upsert(client, "same\n")
    fake.comments[0]["body"] = fake.comments[0]["body"].replace("\n", "\r\n")  # as GitHub's own editor leaves it
    assert upsert(client, "same\n") is github.Written.UNCHANGED
    assert fake.requests("PATCH|POST") == 1


def test_our_comment_is_found_behind_250_others(fake: FakeGitHub, client: github.Client) -> None:
    for index in range(250):
        fake.add_comment(f"comment {index}", author="reader")
    upsert(client, "first")
    upsert(client, "second")
    assert len(fake.comments) == 251
    assert fake.comments[250]["body"].endswith("second")


def test_a_marker_in_somebody_elses_comment_is_not_ours(fake: FakeGitHub, client: github.Client) -> None:
    forged = fake.add_comment(github.marker("default") + "\nAll budgets pass.", author="mallory")
    assert upsert(client, "real") is github.Written.CREATED
    assert forged["body"].endswith("All budgets pass.")


def test_a_marker_that_is_quoted_further_down_is_not_ours(fake: FakeGitHub, client: github.Client) -> None:
    fake.add_comment("> " + github.marker("default"), author=BOT)
    assert upsert(client, "real") is github.Written.CREATED


def test_a_token_that_knows_its_user_edits_only_that_users_comment(fake: FakeGitHub, client: github.Client) -> None:
    fake.login = "release-robot"
    fake.add_comment(github.marker("default") + "\nby another bot", author=BOT)
    assert upsert(client, "first") is github.Written.CREATED
    assert upsert(client, "second") is github.Written.EDITED
    assert len(fake.comments) == 2


def test_two_gates_keep_two_comments(fake: FakeGitHub, client: github.Client) -> None:
    for comment_id, text in itertools.product(("ios", "watch"), ("first", "second")):
        upsert(client, text, comment_id)
    assert len(ours(fake, "ios")) == len(ours(fake, "watch")) == 1


def test_a_comment_deleted_between_listing_and_editing_is_posted_anew(fake: FakeGitHub, client: github.Client) -> None:
    upsert(client, "first")
    fake.fail("PATCH", 404, message="Not Found")
    listed = fake.list_comments

    def vanish(*arguments: Any, **keywords: Any) -> Any:
        answer = 200, list(listed(*arguments, **keywords)[1])
        fake.comments.clear()
        return answer

    fake.list_comments = vanish  # type: ignore[method-assign]
    assert upsert(client, "second") is github.Written.CREATED
    assert [c["body"].splitlines()[1] for c in fake.comments] == ["second"]


@pytest.mark.parametrize("status", [502, None], ids=["bad-gateway", "connection-closed"])
def test_a_post_that_arrived_but_was_not_answered_is_not_repeated(
    fake: FakeGitHub, client: github.Client, status: int | None
) -> None:
    fake.fail("POST .*/comments", status, after=True)
    upsert(client, "text")
    assert len(fake.comments) == 1
    assert fake.requests("POST") == 1


@pytest.mark.parametrize("status", [502, None], ids=["bad-gateway", "connection-closed"])
def test_a_post_that_did_not_arrive_is_repeated(fake: FakeGitHub, client: github.Client, status: int | None) -> None:
    fake.fail("POST .*/comments", status)
    assert upsert(client, "text") is github.Written.CREATED
    assert len(fake.comments) == 1


def test_a_read_only_token_is_told_as_cannot_comment_at_once(
    fake: FakeGitHub, client: github.Client, clock: StoppedClock
) -> None:
    fake.read_only = True
    with pytest.raises(github.CannotComment, match="may not write this comment"):
        upsert(client, "text")
    assert clock.slept == []


def test_an_edit_that_is_refused_posts_no_second_comment(fake: FakeGitHub, client: github.Client) -> None:
    upsert(client, "first")
    fake.read_only = True
    with pytest.raises(github.CannotComment):
        upsert(client, "second")
    assert len(fake.comments) == 1


@pytest.mark.parametrize("filler", ["x", "é", "🙂"], ids=["ascii", "two-bytes", "surrogate-pair"])
def test_a_comment_that_github_would_refuse_is_cut_at_a_line(
    fake: FakeGitHub, client: github.Client, filler: str
) -> None:
    upsert(client, "verdict\n" + f"{filler * 69}\n" * 1_000)
    body = fake.comments[0]["body"]
    assert body.startswith(github.marker("default") + "\nverdict\n")
    assert len(body.encode("utf-16-le")) // 2 <= 65_000
    assert body.endswith("in the run's artifacts.*\n")
    assert set(body.split("\n")[2:-7]) == {filler * 69}


@pytest.mark.parametrize("bad", ["", "a b", "-->", "x" * 65, "é"])
def test_an_id_that_could_break_the_marker_is_refused(bad: str) -> None:
    with pytest.raises(UsageError, match="comment-id"):
        github.marker(bad)


# --- patience ------------------------------------------------------------------------------------------------------


def answer(status: int, message: str = "", **headers: str) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response._content = f'{{"message": "{message}"}}'.encode()
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return response


@pytest.mark.parametrize(
    ("response", "attempt", "expected"),
    [
        pytest.param(answer(429, retry_after="7"), 0, 7.0, id="retry-after-on-429"),
        pytest.param(answer(403, retry_after="7"), 0, 7.0, id="retry-after-on-403"),
        pytest.param(answer(503, retry_after="7"), 3, 7.0, id="retry-after-on-503"),
        pytest.param(
            answer(403, x_ratelimit_remaining="0", x_ratelimit_reset="1030"),
            0,
            31.0,
            id="primary-limit-waits-for-reset",
        ),
        pytest.param(answer(429, x_ratelimit_remaining="0", x_ratelimit_reset="900"), 0, 1.0, id="reset-in-the-past"),
        pytest.param(
            answer(429, retry_after="7", x_ratelimit_remaining="0", x_ratelimit_reset="1030"),
            0,
            7.0,
            id="retry-after-first",
        ),
        pytest.param(answer(403, "You have exceeded a secondary rate limit"), 0, 60.0, id="secondary-without-header"),
        pytest.param(answer(403, "You have exceeded a secondary rate limit"), 2, 240.0, id="secondary-doubles"),
        pytest.param(answer(429), 0, 60.0, id="429-without-hint"),
        pytest.param(answer(500), 0, 1.0, id="500"),
        pytest.param(answer(502), 3, 8.0, id="5xx-doubles"),
        pytest.param(None, 1, 2.0, id="no-answer"),
        pytest.param(answer(403, "Resource not accessible by integration"), 0, None, id="403-is-final"),
        pytest.param(
            answer(403, x_ratelimit_remaining="12", x_ratelimit_reset="1030"), 0, None, id="403-with-quota-left"
        ),
        pytest.param(answer(404), 0, None, id="404-is-final"),
        pytest.param(answer(422), 0, None, id="422-is-final"),
        pytest.param(answer(401), 0, None, id="401-is-final"),
    ],
)
def test_how_long_to_wait(response: requests.Response | None, attempt: int, expected: float | None) -> None:
    assert github.wait_before_retry(response, attempt, 1_000.0, github.Patience()) == expected


def test_a_rate_limit_is_waited_out_and_the_post_happens_once(
    fake: FakeGitHub, client: github.Client, clock: StoppedClock
) -> None:
    fake.fail("POST", 403, message="You have exceeded a secondary rate limit", headers={"retry-after": "5"}, times=2)
    assert upsert(client, "text") is github.Written.CREATED
    assert clock.slept == [5.0, 5.0]
    assert len(fake.comments) == 1


def test_patience_ends(fake: FakeGitHub, client: github.Client, clock: StoppedClock) -> None:
    fake.fail("GET", 503, times=100)
    with pytest.raises(github.GitHubError, match="503 injected"):
        upsert(client, "text")
    assert fake.requests("GET") == client.patience.attempts
    assert sum(clock.slept) <= client.patience.total_seconds


def test_a_limit_that_outlasts_our_patience_is_not_slept_on(
    fake: FakeGitHub, client: github.Client, clock: StoppedClock
) -> None:
    fake.fail("GET", 429, headers={"retry-after": "1440"})
    with pytest.raises(github.GitHubError, match="429"):
        upsert(client, "text")
    assert clock.slept == []


def test_writes_are_a_second_apart(client: github.Client, clock: StoppedClock) -> None:
    for text in ("first", "second", "third"):
        upsert(client, text)
    assert clock.slept == [1.0, 1.0]


def test_enterprise_servers_base_url_is_kept() -> None:
    with FakeGitHub(prefix="/api/v3") as fake:
        for index in range(120):
            fake.add_comment(f"comment {index}", author="reader")
        assert upsert(github.Client(TOKEN, fake.api_url), "text") is github.Written.CREATED
        assert len(fake.comments) == 121


def test_a_next_page_on_another_server_is_not_followed(fake: FakeGitHub, client: github.Client) -> None:
    for index in range(120):
        fake.add_comment(f"comment {index}")
    fake.link_root = f"{fake.root}.evil.test"
    with pytest.raises(github.GitHubError, match="another server"):
        upsert(client, "text")


def test_a_netrc_does_not_replace_the_token(
    fake: FakeGitHub, client: github.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    upsert(client, "text")
    assert {sent for _, sent in fake.authorizations} == {f"Bearer {TOKEN}"}


# --- events, files, pull requests, artifacts -----------------------------------------------------------------------


def pull_event(fake: FakeGitHub, owner: str = "team") -> github.Event:
    payload = {"pull_request": fake.add_pull(NUMBER, HEAD, owner=owner)}
    return github.Event.read("pull_request", REPOSITORY, payload)


@pytest.mark.parametrize(("owner", "from_fork"), [("team", False), ("mallory", True)])
def test_a_fork_is_known_by_its_repository(fake: FakeGitHub, owner: str, from_fork: bool) -> None:
    pull = pull_event(fake, owner).pull_request
    assert pull is not None
    assert pull.from_fork is from_fork


def test_a_deleted_fork_is_a_fork(fake: FakeGitHub) -> None:
    pull = fake.add_pull(NUMBER, HEAD)
    pull["head"]["repo"] = None
    assert github.PullRequest.read(pull).from_fork


def test_changed_files_of_a_pull_request_are_all_pages(fake: FakeGitHub, client: github.Client) -> None:
    fake.files[NUMBER] = [f"ml/{index}.py" for index in range(140)]
    assert github.changed_files(client, pull_event(fake)) == frozenset(fake.files[NUMBER])


def test_changed_files_of_a_merge_group_come_from_the_comparison(fake: FakeGitHub, client: github.Client) -> None:
    fake.files[0] = ["ml/model.py"]
    event = github.Event.read("merge_group", REPOSITORY, {"merge_group": {"base_sha": "a" * 40, "head_sha": HEAD}})
    assert github.changed_files(client, event) == {"ml/model.py"}


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param({}, id="workflow-dispatch"),
        pytest.param({"before": "0" * 40, "after": HEAD}, id="first-push-of-a-branch"),
    ],
)
def test_an_event_without_a_before_cannot_tell_what_changed(client: github.Client, payload: dict[str, Any]) -> None:
    assert github.changed_files(client, github.Event.read("push", REPOSITORY, payload)) is None


def test_a_comparison_that_github_cuts_cannot_tell_what_changed(fake: FakeGitHub, client: github.Client) -> None:
    fake.files[0] = [f"{index}.py" for index in range(300)]
    event = github.Event.read("push", REPOSITORY, {"before": "a" * 40, "after": HEAD})
    assert github.changed_files(client, event) is None


def workflow_run(owner: str = "mallory", sha: str = HEAD) -> github.WorkflowRun:
    run = {"id": 5, "event": "pull_request", "head_sha": sha, "head_branch": "work"}
    return github.WorkflowRun.read(run | {"head_repository": {"owner": {"login": owner}}})


def found(client: github.Client, run: github.WorkflowRun) -> int | None:
    pull = github.pull_request_of_run(client, REPOSITORY, run)
    return pull.number if pull else None


def test_a_forks_run_is_traced_to_its_pull_request(fake: FakeGitHub, client: github.Client) -> None:
    fake.add_pull(8, HEAD, owner="somebody")
    fake.add_pull(9, HEAD, owner="mallory", branch="other")
    fake.add_pull(10, HEAD, owner="mallory")
    assert found(client, workflow_run()) == 10


def test_a_stale_run_belongs_to_no_pull_request(fake: FakeGitHub, client: github.Client) -> None:
    fake.add_pull(10, "d" * 40, owner="mallory")
    assert found(client, workflow_run()) is None


def test_two_pull_requests_from_one_head_are_ambiguous(fake: FakeGitHub, client: github.Client) -> None:
    fake.add_pull(10, HEAD, owner="mallory")
    fake.add_pull(11, HEAD, owner="mallory")
    assert found(client, workflow_run()) is None


def test_an_artifact_is_read_in_memory_and_our_token_stays_home(fake: FakeGitHub, client: github.Client) -> None:
    fake.add_artifact(5, "coreml-gate", {"report.json": b"{}", "../../evil": b"x"})
    assert github.artifact_member(client, REPOSITORY, 5, "coreml-gate", "report.json") == b"{}"
    assert ("signed-download", None) in fake.authorizations


@pytest.mark.parametrize(
    ("members", "message"),
    [
        pytest.param({"other.json": b"{}"}, "expected one report.json", id="member-missing"),
        pytest.param({"report.json": b"\0" * 33_000_000}, "at most 32000000", id="zip-bomb"),
    ],
)
def test_a_hostile_artifact_is_refused(
    fake: FakeGitHub, client: github.Client, members: dict[str, bytes], message: str
) -> None:
    fake.add_artifact(5, "coreml-gate", members)
    with pytest.raises(UsageError, match=message):
        github.artifact_member(client, REPOSITORY, 5, "coreml-gate", "report.json")


def test_an_artifact_over_the_limit_is_not_downloaded_whole(fake: FakeGitHub, client: github.Client) -> None:
    fake.artifacts[5] = {"coreml-gate": b"x" * (github.ARTIFACT_BYTES + 1)}
    with pytest.raises(UsageError, match="larger than"):
        github.artifact_member(client, REPOSITORY, 5, "coreml-gate", "report.json")


def test_an_artifact_that_is_no_zip_is_refused(fake: FakeGitHub, client: github.Client) -> None:
    fake.artifacts[5] = {"coreml-gate": b"not a zip"}
    with pytest.raises(UsageError, match="not a readable zip"):
        github.artifact_member(client, REPOSITORY, 5, "coreml-gate", "report.json")


def test_a_run_without_an_artifact_has_nothing_to_tell(client: github.Client) -> None:
    assert github.artifact_member(client, REPOSITORY, 5, "coreml-gate", "report.json") is None


def test_an_artifact_of_another_name_is_not_taken(fake: FakeGitHub, client: github.Client) -> None:
    fake.add_artifact(5, "other", {"report.json": b"{}"})
    assert github.artifact_member(client, REPOSITORY, 5, "coreml-gate", "report.json") is None


# --- the fake itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/repos/team/app/issues/7/comments", {"boddy": "x"}, id="misspelt-key"),
        pytest.param("/repos/team/app/issue/7/comments", {"body": "x"}, id="misspelt-path"),
    ],
)
def test_the_fake_refuses_what_githubs_description_refuses(
    fake: FakeGitHub, client: github.Client, path: str, body: dict[str, str]
) -> None:
    with pytest.raises(github.GitHubError, match="422"):
        client.write("POST", path, body)
    assert len(fake.violations) == 1
    fake.violations.clear()


def test_the_fake_refuses_a_comment_over_githubs_limit(client: github.Client) -> None:
    with pytest.raises(github.GitHubError, match="Body is too long"):
        client.write("POST", "/repos/team/app/issues/7/comments", {"body": "x" * 65_537})
