# SPDX-License-Identifier: Apache-2.0
"""What is the answer, and where is it told? Comment, summary, annotations, outputs, and only then the exit code."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gate import baseline, github, prepare, render
from gate.action import divide, trust
from gate.action.handover import Evaluated, Plan
from gate.action.inputs import CommentMode, Inputs, Mode
from gate.action.runner import ANNOTATION_CHARACTERS, Surroundings, annotate, command, fenced, say
from gate.errors import Exit, UsageError
from gate.render.escape import code
from gate.report import Outcome, Report, exit_code

VERDICT_NONE = "none"
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
    answer = _answer(inputs, around)
    if edited := _edited(around):
        answer = noted(answer, [trust.told(edited)])  # a note: who may push here could do without us
    around.summarize(answer.summary)
    annotate(answer.annotations)
    divide.keep_cache(inputs, event, around.work)
    if event.pull_request and inputs.mode in (Mode.ALL, Mode.REPORT, Mode.MERGE):
        write_comment(inputs, around, event.pull_request.number, answer)
    around.output(verdict=answer.verdict, exit_code=str(int(answer.exit_code)))
    left = around.work / "out" / "report.json"
    part = inputs.mode is Mode.ANSWER or (inputs.mode is Mode.EVALUATE and inputs.shard)
    told_later = part and left.exists()  # `merge` has the verdict
    return Exit.PASS if inputs.mode in (Mode.REPORT, Mode.PLAN) or told_later else answer.exit_code


def _edited(around: Surroundings) -> tuple[str, ...]:
    """The files of the evaluation that this change edits."""
    file = around.work / "plan.json"
    return Plan.model_validate_json(file.read_bytes()).edited if file.exists() else ()


def _answer(inputs: Inputs, around: Surroundings) -> Answer:
    if inputs.report:
        return judged(_read_report(prepare.inside(around.workspace, inputs.report)), inputs, around.run_url())
    ended = around.work / "evaluated.json"
    if ended.exists():
        return _evaluated(Evaluated.model_validate_json(ended.read_bytes()), inputs, around)
    plan = Plan.model_validate_json((around.work / "plan.json").read_bytes())
    if inputs.mode is Mode.PLAN:
        return Answer(VERDICT_NONE, Exit.PASS, "", f"To judge: {', '.join(map(code, plan.concerned)) or 'nothing'}.")
    if plan.concerned:
        return _unanswered(Exit.NO_ANSWER, "the evaluation did not start; see the log of the step before", inputs)
    return Answer(VERDICT_NONE, Exit.PASS, NOTHING, NOTHING)


def _evaluated(ended: Evaluated, inputs: Inputs, around: Surroundings) -> Answer:
    """Tell the report, unless `gate check` ended in a way that does not fit it."""
    file = around.work / "out" / "report.json"
    if ended.exit_code in (Exit.USAGE, Exit.CRASH) or not file.exists():
        return _unanswered(_known(ended.exit_code), ended.message, inputs)
    answer = judged(_read_report(file), inputs, around.run_url())
    if answer.exit_code != ended.exit_code:
        told = f"report.json says {answer.verdict}, but `gate check` ended with exit code {ended.exit_code}"
        return _unanswered(Exit.NO_ANSWER, f"{told}; neither is believed.\n{ended.message}", inputs)
    return answer


def judged(report: Report, inputs: Inputs, run_url: str | None) -> Answer:
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


def noted(answer: Answer, notes: Sequence[str], *, distrust: bool = False) -> Answer:
    """Put notes before everything else that is said; what is distrusted is no answer, whatever it says."""
    text = "".join(f"> **⚠ {note}**\n\n" for note in notes)
    marker, found, rest = (
        answer.comment.partition("\n") if answer.comment.startswith("<!--") else ("", "", answer.comment)
    )
    told = replace(answer, comment=f"{marker}{found}{text}{rest}", summary=text + answer.summary)
    return replace(told, verdict=Outcome.ERROR, exit_code=Exit.NO_ANSWER) if distrust else told


def _known(code: int) -> Exit:
    return Exit(code) if code in (Exit.USAGE, Exit.NO_ANSWER, Exit.CRASH) else Exit.NO_ANSWER


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


def write_comment(inputs: Inputs, around: Surroundings, number: int, answer: Answer) -> None:
    """Write the one comment where it is wanted. A token that may not is told, and is no failure."""
    client, repository = around.client(), around.environ["GITHUB_REPOSITORY"]
    try:
        written = _written(inputs, client, repository, number, answer)
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


def _written(
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
