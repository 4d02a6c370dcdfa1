# SPDX-License-Identifier: Apache-2.0
"""What is told about another run, from the default branch's own workflow with a token that may write?

The trusted half for pull requests from forks and of Dependabot, and the only place that sets the commit status: a branch protection
that requires a job can be met by any workflow with a job of that name, a status only by a token of this repository. Nothing of
the other run is executed. Its report is data; it counts when the run is that of the base branch's workflow file, unedited, and
when it ended as its report says.
"""

from collections.abc import Iterator

from gate import baseline, config, github
from gate.action import trust
from gate.action.answer import VERDICT_NONE, Answer, judged, noted, write_comment
from gate.action.inputs import Inputs
from gate.action.runner import Surroundings, command, fenced, say
from gate.errors import ConfigError, Exit
from gate.render.escape import code
from gate.report import Outcome, Report

CONTEXT = "coreml-gate"
POSTED = ("pull_request", "merge_group")
UNTOLD = "**The newest run of the Core ML gate left no report.** No model is concerned by this change any more, so there is nothing to judge."
SAID = {
    VERDICT_NONE: "no model is concerned by this change",
    Outcome.PASS: "every check that was run passes",
    Outcome.FAIL: "a check fails",
    Outcome.INCONCLUSIVE: "inconclusive: the evidence is too thin",
    Outcome.ERROR: "no answer, or one that is not believed",
}


def report_other_run(inputs: Inputs, around: Surroundings, run: github.WorkflowRun) -> Exit:
    """Comment on the pull request of another run and set its commit status."""
    client, repository = around.client(), around.environ["GITHUB_REPOSITORY"]
    pull = github.pull_request_of_run(client, repository, run) if run.event == "pull_request" else None
    if run.event not in POSTED or (run.event == "pull_request" and pull is None):
        say(command("notice", f"Run {run.id} is not the newest of exactly one open pull request; nothing is posted."))
        around.output(verdict=VERDICT_NONE, exit_code="0", comment_written="false")
        return Exit.PASS
    answer = _answer(inputs, around, client, repository, run, pull)
    around.summarize(answer.summary)
    if pull:
        write_comment(inputs, around, pull.number, answer)
    _set_status(inputs, around, client, repository, run, answer)
    around.output(verdict=answer.verdict, exit_code=str(int(answer.exit_code)))
    return Exit.PASS


def _answer(
    inputs: Inputs,
    around: Surroundings,
    client: github.Client,
    repository: str,
    run: github.WorkflowRun,
    pull: github.PullRequest | None,
) -> Answer:
    data = github.artifact_member(client, repository, run.id, inputs.artifact, "report.json")
    report = baseline.parse_report(data, "report.json") if data is not None else None
    answer = judged(report, inputs, around.run_url(run.id)) if report else _without_report(run)
    doubts = [_ended_otherwise(run, answer), *_about_something_else(run, report)] if report else []
    if pull:
        doubts += _doubts_about(client, repository, run, pull, report)
    told = [doubt for doubt in doubts if doubt]
    return noted(answer, told, distrust=True) if told else answer


def _without_report(run: github.WorkflowRun) -> Answer:
    """A run that ended well without a report had no model to judge; any other has no answer."""
    if run.conclusion == "success":
        return Answer(VERDICT_NONE, Exit.PASS, UNTOLD, UNTOLD)
    text = f"**The newest run of the Core ML gate left no report.** It ended as:\n\n{fenced(run.conclusion or 'unknown')}\n"
    return Answer(Outcome.ERROR, Exit.NO_ANSWER, text, text)


def _ended_otherwise(run: github.WorkflowRun, answer: Answer) -> str | None:
    """A report that passes from a job that did not: something went wrong after the gate, or before it was believed."""
    if answer.exit_code is not Exit.PASS or run.conclusion == "success":
        return None
    return "Its report passes, but its run did not end well; neither is believed."


def _about_something_else(run: github.WorkflowRun, report: Report) -> Iterator[str]:
    """A part that passes says nothing of the rest, and a report of another commit nothing of this one."""
    if report.run.part or report.run.handover:
        yield "Its report is of one part of a run; a verdict is what `merge` leaves."
    if report.run.commit not in (None, run.head_sha):
        yield f"Its report is about another commit, {code(report.run.commit)}."


def _doubts_about(
    client: github.Client, repository: str, run: github.WorkflowRun, pull: github.PullRequest, report: Report | None
) -> list[str]:
    """Why the run's own word is not enough."""
    changed = github.changed_files(client, github.Event("pull_request", repository, pull))
    edited = trust.altered(client, repository, pull, run.path, changed)
    if edited == () and not (report and report.run.approved_by):
        return []
    approved = trust.approved(client, repository, pull, _label(client, repository, pull, report))
    if edited != ():
        return [] if approved else [trust.told(edited)]
    return [] if approved else ["It says that its change of limits was approved; GitHub does not."]


def _label(client: github.Client, repository: str, pull: github.PullRequest, report: Report | None) -> str | None:
    """The approving label that the base branch names."""
    text = github.file_at(client, repository, report.run.config if report else "gate.yml", pull.base_sha)
    try:
        return config.label_of(text) if text else None
    except ConfigError:
        return None


def _set_status(
    inputs: Inputs,
    around: Surroundings,
    client: github.Client,
    repository: str,
    run: github.WorkflowRun,
    answer: Answer,
) -> None:
    """Set what branch protection may require. A token that may not is told, and is no failure."""
    state = {Exit.PASS: github.State.SUCCESS, Exit.FAIL: github.State.FAILURE}.get(answer.exit_code, github.State.ERROR)
    context = CONTEXT if inputs.comment_id == "default" else f"{CONTEXT}/{inputs.comment_id}"
    said, url = SAID[answer.verdict], around.run_url(run.id)
    try:
        github.set_status(client, repository, run.head_sha, state, context, said, url)
    except github.CannotSetStatus as error:
        say(
            command(
                "notice", f"No commit status was set: {error}. The job needs `statuses: write`; see docs/github.md."
            )
        )
        return
    say(f"Status {context}: {state.value}, {said}")
