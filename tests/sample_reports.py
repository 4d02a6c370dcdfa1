# SPDX-License-Identifier: Apache-2.0
"""Which reports does a reviewer meet? One builder each, with the figures of the ResNet-50 shape and of real cases."""

from collections.abc import Callable

from gate.report import (
    App,
    Basis,
    Bound,
    Candidate,
    CheckName,
    Data,
    Environment,
    Finding,
    Measurement,
    Model,
    Outcome,
    PackageFile,
    Report,
    Result,
    Role,
    Run,
    Series,
    Severity,
    Unit,
    WaiverNote,
    make_report,
)

DIGEST = "ab" * 32
MIL = Environment(engine="mil", os="Linux 6.1 x86_64", device="2 cores")
MAC = Environment(engine="coreml", os="macOS 15.5", device="Mac15,12", compute_units="CPU_ONLY")
PHONE = Environment(engine="coreml", os="iOS 18.5", device="iPhone14,2", compute_units="CPU_AND_NE")


def run(**changed: object) -> Run:
    """Return the circumstances of a pull request."""
    base = Run(
        commit="4f0c2a91be7d3365aa10cc5f0e1b77d0a9e5f613",
        base_commit="d1c8ee0723f5ab6649d05aa9e6f2b7c1f4a0c9d2",
        event="pull_request",
        config_digest=DIGEST,
        config_from="base",
        started="2026-11-21T22:58:10Z",
        seconds=41.7,
        sandbox="container",
        tools={"coreml-gate": "0.1.0", "coremltools": "9.0", "torch": "2.13.0", "python": "3.11.9"},
    )
    return base.model_copy(update=changed)


def feasible() -> Result:
    """Return an answer: it converts."""
    return Result(check=CheckName.FEASIBILITY, outcome=Outcome.PASS, message="Converted by trace in 6.1 s.")


def faithful() -> Result:
    """Return an answer: the float32 program computes what the source computes."""
    error = Measurement(name="error:probs", value=2.1e-6, unit=Unit.FRACTION, limit=0.001, n=64)
    return Result(
        check=CheckName.FIDELITY, outcome=Outcome.PASS, environment=MIL, measurements=(error,),
        message="The converted model answers as the source does.",
    )  # fmt: skip


def intact(sparsity: float | None = None) -> Result:
    """Return an answer: the weights are as promised."""
    numbers = () if sparsity is None else (Measurement(name="sparsity", value=sparsity, unit=Unit.FRACTION),)
    return Result(
        check=CheckName.INTEGRITY, outcome=Outcome.PASS, measurements=numbers,
        message="All 54 weights decode to what the policy promised.",
    )  # fmt: skip


def small_numbers(outcome: Outcome = Outcome.PASS) -> Result:
    """Return an answer about float16, in decibels and per cent, with its curve."""
    numbers = (
        Measurement(name="snr:probs", value=58.3, unit=Unit.DECIBEL, limit=40.0, bound=Bound.AT_LEAST),
        Measurement(
            name="error:probs", value=0.0042, unit=Unit.FRACTION, limit=0.02, n=64, method="largest over outputs"
        ),
    )
    curve = Series(
        name="error_along_the_network", x=tuple(range(216)), unit=Unit.FRACTION, x_name="op, in order",
        y=tuple(1e-5 * 1.035**i * (40.0 if i == 131 else 1.0) for i in range(216)),
    )  # fmt: skip
    warning = Finding(
        rule="float16.drift", severity=Severity.WARNING, op="reduce_mean mean_3_cast_fp16", layer="head.pool",
        source="ml/tagger/model.py:88", message="Rounding error jumps by a factor of 40 here.",
        advice="Keep head.pool in float32: keep_float32: [head.pool]", evidence="error curve, op 131",
    )  # fmt: skip
    return Result(
        check=CheckName.FLOAT16, outcome=outcome, environment=MIL, measurements=numbers, series=(curve,),
        message="16-bit numbers change the answers by at most 0.42 % of their range.", findings=(warning,),
    )  # fmt: skip


def size(bytes_: int, *, limit: int | None = 6_000_000, before: int | None = 5_900_000) -> Result:
    """Return an answer about the size, judged."""
    kept = limit is None or bytes_ <= limit
    return Result(
        check=CheckName.SIZE,
        outcome=Outcome.PASS if kept else Outcome.FAIL,
        measurements=(Measurement(name="package_bytes", value=bytes_, unit=Unit.BYTES, limit=limit, baseline=before),),
        message=f"The package is {'within' if kept else 'larger than'} its budget.",
        remedy=None if kept else "choose a policy with fewer bits, or raise budgets.size",
    )


def accurate(
    value: float, outcome: Outcome = Outcome.PASS, *, message: str = "", n: int = 1_437, margin: float = 0.01
) -> Result:
    """Return an answer about accuracy: the drop against the source decides, as the check writes it."""
    drop = round(0.974 - value, 6)
    numbers = (
        Measurement(
            name="accuracy_drop", value=drop, unit=Unit.POINTS, limit=margin, low=drop - 0.004, high=drop + 0.005, n=n,
            confidence=0.95, method="Tango score interval",
        ),
        Measurement(name="accuracy", value=value, unit=Unit.FRACTION, baseline=0.974, n=n),
        Measurement(name="right_to_wrong", value=11, unit=Unit.COUNT, n=n),
        Measurement(name="worse_at_all_p", value=0.0327, unit=Unit.NUMBER, n=n, method="McNemar exact, one-sided"),
    )  # fmt: skip
    return Result(
        check=CheckName.ACCURACY, outcome=outcome, environment=MIL, against="source", measurements=numbers,
        message=message or "accuracy holds", required=True,
    )  # fmt: skip


def above_floor(value: float, outcome: Outcome = Outcome.PASS, *, message: str = "", n: int = 1_437) -> Result:
    """Return an answer about accuracy: the level itself decides."""
    level = Measurement(
        name="accuracy", value=value, unit=Unit.FRACTION, limit=0.92, bound=Bound.AT_LEAST, low=value - 0.021,
        high=min(1.0, value + 0.014), n=n, confidence=0.95, method="Clopper-Pearson",
    )  # fmt: skip
    return Result(
        check=CheckName.ACCURACY, outcome=outcome, environment=MIL, measurements=(level,),
        message=message or "accuracy is above its floor", required=True,
    )  # fmt: skip


def skipped() -> tuple[Result, ...]:
    """Return answers that need an Apple device."""
    return (
        Result(
            check=CheckName.LATENCY, outcome=Outcome.NOT_RUN, message="Needs a Mac or an iPhone; this ran on Linux."
        ),
    )


def candidate(policy: str, *results: Result, role: Role = Role.EXPLORE, summary: str = "") -> Candidate:
    """Return a candidate with one file."""
    return Candidate(
        role=role,
        policy=policy,
        summary=summary,
        policy_digest=DIGEST,
        package=f"packages/tagger/{policy}.mlpackage",
        package_digest=DIGEST,
        files=(PackageFile(path="Data/com.apple.CoreML/weights/weight.bin", sha256=DIGEST, bytes=6_300_000),),
        results=results,
    )


def model(*candidates: Candidate, name: str = "tagger", **changed: object) -> Model:
    """Return a model entry."""
    base = Model(
        name=name,
        source="factory ml/tagger/model.py:build",
        source_digest=DIGEST,
        reference="source in float32",
        route="trace",
        deployment_target="iOS17",
        data=Data(dataset=DIGEST, items=1_437, labelled=True),
        seconds=38.2,
        candidates=candidates,
    )
    return base.model_copy(update=changed)


def shipped(*results: Result, policy: str = "palette-6bit") -> Candidate:
    """Return the candidate that decides."""
    return candidate(policy, *results, role=Role.SHIP, summary="what ships")


def smaller(accuracy: float = 0.972) -> tuple[Candidate, ...]:
    """Return two explored candidates: one that would pass and one that would not."""
    lost = "Accuracy falls by 6.3 points; 1 point is allowed."
    return (
        candidate("palette-4bit", feasible(), intact(), size(4_100_000), accurate(accuracy), summary="4-bit look-up tables"),
        candidate(
            "palette-2bit", feasible(), intact(), size(2_240_000), accurate(0.911, Outcome.FAIL, message=lost),
            summary="2-bit look-up tables",
        ),
    )  # fmt: skip


def total(bytes_: int = 31_800_000, limit: int = 50_000_000) -> App:
    """Return the app's answer."""
    outcome = Outcome.PASS if bytes_ <= limit else Outcome.FAIL
    number = Measurement(name="app_bytes", value=bytes_, unit=Unit.BYTES, limit=limit, baseline=31_300_000)
    message = (
        "The models fit into the app." if outcome is Outcome.PASS else "The shipped packages exceed the app's budget."
    )
    return App(results=(Result(check=CheckName.APP_SIZE, outcome=outcome, measurements=(number,), message=message),))


def all_pass() -> Report:
    """One model, everything in order."""
    ship = shipped(
        feasible(),
        faithful(),
        intact(),
        small_numbers(),
        size(5_620_000),
        above_floor(0.972),
        accurate(0.972),
        *skipped(),
    )
    return make_report(run(), (model(ship, *smaller()),), total())


def too_large() -> Report:
    """The shipped package is over its budget; an explored one would pass."""
    ship = shipped(feasible(), faithful(), intact(), small_numbers(), size(6_410_000), accurate(0.973), *skipped())
    return make_report(run(), (model(ship, *smaller()),), total(32_300_000))


def cannot_convert() -> Report:
    """Two ops have no Core ML form."""
    findings = tuple(
        Finding(
            rule="feasibility.unsupported_op", severity=Severity.ERROR, op=op, layer=layer, source=source,
            message=f"{op} has no Core ML form.", advice=advice, evidence="coremltools 9.0, every route",
        )
        for op, layer, source, advice in (
            ("aten::_fft_r2c", "frontend.spectrum", "ml/tagger/frontend.py:41", "Compute the spectrum by a convolution with a fixed Fourier basis."),
            ("aten::grid_sampler_3d", "warp", "ml/tagger/model.py:112", "Sample each slice with a 2-D grid."),
        )
    )  # fmt: skip
    failed = Result(
        check=CheckName.FEASIBILITY, outcome=Outcome.FAIL, findings=findings,
        message="2 operations have no Core ML form: the spectrum in ml/tagger/frontend.py:41 and the warp in ml/tagger/model.py:112.",
        remedy="replace both by what the details suggest; nothing else was judged",
    )  # fmt: skip
    missing = tuple(
        Result(check=check, outcome=Outcome.NOT_RUN, message="There is no package to judge.")
        for check in (CheckName.FIDELITY, CheckName.FLOAT16, CheckName.SIZE, CheckName.ACCURACY)
    )
    return make_report(run(), (model(shipped(failed, *missing), route=None),))


def not_certain() -> Report:
    """Accuracy looks fine, but the data cannot prove it."""
    thin = above_floor(
        0.927, Outcome.INCONCLUSIVE, n=128, message="128 items cannot show that accuracy is at least 92 %."
    )
    thin = thin.model_copy(update={"remedy": "about 310 more labelled items would settle it"})
    return make_report(run(), (model(shipped(feasible(), faithful(), size(5_620_000), thin)),))


def no_answer() -> Report:
    """The source hung."""
    hung = Result(
        check=CheckName.FEASIBILITY, outcome=Outcome.ERROR, message="ml/tagger/model.py:build did not return within 10 min.",
        remedy="see whether build() waits for a download or a lock; limits.time is the limit",
    )  # fmt: skip
    return make_report(run(seconds=600.4), (model(shipped(hung), route=None, data=None),))


def waived() -> Report:
    """An exception makes an intended increase green."""
    large = size(6_410_000).model_copy(
        update={
            "outcome": Outcome.PASS,
            "waiver": WaiverNote(
                reason="new classes for the winter release", owner="ana@example.com", expires="2027-01-31"
            ),
        }
    )
    return make_report(run(), (model(shipped(feasible(), faithful(), large, accurate(0.973))),))


def first_run() -> Report:
    """The base branch does not know the model, nothing to compare with, and no sandbox."""
    edit = Finding(
        rule="run.config_changed", severity=Severity.WARNING, message="This pull request edits gate.yml.",
        advice="Its new limits count once it is merged or labelled.",
    )  # fmt: skip
    measured = (
        Result(
            check=CheckName.MEMORY, outcome=Outcome.PASS, basis=Basis.ESTIMATED,
            measurements=(Measurement(name="peak_memory", value=48_200_000, unit=Unit.BYTES),), message="Shown without a verdict.",
        ),
    )  # fmt: skip
    accuracy = accurate(0.973).model_copy(update={"basis": Basis.REPORTED})
    entry = model(
        shipped(feasible(), size(5_620_000, before=None), *measured, accuracy, policy="float16"),
        self_declared=True, data=Data(dataset=DIGEST, items=200, labelled=False),
    )  # fmt: skip
    return make_report(run(base_commit=None, sandbox="none", config_from="head"), (entry,), findings=(edit,))


def two_engines() -> Report:
    """The evaluator and Apple's runtime answer the same check; several things fail, the app among them."""
    slow = Result(
        check=CheckName.LATENCY, outcome=Outcome.FAIL, environment=PHONE, message="A prediction takes longer than 30 ms.",
        measurements=(Measurement(name="p95", value=34.7, unit=Unit.MILLISECONDS, limit=30.0, low=33.9, high=35.8, n=600),),
        remedy="see which layers run on the CPU only",
    )  # fmt: skip
    on_mac = accurate(0.971).model_copy(update={"environment": MAC})
    night = above_floor(0.874, Outcome.FAIL, message="At night the accuracy is below its floor.", n=210)
    ship = shipped(
        feasible(),
        faithful(),
        size(6_410_000),
        accurate(0.972),
        on_mac,
        night.model_copy(update={"slice": "night"}),
        slow,
    )
    ocr = shipped(
        feasible(), faithful(), size(26_400_000, limit=None, before=25_000_000), accurate(0.981), policy="int8"
    )
    reader = model(
        ocr, candidate("palette-4bit", feasible(), size(13_500_000, limit=None), accurate(0.979)), name="reader"
    )
    return make_report(run(), (model(ship, *smaller()), reader), total(32_810_000, 32_000_000))


def many(number: int = 150) -> Report:
    """A monorepo: many models, each with findings, so that the full comment would be far too long."""
    findings = tuple(
        Finding(
            rule="float16.drift", severity=Severity.WARNING, op=f"conv conv_{i}_cast_fp16", layer=f"blocks.{i}.conv",
            source=f"ml/net/blocks.py:{i + 10}", message=f"Rounding error grows at block {i}.", advice="Keep it in float32.",
        )
        for i in range(12)
    )  # fmt: skip
    drift = small_numbers().model_copy(update={"findings": findings, "series": ()})
    return make_report(
        run(),
        tuple(
            model(
                shipped(feasible(), faithful(), drift, size(6_410_000 if i % 40 == 7 else 5_620_000), accurate(0.972)),
                *smaller(), name=f"model-{i:03}",
            )
            for i in range(number)
        ),
        total(),
    )  # fmt: skip


HOSTILE = (
    "@octocat #12 GH-7 owner/repo#1 [x](http://evil.example) ![i](https://evil.example/i.png) <img src=x onerror=alert(1)> | cell | "
    "`tick` **bold** _em_ ~~s~~ www.evil.example a@evil.example 4f0c2a91be7d3365 :tada: $x$ \u202eevil\u202c\u200b\n\n# heading\n- item\n</details><script>"
)


def hostile(text: str = HOSTILE) -> Report:
    """Every string that may come from outside is the given one."""
    finding = Finding(
        rule=text, severity=Severity.ERROR, message=text, advice=text, op=text, layer=text, source=text, evidence=text
    )
    number = Measurement(
        name=text,
        value=2.0,
        unit=Unit.FRACTION,
        limit=1.0,
        baseline=1.0,
        low=0.1,
        high=3.0,
        confidence=0.95,
        n=5,
        method=text,
    )
    environment = Environment(engine=text, os=text, device=text, compute_units=text)
    labels = Series(name=text, x=(text, text), y=(1.0, 2.0), unit=Unit.BYTES, x_name=text)
    curve = Series(name=text, x=(0, 1, 2), y=(1.0, None, 2.0), unit=Unit.NUMBER, x_name=text)

    def result(check: CheckName, outcome: Outcome, **changed: object) -> Result:
        base = Result(
            check=check, outcome=outcome, environment=environment, against=text, slice=text, measurements=(number,),
            series=(labels, curve), message=text, remedy=text, findings=(finding,),
        )  # fmt: skip
        return base.model_copy(update=changed)

    results = (
        result(CheckName.FLOAT16, Outcome.FAIL),
        result(CheckName.MEMORY, Outcome.INCONCLUSIVE),
        result(CheckName.LATENCY, Outcome.NOT_RUN),
        result(CheckName.ACCURACY, Outcome.PASS, slice=None, waiver=WaiverNote(reason=text, owner=text, expires=text)),
    )
    candidates = tuple(
        candidate(text, *results, size(5_000_000), role=role, summary=text).model_copy(update={"package": text})
        for role in (Role.SHIP, Role.EXPLORE)
    )
    entry = model(
        *candidates, name=text, source=text, reference=text, route=text, deployment_target=text, log=text,
        data=Data(dataset=DIGEST, items=5, labelled=False), self_declared=True,
    )  # fmt: skip
    circumstances = run(
        commit=text,
        base_commit=text,
        event=text,
        config=text,
        config_from=text,
        started=text,
        sandbox=text,
        tools={text: text},
    )
    return make_report(circumstances, (entry,), App(results=(result(CheckName.APP_SIZE, Outcome.FAIL),)), (finding,))


def untouched() -> Report:
    """No model is concerned."""
    return make_report(run(), ())


SAMPLES: dict[str, Callable[[], Report]] = {
    "all_pass": all_pass,
    "too_large": too_large,
    "cannot_convert": cannot_convert,
    "not_certain": not_certain,
    "no_answer": no_answer,
    "waived": waived,
    "first_run": first_run,
    "two_engines": two_engines,
    "many": many,
    "hostile": hostile,
    "untouched": untouched,
}
