# SPDX-License-Identifier: Apache-2.0
"""Do the views say what the report says, to someone who is no ML engineer, and do strings from outside stay text?"""

import functools
import io
import re
import unicodedata
from collections.abc import Callable
from html.parser import HTMLParser

import cmarkgfm
import html5lib
import pytest
from cmarkgfm.cmark import Options
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from gate import render
from gate.errors import UsageError
from gate.render import chart, escape, figures, notes
from gate.render.views import COMMENT_UNITS, SUMMARY_BYTES
from gate.report import (
    Bound,
    CheckName,
    Finding,
    Measurement,
    Outcome,
    Part,
    Report,
    Result,
    Series,
    Severity,
    Unit,
    make_report,
)
from tests import sample_reports as samples

BYTES = {"name": "package_bytes", "unit": Unit.BYTES}


def as_github_shows(markdown: str) -> str:
    """CommonMark with GitHub's extensions, by GitHub's own parser; raw HTML stays, so that it would be seen."""
    return cmarkgfm.github_flavored_markdown_to_html(markdown, options=Options.CMARK_OPT_UNSAFE)


def as_printed(report: Report, width: int = 110) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None, force_terminal=False).print(render.terminal(report))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


class Reader(HTMLParser):
    """Collects tags, and text outside of code, as the filters of a site would see them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.text: list[str] = []
        self.depth_of_code = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(f"{tag} {' '.join(sorted(name for name, _ in attrs))}".strip())
        self.depth_of_code += tag == "code"

    def handle_endtag(self, tag):
        self.tags.append(f"/{tag}")
        self.depth_of_code -= tag == "code"

    def handle_comment(self, data):
        self.tags.append("<!--")

    def handle_data(self, data):
        if not self.depth_of_code:
            self.text.append(data)


# --- what a reviewer reads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", samples.SAMPLES)
def test_comment_is_as_agreed(name, golden):
    golden(f"comment/{name}.md", render.comment(samples.SAMPLES[name]()))


@pytest.mark.parametrize("name", ["too_large", "two_engines", "cannot_convert", "untouched"])
def test_terminal_is_as_agreed(name, golden):
    golden(f"terminal/{name}.txt", as_printed(samples.SAMPLES[name]()))


def test_page_is_as_agreed(golden):
    golden("report/two_engines.html", render.html(samples.two_engines()))


@pytest.mark.parametrize(
    ("name", "verdict", "cause", "remedy"),
    [
        ("all_pass", "✓ tagger passes every check that was run", "5.62 MB of 6 MB allowed, accuracy 97.2 %.", "Nothing to do; 1 warning below."),
        ("too_large", "✗ tagger is too large: 6.41 MB of 6 MB allowed", "This change grows it by 510 kB, from 5.90 MB.", "palette-4bit was tried and would pass (4.10 MB, accuracy 97.2 %)."),
        ("cannot_convert", "✗ tagger cannot become a working Core ML model", "2 operations have no Core ML form: the spectrum in ml/tagger/frontend.py:41 and the warp in ml/tagger/model.py:112.", "Replace both by what the details suggest; nothing else was judged."),
        ("not_certain", "? Not certain yet for tagger: Is it accurate enough?", "128 items cannot show that accuracy is at least 92 %.", "About 310 more labelled items would settle it. It does not block."),
        ("no_answer", "! No answer for tagger: Does it convert?", "ml/tagger/model.py:build did not return within 10 min.", "See whether build() waits for a download or a lock; limits.time is the limit."),
        ("waived", "✓ tagger passes, with 1 accepted exception", "6.41 MB of 6 MB allowed, accuracy 97.3 %.", "Nothing to do."),
        ("untouched", "✓ No model is concerned by this change", "Nothing was judged.", "Nothing to do."),
    ],
)  # fmt: skip
def test_headline_gives_verdict_cause_and_remedy(name, verdict, cause, remedy):
    assert render.headline(samples.SAMPLES[name]()) == (verdict, cause, remedy)


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("all_pass", "✓ Part 2 of 3: tagger passes"), ("too_large", "✗ Part 2 of 3: tagger is too large"), ("not_certain", "? Part 2 of 3: Not")],
)  # fmt: skip
def test_a_part_of_a_run_says_that_it_is_no_verdict_on_the_whole(name, verdict):
    report = samples.SAMPLES[name]()
    part = Part(index=2, units=(("a/x",), ("b/x",), ("c/x",)))
    divided = report.model_copy(update={"run": report.run.model_copy(update={"part": part})})
    assert render.headline(divided).verdict.startswith(verdict)
    assert "no verdict on the whole" in render.headline(divided).remedy
    assert "Part 2 of 3" in render.comment(divided).splitlines()[1]


@pytest.mark.parametrize("name", samples.SAMPLES)
def test_the_first_three_visible_lines_are_the_headline(name):
    report = samples.SAMPLES[name]()
    lines = [line for line in render.comment(report).splitlines() if line]
    assert lines[0] == "<!-- coreml-gate:report id=default -->"
    shown = ["".join(Reader(as_github_shows(line)).text).strip().replace(escape.ZERO_WIDTH, "") for line in lines[1:4]]
    for line, said in zip(shown, render.headline(report), strict=True):
        assert line.endswith(re.sub(r" +", " ", said))


@pytest.mark.parametrize(("fail_on", "said"), [("fail", "It does not block."), ("inconclusive", "It blocks, as configured."), ("never", "Nothing blocks (--fail-on never).")])  # fmt: skip
def test_an_uncertain_answer_says_whether_it_blocks(fail_on, said):
    report = samples.not_certain()
    changed = report.model_copy(update={"run": samples.run(fail_on=fail_on)})
    assert render.headline(changed).remedy.endswith(said)


def test_above_the_fold_there_is_no_decibel_no_p_value_and_no_op():
    for name, build in samples.SAMPLES.items():
        fold = render.comment(build()).split("<details>")[0]
        assert not re.search(r"\bdB\b|worse at all p|_cast_fp16|aten::", fold), name


@pytest.mark.parametrize(
    ("sources", "sandbox", "told"),
    [
        pytest.param(("coreml",), "none", "None of the model's code was run.", id="a finished package"),
        pytest.param(("coreml", "factory"), "none", "The model's code ran without a sandbox.", id="code without"),
        pytest.param(("coreml",), "namespaces", None, id="a metric's code, kept apart"),
    ],
)
def test_no_sandbox_is_said_of_code_that_ran_and_not_of_finished_packages(sources, sandbox, told):
    models = tuple(
        samples.model(samples.shipped(samples.feasible()), name=kind, source=f"{kind} ml/m") for kind in sources
    )
    said = notes.unproven(make_report(samples.run(sandbox=sandbox), models))
    assert [line for line in said if "code" in line] == ([told] if told else [])


def test_an_explored_candidate_that_was_not_asked_the_failing_question_is_no_cure():
    unasked = samples.candidate("palette-4bit", samples.feasible(), samples.accurate(0.972))
    ship = samples.shipped(samples.size(6_410_000), samples.accurate(0.973))
    report = make_report(samples.run(), (samples.model(ship, unasked),))
    assert render.headline(report).remedy == "Choose a policy with fewer bits, or raise budgets.size."


def test_an_explored_candidate_that_loses_accuracy_is_no_cure():
    lossy = samples.candidate("palette-2bit", samples.size(2_240_000), samples.accurate(0.911, Outcome.FAIL))
    ship = samples.shipped(samples.size(6_410_000), samples.accurate(0.973))
    report = make_report(samples.run(), (samples.model(ship, lossy),))
    assert "palette-2bit" not in render.headline(report).remedy


def test_an_app_that_is_too_large_names_the_candidate_that_would_bring_it_under_its_limit():
    ship = samples.shipped(samples.size(5_900_000), samples.accurate(0.973))
    report = make_report(
        samples.run(), (samples.model(ship, *samples.smaller()),), samples.total(32_800_000, 32_000_000)
    )
    assert render.headline(report).verdict == "✗ The app's models are too large together: 32.8 MB of 32 MB allowed"
    assert render.headline(report).remedy == "palette-4bit for tagger was tried, would pass and saves 1.80 MB."
    still_too_large = make_report(samples.run(), report.models, samples.total(34_000_000, 32_000_000))
    assert "palette-4bit" not in render.headline(still_too_large).remedy


def test_a_failure_is_not_explained_by_a_number_that_keeps_its_limit():
    numbers = (
        Measurement(name="error:probs", value=0.001, unit=Unit.FRACTION, limit=0.02),
        Measurement(name="new_nonfinite:probs", value=3, unit=Unit.COUNT, limit=0),
    )
    failed = samples.small_numbers(Outcome.FAIL)
    with_limit = failed.model_copy(update={"measurements": numbers})
    report = make_report(samples.run(), (samples.model(samples.shipped(with_limit)),))
    assert render.headline(report).verdict == (
        "✗ tagger loses too much in 16-bit numbers: new nonfinite 3, at most 0 allowed"
    )
    without = failed.model_copy(update={"measurements": numbers[:1]})
    report = make_report(samples.run(), (samples.model(samples.shipped(without)),))
    assert render.headline(report).verdict == "✗ tagger loses too much in 16-bit numbers"


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (
            ("integrity.nothing",),
            "tagger has a policy that compressed nothing: compressed weights 0, at least 1 needed",
        ),
        (("integrity.nothing", "integrity.changed"), "stores weights that are not what its compression promised"),
    ],
)
def test_a_rule_that_alone_says_what_is_wrong_is_the_headline(rules, said):
    done = Measurement(name="compressed_weights", value=0, unit=Unit.COUNT, limit=1, bound=Bound.AT_LEAST)
    failed = Result(
        check=CheckName.INTEGRITY, outcome=Outcome.FAIL, measurements=(done,), message="m",
        findings=tuple(Finding(rule=rule, severity=Severity.ERROR, message="m") for rule in rules),
    )  # fmt: skip

    report = make_report(samples.run(), (samples.model(samples.shipped(failed)),))

    assert said in render.headline(report).verdict


def test_agreement_keeps_its_name():
    agreed = Measurement(name="agreement (accuracy)", value=0.992, unit=Unit.FRACTION)
    result = Result(check=CheckName.ACCURACY, outcome=Outcome.PASS, measurements=(agreed,), message="m")

    assert "agreement (accuracy) 99.2 %" in render.comment(
        make_report(samples.run(), (samples.model(samples.shipped(result)),))
    )


def test_a_size_without_a_limit_is_no_pass():
    report = make_report(samples.run(), (samples.model(samples.shipped(samples.size(26_400_000, limit=None))),))
    assert "| Is it small enough? | 5.90 MB | 26.4 MB | – | – no limit set |" in render.comment(report)


def test_a_required_answer_that_is_missing_is_no_answer():
    missing = Result(check=CheckName.LATENCY, outcome=Outcome.NOT_RUN, message="needs a Mac", required=True)
    report = make_report(samples.run(), (samples.model(samples.shipped(missing)),))
    assert render.headline(report)[:2] == ("! No answer for tagger: Is it fast enough?", "Needs a Mac.")


def test_a_slice_has_a_row_only_where_it_does_not_pass():
    report = samples.two_engines()
    assert "Is it accurate enough? (night)" in render.comment(report)
    fine = samples.above_floor(0.97).model_copy(update={"slice": "day"})
    passing = make_report(samples.run(), (samples.model(samples.shipped(samples.above_floor(0.97), fine)),))
    assert "(day)" not in render.comment(passing).split("<details>")[0]


def test_many_models_that_pass_take_one_row_each():
    fold = render.comment(samples.many(12)).split("<details>")[0]
    assert fold.count("| ✓ pass |") == 11 + 1 + 1
    assert (
        fold.count("| Is it small enough? |") == 1
    )  # of model-007, which fails and comes first; its other questions take one row, the app one
    assert fold.index("model-007") < fold.index("model-000")


def test_waivers_and_what_was_not_run_are_printed_with_their_reasons():
    waived = render.comment(samples.waived())
    assert "✓ accepted" in waived
    assert "new classes for the winter release" in waived.lower()
    assert "2027-01-31" in waived
    assert "Needs a Mac or an iPhone; this ran on Linux." in render.comment(samples.all_pass())


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (samples.MIL, "Not run on Apple's runtime; GPU, Neural Engine and speed are not tested."),
        (samples.MAC, "Apple's runtime computed the answers, but not on the Neural Engine."),
        (samples.PHONE, None),
    ],
    ids=["linux", "mac", "phone"],
)
def test_what_is_not_proven_follows_from_where_the_answers_were_got(environment, said):
    answer = samples.accurate(0.972).model_copy(update={"environment": environment})
    report = make_report(samples.run(), (samples.model(samples.shipped(answer)),))
    for view in (render.comment(report), render.summary(report), as_printed(report, 200)):
        assert ("Not shown by this check" in view or "not tested" in view or "but not on" in view) is (said is not None)
        assert said is None or said in view
    assert ("Not shown by this check" in render.html(report)) is (said is not None)


def test_an_answer_that_was_not_got_proves_nothing_about_apples_runtime():
    failed = Result(check=CheckName.ACCURACY, outcome=Outcome.ERROR, environment=samples.PHONE, message="time-out")
    report = make_report(samples.run(), (samples.model(samples.shipped(failed)),))
    assert "Not run on Apple's runtime" in render.comment(report)


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "limit", "shown", "allowed"),
    [
        (6_410_000, 6_000_000, "6.41 MB", "6 MB"),
        (6_001_000, 6_000_000, "6.001 MB", "6 MB"),
        (6_000_001, 6_000_000, "6.000001 MB", "6 MB"),
        (5_999_999, 6_000_000, "5.999999 MB", "6 MB"),
        (6_000_000, 6_000_000, "6.00 MB", "6 MB"),
        (999_999, 1_000_000, "999.999 kB", "1 MB"),
    ],
)
def test_value_and_limit_are_written_so_that_they_differ(value, limit, shown, allowed):
    said = figures.figures(Measurement(value=value, limit=limit, **BYTES))
    assert (said.value, said.limit) == (shown, allowed)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.9996, "99.96 %"), (0.99999, "99.999 %"), (1.0, "100 %"), (0.972, "97.2 %"), (0.0, "0 %"), (2.1e-6, "0.00021 %"), (3e-9, "< 0.0001 %")],
)  # fmt: skip
def test_a_proportion_that_is_not_all_is_not_shown_as_all(value, shown):
    assert figures.figures(Measurement(name="accuracy", value=value, unit=Unit.FRACTION)).value == shown


@pytest.mark.parametrize(("bound", "shown"), [(Bound.AT_MOST, "≤ 2 %"), (Bound.AT_LEAST, "≥ 2 %")])
def test_a_limit_shows_its_side(bound, shown):
    said = figures.figures(Measurement(name="x", value=0.5, unit=Unit.FRACTION, limit=0.02, bound=bound))
    assert said.bound == shown


@given(st.floats(1, 1e11), st.floats(1, 1e11))
def test_no_two_sizes_look_the_same(value, limit):
    value, limit = round(value), round(limit)
    said = figures.figures(Measurement(value=value, limit=limit, **BYTES))
    assert (figures.plain(said.value) == said.limit) is (value == limit)


# --- strings from outside ---------------------------------------------------------------------------------------------

TOKENS = (
    "@octocat", "@org/team", "#12", "GH-7", "owner/repo#1", "4f0c2a91be7d3365", "[x](http://e.example)", "![i](//e.example/i.png)",
    "<img src=x onerror=alert(1)>", "<script>", "</details>", "</code>", "<!--", "-->", "|", "`", "```", "**", "_", "~~", "\\", "&#64;",
    "&lt;b&gt;", "www.e.example", "https://e.example", "ftp://e.example", "mailto:a@e.example", "a@e.example", "xmpp:a@e.example/x", ":tada:",
    "$x$", "$$", "\n", "\n\n", "\r", "\t", "    ", "# ", "- ", "1. ", "> ", "---", "===", "[^1]", "[ ]", "\u202e", "\u200b", "\u2028", "\x1b[31m",
    "::set-output name=a::b", "##[add-mask]x", "{{ 7 * 7 }}", "{% raw %}", '"', "'", "\x00", "\U000e0041", "\u3164", " ", "a", "9",
)  # fmt: skip
outside = st.lists(st.sampled_from(TOKENS) | st.characters(codec="utf-8"), min_size=1, max_size=10).map("".join)
LIVE = re.compile(
    r"(?<![\w`])@[a-z0-9]|#\d|\bgh-\d|https?://|ftp://|www\.|mailto:|(?<![0-9a-z])[0-9a-f]{7,40}(?![0-9a-z])|:[\w+-]+:",
    re.IGNORECASE,
)


def hidden(text: str) -> set[str]:
    return {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")}


quickly = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@settings(max_examples=300, deadline=None)
@given(
    outside,
    st.sampled_from(
        ["- {}", "### x {}", "text {} text", "| a |\n|--|\n| **{}** {} |", "<details><summary>{}</summary>"]
    ),
)
def test_markdown_of_any_text_is_text(text, place):
    for escaped, plain in ((escape.markdown(text), "x"), (escape.code(text), "<code>x</code>")):
        seen = Reader(as_github_shows(place.replace("{}", escaped)))
        assert seen.tags == Reader(as_github_shows(place.replace("{}", plain))).tags
        assert not LIVE.search("".join(seen.text))


@functools.cache
def benign(view: Callable[[Report], str]) -> list[str]:
    return Reader(as_github_shows(view(samples.hostile("plain")))).tags


@quickly
@given(outside)
@pytest.mark.parametrize("view", [render.comment, render.summary])
def test_markdown_has_the_same_elements_whatever_the_strings_are(view, text):
    written = view(samples.hostile(text))
    seen = Reader(as_github_shows(written))
    assert seen.tags == benign(view)
    assert not {"a", "img", "script"} & {tag.split()[0] for tag in seen.tags}
    assert not LIVE.search(" ".join(seen.text))
    assert hidden(written) == set()


def elements(html: str) -> list[tuple[str, list[str]]]:
    """Every element in order with the names of its attributes, as a browser would build them."""
    tree = html5lib.parse(html, namespaceHTMLElements=False)
    return [(str(node.tag), sorted(map(str, node.attrib))) for node in tree.iter()]


@quickly
@given(outside)
def test_a_page_has_the_same_elements_whatever_the_strings_are(text):
    page = render.html(samples.hostile(text))
    assert elements(page) == elements(render.html(samples.hostile("plain")))
    assert hidden(page) == set()


@quickly
@given(outside)
def test_a_terminal_or_a_runner_obeys_nothing(text):
    printed = as_printed(samples.hostile(text), 60)
    assert hidden(printed) == set()
    assert "##[" not in printed
    assert not re.search(r"^\s*::", printed, re.MULTILINE)
    for annotation in render.annotations(samples.hostile(text)):
        assert not hidden("".join((annotation.file, annotation.title, annotation.message)))


def test_hidden_characters_are_made_seen():
    assert escape.visible("a\u202eb\u200bc\x1b[0m") == "a[U+202E]b[U+200B]c[U+001B][0m"
    assert escape.visible("one\n\n two\t") == "one two"
    assert escape.visible("\n ") == "[blank]"


def test_a_comment_id_cannot_end_the_marker():
    assert render.comment(samples.untouched(), marker_id="ios-app").startswith("<!-- coreml-gate:report id=ios-app -->")
    with pytest.raises(UsageError, match="expected letters"):
        render.comment(samples.untouched(), marker_id="x --> <b>")


@pytest.mark.parametrize(
    ("url", "linked"),
    [("https://example.com/r?a=1", True), ("javascript:alert(1)", False), ("https://e.example/) [x](http://f", True), (None, False)],
)  # fmt: skip
def test_the_link_to_the_full_report_is_one_link_or_none(url, linked):
    shown = as_github_shows(render.comment(samples.all_pass(), report_url=url))
    assert shown.count("<a ") == linked


# --- room -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 150, 1_000])
def test_a_comment_fits_and_keeps_its_headline(number):
    report = samples.many(number)
    text = render.comment(report)
    assert escape.utf16_units(text) <= COMMENT_UNITS
    assert escape.markdown(render.headline(report).verdict) in text.splitlines()[1]
    assert ("Left out, to fit GitHub" in text) is (number > 1)


def test_detail_is_given_up_in_the_order_that_is_stated():
    text = render.comment(samples.many(60))
    assert "Left out, to fit GitHub's limit: measurements; all but five findings of each model" in text


def test_a_comment_of_nothing_but_special_characters_fits():
    text = render.comment(samples.hostile("@🎉" * 200))
    assert escape.utf16_units(text) <= COMMENT_UNITS


def test_a_summary_fits():
    assert len(render.summary(samples.many(400)).encode()) <= SUMMARY_BYTES


def test_length_is_counted_as_github_counts():
    assert escape.utf16_units("a🎉é") == 4


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["too_large", "hostile"])
def test_the_page_fetches_nothing_and_runs_nothing(name):
    tree = html5lib.parse(render.html(samples.SAMPLES[name]()), namespaceHTMLElements=False)
    names = {str(node.tag).split("}")[-1] for node in tree.iter()}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "image", "use", "form", "a", "base"}
    assert not any(
        str(a) in ("src", "href", "style") or str(a).startswith("on") for node in tree.iter() for a in node.attrib
    )
    style = next(node.text for node in tree.iter() if str(node.tag) == "style")
    assert "url(" not in style
    assert "@import" not in style


def test_each_figure_says_in_words_what_it_draws():
    tree = html5lib.parse(render.html(samples.too_large()), namespaceHTMLElements=False)
    drawings = [node for node in tree.iter() if str(node.tag).endswith("svg")]
    assert len(drawings) == 2
    assert all(node.attrib["role"] == "img" for node in drawings)
    assert "limit 6 MB: palette-6bit (ships) 6.41 MB; palette-4bit 4.10 MB" in drawings[0].attrib["aria-label"]
    assert "highest at 131" in drawings[1].attrib["aria-label"]


def curve(y: tuple[float | None, ...], unit: Unit = Unit.NUMBER) -> chart.Chart:
    series = Series(name="curve", x=tuple(range(len(y))), y=y, unit=unit)
    result = samples.feasible().model_copy(update={"series": (series,)})
    return chart.charts(samples.model(samples.shipped(result)))[0]


def test_a_spike_survives_thinning():
    drawn = curve((*[1.0] * 40_000, 9.0, *[1.0] * 40_000))
    assert " 0.00" in drawn.drawing  # the top of the box
    assert drawn.drawing.count("L") < 2 * chart.MOST_POINTS
    assert "highest at 40000" in drawn.sentence


@pytest.mark.parametrize(
    ("y", "top", "logarithmic"),
    [((0.001, 0.1, 10.0), "10", True), ((0.0, 0.1, 10.0), "10", False), ((5.0, 5.0), "5", False), ((-1.0, None, 1.0), "1", False)],
    ids=["decades", "zero", "constant", "gap"],
)  # fmt: skip
def test_a_curve_has_a_scale_that_fits(y, top, logarithmic):
    drawn = curve(y)
    assert drawn.y_labels[0] == top
    assert drawn.title.endswith("(logarithmic)") is logarithmic


def test_curves_of_explored_candidates_name_their_policy_and_stay_folded():
    explored = samples.candidate("int8", samples.small_numbers())
    page = render.html(make_report(samples.run(), (samples.model(samples.shipped(samples.feasible()), explored),)))
    assert page.index("Details for engineers") < page.index("Error along the network (logarithmic) · int8")


def test_a_long_name_leaves_room_for_the_figures():
    ship = samples.shipped(samples.size(6_410_000))
    report = make_report(samples.run(), (samples.model(ship, name="n" * 400),))
    assert render.headline(report).verdict.endswith("… is too large: 6.41 MB of 6 MB allowed")


def test_a_curve_without_any_value_is_not_drawn():
    series = Series(name="curve", x=(1, 2), y=(None, None), unit=Unit.NUMBER)
    result = samples.feasible().model_copy(update={"series": (series,)})
    assert chart.charts(samples.model(samples.shipped(result))) == ()


# --- annotations ------------------------------------------------------------------------------------------------------


def test_a_finding_is_said_on_its_source_line_and_not_twice():
    found = render.annotations(samples.cannot_convert())
    assert [(a.level, a.file, a.line) for a in found] == [
        ("error", "ml/tagger/frontend.py", 41),
        ("error", "ml/tagger/model.py", 112),
    ]
    assert "Compute the spectrum" in found[0].message


def test_a_failure_without_a_line_is_said_on_the_configuration():
    assert [(a.level, a.file, a.line) for a in render.annotations(samples.too_large())] == [
        ("error", "gate.yml", 1),
        ("warning", "ml/tagger/model.py", 88),
    ]


def test_ten_of_a_level_at_most_and_errors_first():
    levels = [annotation.level for annotation in render.annotations(samples.many(500))]
    assert levels == ["error"] * 10 + ["warning"] * 10


@pytest.mark.parametrize(
    "source", ["/etc/passwd:1", "../x.py:1", "a/../../x.py:1", "x.py", "x.py:0", "C:\\x.py:1", "x.py:1:2"]
)
def test_a_place_outside_of_the_repository_is_none(source):
    finding = samples.small_numbers().findings[0].model_copy(update={"source": source, "severity": Severity.WARNING})
    result = samples.small_numbers().model_copy(update={"findings": (finding,)})
    assert render.annotations(make_report(samples.run(), (samples.model(samples.shipped(result)),))) == []
