# SPDX-License-Identifier: Apache-2.0
"""What is the answer, and where is it told? Comment, summary, annotations, outputs, and only then the exit code."""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from gate import baseline, github, prepare, render
from gate.action.handover import Evaluated, Plan
from gate.action.inputs import CommentMode, Inputs, Mode
from gate.action.runner import ANNOTATION_CHARACTERS, Surroundings, annotate, command, say
from gate.errors import Exit, UsageError
from gate.report import Outcome, Report, exit_code

VERDICT_NONE = "none"
UNTOLD = (
    "**The newest run of the Core ML gate left no report.** Either no model is concerned any more, or it could not run."
)
NOTHING = "**No model is concerned by this change.** The Core ML gate has nothing to judge."


@dataclass(frozen=True)
class Answer:
    """What the run has to say, in all the places where GitHub shows something."""

    verdict: str
    exit_code: Exit
    comment: str
    summary: str
    annotations: tuple[render.Annotation, ...] = ()


def run_report(around: Surroundings) -> Exit:
    """Tell the answer everywhere, and only then fail."""
    inputs, event = Inputs.read(around.environ), around.event()
    if event.workflow_run:
        return _report_other_run(inputs, around, event)
    answer = _answer(inputs, around)
    around.summarize(answer.summary)
    annotate(answer.annotations)
    if event.pull_request and inputs.mode is not Mode.EVALUATE:
        _comment(inputs, around, event.pull_request.number, answer)
    around.output(verdict=answer.verdict, exit_code=str(int(answer.exit_code)))
    return Exit.PASS if inputs.mode is Mode.REPORT else answer.exit_code


def _report_other_run(inputs: Inputs, around: Surroundings, event: github.Event) -> Exit:
    """Comment on the pull request of another run, from its artifact. Nothing of that run is executed or trusted."""
    run, client = event.workflow_run, around.client()
    assert run is not None  # the caller looked
    pull = github.pull_request_of_run(client, event.repository, run) if run.event == "pull_request" else None
    if pull is None:
        say(command("notice", f"Run {run.id} is not the newest of exactly one open pull request; nothing is posted."))
        around.output(verdict=VERDICT_NONE, exit_code="0", comment_written="false")
        return Exit.PASS
    data = github.artifact_member(client, event.repository, run.id, inputs.artifact, "report.json")
    if data is None:  # as when no model was concerned; an older comment is then brought up to date
        answer = Answer(VERDICT_NONE, Exit.PASS, UNTOLD, UNTOLD)
    else:
        answer = _judged(baseline.parse_report(data, "report.json"), inputs, around.run_url(run.id))
    around.summarize(answer.summary)
    _comment(inputs, around, pull.number, answer)
    around.output(verdict=answer.verdict, exit_code=str(int(answer.exit_code)))
    return Exit.PASS


def _answer(inputs: Inputs, around: Surroundings) -> Answer:
    if inputs.report:
        return _judged(_read_report(prepare.inside(around.workspace, inputs.report)), inputs, around.run_url())
    ended = around.work / "evaluated.json"
    if ended.exists():
        return _evaluated(Evaluated.model_validate_json(ended.read_bytes()), inputs, around)
    plan = Plan.model_validate_json((around.work / "plan.json").read_bytes())
    if plan.concerned:
        return _unanswered(Exit.NO_ANSWER, "the evaluation did not start; see the log of the step before", inputs)
    return Answer(VERDICT_NONE, Exit.PASS, NOTHING, NOTHING)


def _evaluated(ended: Evaluated, inputs: Inputs, around: Surroundings) -> Answer:
    """Tell the report, unless `gate check` ended in a way that does not fit it."""
    file = around.work / "out" / "report.json"
    if ended.exit_code in (Exit.USAGE, Exit.CRASH) or not file.exists():
        return _unanswered(_known(ended.exit_code), ended.message, inputs)
    answer = _judged(_read_report(file), inputs, around.run_url())
    if answer.exit_code != ended.exit_code:
        told = f"report.json says {answer.verdict}, but `gate check` ended with exit code {ended.exit_code}"
        return _unanswered(Exit.NO_ANSWER, f"{told}; neither is believed.\n{ended.message}", inputs)
    return answer


def _judged(report: Report, inputs: Inputs, run_url: str | None) -> Answer:
    return Answer(
        verdict=report.outcome,
        exit_code=exit_code(report.outcome, inputs.fail_on),
        comment=render.comment(report, report_url=run_url, marker_id=inputs.comment_id),
        summary=render.summary(report, report_url=run_url),
        annotations=tuple(render.annotations(report)),
    )


def _unanswered(code: Exit, message: str, inputs: Inputs) -> Answer:
    cause = "The gate cannot run as configured" if code is Exit.USAGE else "The gate has no answer"
    text = f"**{cause}** (exit code {int(code)}).\n\n{fenced(message)}\n"
    told = render.Annotation("error", inputs.config, 1, cause, message[-ANNOTATION_CHARACTERS:])
    return Answer(Outcome.ERROR, code, text, text, (told,))


def _known(code: int) -> Exit:
    return Exit(code) if code in (Exit.USAGE, Exit.NO_ANSWER, Exit.CRASH) else Exit.NO_ANSWER


def fenced(text: str) -> str:
    """Put text from outside where Markdown does not read it: a fence longer than any run of back-ticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _read_report(path: Path) -> Report:
    return baseline.parse_report(_read(path), path.name)


def _read(path: Path) -> bytes:
    """Read a file that the evaluated side could have replaced: no link is followed, and no more than a report is read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as problem:
        raise UsageError(f"{path.name}: {problem.strerror}; expected a plain file") from None
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageError(f"{path.name}: expected a plain file")
        return stream.read(baseline.MAX_BYTES + 1)


def _comment(inputs: Inputs, around: Surroundings, number: int, answer: Answer) -> None:
    """Write the one comment where it is wanted. A token that may not is told, and is no failure."""
    client, repository = around.client(), around.environ["GITHUB_REPOSITORY"]
    try:
        written = _write_comment(inputs, client, repository, number, answer)
    except github.CannotComment as error:
        say(
            command(
                "notice", f"No comment was written: {error}. The summary has the report; see docs/github.md, Forks."
            )
        )
        written = None
    around.output(comment_written=str(written is not None).lower())
    if written:
        around.output(comment_id=str(written.id), comment_url=written.url)


def _write_comment(
    inputs: Inputs, client: github.Client, repository: str, number: int, answer: Answer
) -> github.Comment | None:
    match inputs.comment:
        case CommentMode.NEVER:
            return None
        case CommentMode.ALWAYS:
            wanted = True
        case CommentMode.ON_CHANGE:
            wanted = answer.verdict != VERDICT_NONE
        case CommentMode.ON_FAILURE:
            wanted = answer.exit_code is not Exit.PASS
    # Where none is wanted, an older comment is still brought up to date: it may say that something fails.
    if not wanted and github.find_comment(client, repository, number, inputs.comment_id) is None:
        return None
    how, comment = github.upsert_comment(client, repository, number, inputs.comment_id, answer.comment)
    say(f"Comment {how}: {comment.url}")
    return comment
