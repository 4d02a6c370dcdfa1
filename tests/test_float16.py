# SPDX-License-Identifier: Apache-2.0
"""Float16: verdicts, culprits and cures on failures from the field, and on networks whose fault is known."""

import json
import random
from itertools import combinations
from math import comb
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch

from gate import policy, remedy
from gate.checks import base, fidelity, float16
from gate.checks.float16 import Facts, judge_facts
from gate.config import Float16Budget
from gate.difference import OutputDifference
from gate.entry import Trial
from gate.errors import UsageError
from gate.float16 import Tier
from gate.float16.blame import find_culprits
from gate.float16.causes import Cause, Sight, find_cause, margin, step
from gate.float16.cure import Namer
from gate.float16.investigate import origin
from gate.float16.models import Models
from gate.float16.record import Float16Record
from gate.float16.tiers import is_untrained
from gate.float16.trials import Trials, worst
from gate.mil.evaluator import load
from gate.mil.numerics import Precision, Rounding
from gate.render.figures import deciding, keeps
from gate.report import Bound, Environment, Outcome, Severity
from tests import deep_network
from tests.case_source import MORE_CASES, Case, load_cases, make_config, make_trial
from tests.cases_table import PREFIXES, judge_case, judge_float16

ROOT = Path(__file__).parents[1]
CASES = load_cases(*PREFIXES)
THIRD = random.Random(7).sample(CASES, len(CASES) // 3)
REST = [case for case in CASES if case not in THIRD]
OURS = load_cases("fp16_", folder=MORE_CASES)
MIL = Environment(engine="mil")
HALF = policy.load("float16", ROOT)


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("float16")


def check_case(case: Case, work: Path) -> None:
    row = judge_case(case, work)

    assert row.right, f"expected {row.expected}, said {row.said}: {row.message}"
    if row.accepted and row.case.startswith("fp16"):
        assert row.rank == 1, f"named {row.culprits}, accepted {row.accepted}"
    assert not row.cure or row.cure.startswith("cured") or row.case.startswith("pit_")


@pytest.mark.parametrize("case", THIRD, ids=lambda case: case.name)
def test_a_case_from_the_field_gets_its_verdict_its_culprit_and_its_cure(case, work):
    check_case(case, work)


@pytest.mark.slow
@pytest.mark.parametrize("case", REST, ids=lambda case: case.name)
def test_so_do_the_others(case, work):
    check_case(case, work)


@pytest.mark.slow
@pytest.mark.parametrize("case", OURS, ids=lambda case: case.name)
def test_so_does_what_the_gate_was_not_built_on(case, work):
    check_case(case, work)


# ------------------------------------------------------------------------------------------------- a fault that is known


def blame_of(fault: int, work: Path):
    config = make_config(
        Path(deep_network.__file__).parent,
        name=f"deep-{fault}",
        source={"factory": "deep_network.py:build", "example": "deep_network.py:example", "args": {"fault": fault}},
    )
    trial = make_trial(config, work)
    package = trial.conversion.float32
    assert package is not None
    blame = find_culprits(Trials(load(package), trial.bench.samples[0]), 0.02)
    return blame, Models(package, package, trial.conversion.layers, trial.conversion.lines)


def check_fault(fault: int, work: Path) -> None:
    blame, models = blame_of(fault, work)
    first = blame.culprits[0].place

    assert len(blame.places) >= 300
    assert first.type == "mul"
    assert origin(first.name, models) == (f"{fault}", f"deep_network.py:{deep_network.FAULT_LINE}")


@pytest.mark.parametrize("fault", random.Random(1).sample(range(deep_network.BLOCKS), 2))
def test_a_seeded_fault_is_named_first_at_its_line(fault, work):
    check_fault(fault, work)


@pytest.mark.slow
@pytest.mark.parametrize("fault", random.Random(2).sample(range(deep_network.BLOCKS), 20))
def test_a_seeded_fault_is_named_in_twenty_places(fault, work):
    check_fault(fault, work)


# ---------------------------------------------------------------------------------------------------------------- trials


class Squares(torch.nn.Module):
    """sqrt(sum(x²)) + x: one branch overflows, the other does not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sqrt((x * x).sum(-1, keepdim=True)) + x


def converted(module: torch.nn.Module, example: torch.Tensor, out: Path) -> Path:
    import coremltools as ct

    traced = torch.jit.trace(module.eval(), example, check_trace=False)
    model = ct.convert(
        traced,
        inputs=[ct.TensorType(name="x", shape=tuple(example.shape))],
        compute_precision=ct.precision.FLOAT32,
        minimum_deployment_target=ct.target.iOS17,
        skip_model_load=True,
    )
    model.save(str(out))
    return out


@pytest.fixture(scope="module")
def squares(work) -> Trials:
    package = converted(Squares(), torch.ones(1, 4), work / "squares.mlpackage")
    return Trials(load(package), {"x": np.full((1, 4), 300.0, np.float32)})


def named(trials: Trials, kind: str):
    return next(place for place in trials.places if place.type == kind)


def test_exact_answers_are_the_float32_programs(squares):
    assert next(iter(squares.outputs.values())) == pytest.approx(np.full((1, 4), 900.0))


def test_one_op_in_half_overflows_alone(squares):
    # 300² = 90,000 > 65,504, so the product is infinite; sqrt(360,000) = 600 is exact in float16.
    assert squares.damage([named(squares, "mul")]) == 10.0
    assert squares.damage([named(squares, "add")]) == 0.0


def test_trials_leave_the_exact_values_alone(squares):
    before = squares.outputs
    squares.damage(squares.places)
    squares.curve()

    assert worst(squares.differences(())) == 0.0
    assert squares.outputs == before


def test_the_first_of_a_chain_that_overflows_is_the_culprit(squares):
    blame = find_culprits(squares, 0.02)

    assert [c.place.type for c in blame.culprits] == ["mul", "reduce_sum", "sqrt"]
    assert blame.explained
    assert blame.curve[-1] == 10.0


def test_the_search_of_a_large_program_finds_what_no_local_error_shows(work):
    """With no time to try every op, halves of the program lead to an index that is off by one."""

    class Lookup(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Parameter(torch.arange(6000.0) % 7)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(20):
                x = torch.tanh(x) * 1.0001
            position = torch.floor(torch.sigmoid(x) * 0.0 + 1.0) * 4000.0 + 13.0  # 4013 is no float16
            return self.table[position.to(torch.int32).long()] + x

    package = converted(Lookup(), torch.full((1, 4), 0.5), work / "lookup.mlpackage")
    trials = Trials(load(package), {"x": np.full((1, 4), 0.5, np.float32)})
    blame = find_culprits(trials, 0.02)

    assert blame.culprits[0].place.type == "add"
    assert blame.culprits[0].local.error < 0.001
    assert blame.culprits[0].damage > 0.1


# ---------------------------------------------------------------------------------------------------------------- causes


def sight(kind: str, x: list[float], result: list[float], **more) -> Sight:
    exact = torch.tensor(result)
    inputs = {"x": torch.tensor(x)} | {k: torch.tensor(v) for k, v in more.pop("inputs", {}).items()}
    return Sight(kind, inputs, more.get("numbers", {}), (exact,), (exact.half().float(),))


@pytest.mark.parametrize(
    ("seen", "precision", "cause", "says"),
    [
        pytest.param(
            sight("square", [1240.0], [1537600.0]), "declared", "overflow",
            "max |x| = 1,240; squares overflow above 255.9", id="square",
        ),
        pytest.param(
            sight("exp", [12.0], [162754.8]), "declared", "overflow", "max x = 12; exp overflows above 11.09", id="exp"
        ),
        pytest.param(
            sight("add", [60000.0], [120000.0], inputs={"y": [60000.0]}), "declared", "overflow",
            "the result reaches 120,000; float16 ends at 65,504", id="sum",
        ),
        pytest.param(
            sight("layer_norm", [0.5], [0.5], numbers={"epsilon": 1e-12}), "declared", "underflow",
            "epsilon = 1e-12 becomes 6e-08 in float16", id="epsilon",
        ),
        pytest.param(
            sight("sub", [4000.0], [0.3], inputs={"y": [3999.7]}), "declared", "cancellation",
            "operands up to 4,000 leave 0.3; float16 steps by 2 there", id="cancellation",
        ),
        pytest.param(
            sight("sin", [999.3], [-0.24]), "declared", "resolution",
            "values up to 999.3, where float16 steps by 0.5", id="resolution",
        ),
        pytest.param(
            sight("softplus", [15.0], [15.0]), "narrow", "composite",
            "max x = 15; the Neural Engine returns 0 above 10.4", id="cliff",
        ),
    ],
)  # fmt: skip
def test_cause_and_margin_in_numbers(seen, precision, cause, says):
    found = find_cause(seen, Precision(precision))

    assert found is Cause(cause)
    assert margin(seen, found) == says


def test_steps_of_float16_are_numpys():
    for value in (1.0, 1000.0, 2048.0, 40000.0, 0.01):
        assert step(value) == float(np.spacing(np.float16(value)))


def test_fresh_layers_are_recognised_as_untrained(work):
    fresh = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64))
    trained = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64))
    with torch.no_grad():
        for layer in (trained[0], trained[2]):
            layer.weight.normal_(0, 0.1)

    assert is_untrained(converted(fresh, torch.ones(1, 64), work / "fresh.mlpackage"))
    assert not is_untrained(converted(trained, torch.ones(1, 64), work / "trained.mlpackage"))


# --------------------------------------------------------------------------------------------------------------- verdict


def difference(error: float = 0.0, **more) -> OutputDifference:
    facts = {"new_nonfinite": 0, "wrong_integers": 0, "decisions": 0, "snr_db": 60.0, "identical": False}
    return OutputDifference(**({"name": "y", "samples": 1, "max_error": error, "range": 1.0} | facts | more))


@pytest.mark.parametrize(
    ("tier", "outcome", "rules"),
    [
        pytest.param(Tier.CLIFFS, "fail", ["float16.error"], id="measured on a device: fails"),
        pytest.param(Tier.NARROW, "pass", ["float16.narrow"], id="feared: a warning"),
        pytest.param(Tier.ACCUMULATE16, "pass", ["float16.accumulate16"], id="the worst case: a warning"),
    ],
)
def test_only_what_was_measured_blocks(tier, outcome, rules):
    facts = Facts((difference(0.001),), False, MIL, feared=((tier, (difference(0.5),)),))
    judged = judge_facts(facts, None)

    assert judged.outcome == outcome
    assert [f.rule for f in judged.findings] == rules


def test_a_limit_in_decibels_decides_and_is_a_floor():
    budget = Float16Budget(snr="40 dB")
    weak, strong = (difference(0.001, name=name, snr_db=db) for name, db in (("weak", 39.9), ("strong", 80.0)))
    judged = float16.judge((strong, weak), budget, labelled=False, environment=MIL)
    first = deciding(judged)

    assert judged.outcome is Outcome.FAIL
    assert (first.name, first.limit, first.bound, keeps(first)) == ("snr:weak", 40.0, Bound.AT_LEAST, False)
    assert float16.judge((strong,), budget, labelled=False, environment=MIL).outcome is Outcome.PASS
    unasked = float16.judge((strong,), None, labelled=False, environment=MIL)
    assert deciding(unasked).name == "error:strong"


def test_a_harsher_rounding_below_the_limit_says_nothing():
    facts = Facts((difference(0.001),), False, MIL, feared=((Tier.NARROW, (difference(0.019),)),))

    assert judge_facts(facts, None).findings == ()


# ------------------------------------------------------------------------------------------------------------------ cure


def test_the_cure_is_minimal_converted_and_survives_renaming(work):
    """Every smaller set of ops fails when it is really converted."""
    case = next(case for case in CASES if case.name == "fp16_118_mask_double_add")
    trial = make_trial(case.config, work)
    record = remedy.examine(trial, policy.load("float16", ROOT))
    cure = record.cure
    assert cure is not None
    assert cure.after.outcome is Outcome.PASS
    assert (cure.ops, cure.keep_float32) == (2, ("/add:2", "/softmax"))

    assert_every_smaller_set_fails(trial, ["/add:1", "/add:2", "/softmax"], cure.ops)


def assert_every_smaller_set_fails(trial: Trial, ops: list[str], size: int) -> None:
    """Convert with each smaller set of ops in float32; the check must fail."""
    half = policy.load("float16", ROOT)
    for smaller in range(size):
        for kept in combinations(ops, smaller):
            package = trial.source.convert(
                trial.conversion.route, policy.Precision.FLOAT16, keep_float32=kept, target=trial.target
            ).package
            assert base.run(float16.CHECK, remedy._subject(trial, half, package))[0].outcome is Outcome.FAIL, kept


MOST_SETS = 120  # conversions for one case


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in CASES if c.verdict == "FAIL"], ids=lambda case: case.name)
def test_every_smaller_set_of_any_ops_fails_when_it_is_converted(case, work):
    """Not only the candidates: all ops of the program that compute floats, where that is affordable."""
    trial = make_trial(case.config, work)
    if (
        not trial.conversion.usable
        or base.run(fidelity.CHECK, remedy._subject(trial, HALF, trial.before(HALF)))[0].outcome is not Outcome.PASS
    ):
        pytest.skip("not a loss of float16")
    cure = remedy.examine(trial, HALF).cure
    if cure is None:
        pytest.skip("no cure by precision")
    subject = remedy._subject(trial, HALF, trial.before(HALF))
    models = float16.find_models(subject)
    found = float16.measure(subject, models).investigation
    assert found is not None
    assert found.trials is not None
    namer = Namer(found.trials, models)
    ops = [namer.patterns([place])[0] for place in found.trials.places if place.index >= 0]
    if sum(comb(len(ops), size) for size in range(cure.ops)) > MOST_SETS:
        pytest.skip(f"{len(ops)} ops, {cure.ops} kept: too many sets")
    assert cure.minimal
    assert_every_smaller_set_fails(trial, ops, cure.ops)


# --------------------------------------------------------------------------------------------------------------- command

MODEL = """
import torch
from torch import nn

class Scores(nn.Module):
    def __init__(self, gain, bad=0.0):
        super().__init__()
        self.gain, self.bad = gain, bad
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        scores = self.head(x) * self.gain
        squares = scores * scores
        return squares / (squares + 1.0) / (1.0 - self.bad)

def build(gain=1.0, bad=0.0):
    torch.manual_seed(0)
    return Scores(gain, bad).eval()

def example():
    torch.manual_seed(1)
    return (torch.randn(2, 8),)

def bad_example():
    return (torch.tensor([[float("nan")] * 8, [0.5] * 8]),)
"""
CONFIG = """
version: 1
app: {{deployment_target: iOS17}}
models:
  - name: scores
    source: {{factory: model.py:build, example: model.py:example, args: {args}}}
{more}
"""


def project(folder: Path, args: str = "{}", more: str = "") -> Path:
    (folder / "model.py").write_text(MODEL)
    path = folder / "gate.yml"
    path.write_text(CONFIG.format(args=args, more=more))
    return path


def test_the_command_names_blames_mends_and_fits_its_schema(tmp_path):
    record = remedy.command(project(tmp_path, "{gain: 5000.0}"), "scores")
    dumped = json.loads(record.model_dump_json())
    jsonschema.validate(dumped, json.loads((ROOT / "docs" / "schemas" / "float16.schema.json").read_text()))

    assert Float16Record.model_validate(dumped) == record
    assert record.failed
    first = record.culprits[0]
    assert (first.op, first.source, first.cause) == ("mul", "model.py:13", "overflow")
    assert "squares overflow above 255.9" in first.margin
    assert record.cure is not None
    assert record.cure.after.outcome is Outcome.PASS
    assert record.cure.policy in record.text()


def test_a_model_without_float16_ops_gets_a_clear_answer(tmp_path):
    config = project(tmp_path, more="    ship: float32")

    with pytest.raises(UsageError, match="computes in float32"):
        remedy.command(config, "scores")


def test_a_float32_package_has_nothing_to_judge(work):
    package = converted(Squares(), torch.ones(1, 4), work / "finished.mlpackage")
    config = make_config(work, name="finished", source={"coreml": package.name})
    trial = make_trial(config, work)
    subject = remedy._subject(trial, policy.load("as-is", ROOT), package)

    answer = base.run(float16.CHECK, subject)[0]
    assert (answer.outcome, answer.message) == (
        Outcome.NOT_RUN,
        "The package computes in float32: it has no float16 op to judge.",
    )


def test_what_is_infinite_in_float32_already_is_not_float16s_fault(tmp_path, work):
    project(tmp_path)
    config = make_config(
        tmp_path,
        name="broken",
        source={"factory": "model.py:build", "example": "model.py:example", "args": {"bad": 1.0}},
    )
    result = judge_float16(make_trial(config, work / "broken"))

    notes = {f.rule: f.severity for f in result.findings}
    assert result.outcome is Outcome.PASS
    assert notes["float16.reference_nonfinite"] is Severity.WARNING


def test_nan_in_a_data_set_is_refused_by_name(tmp_path):
    config = project(tmp_path, more="    dataset: eval.npz")
    np.savez(tmp_path / "eval.npz", x=np.stack([np.full((2, 8), v, np.float32) for v in (0.5, np.nan, 1.0)]))

    with pytest.raises(UsageError, match="x of item 1 is NaN"):
        remedy.command(config, "scores")


def test_nan_in_the_example_is_told_and_not_judged(tmp_path, work):
    project(tmp_path)
    source = {"factory": "model.py:build", "example": "model.py:bad_example"}
    result = judge_float16(make_trial(make_config(tmp_path, name="nan", source=source), work / "nan"))

    assert result.outcome is Outcome.PASS
    assert "float16.input_nonfinite" in {f.rule for f in result.findings}


def test_where_the_conversion_is_wrong_float16_is_judged_against_the_float32_program(work):
    """On the export route alpha is dropped: that is not float16's fault, and float16 itself loses next to nothing."""
    case = next(case for case in CASES if case.name == "pit_824_add_alpha_dropped")
    result = judge_float16(make_trial(case.config, work / "alpha"))

    assert result.outcome is Outcome.PASS
    assert [f.rule for f in result.findings] == ["float16.fidelity"]


def test_a_mask_of_minus_infinity_as_an_input_is_no_finding(tmp_path, work):
    (tmp_path / "masked.py").write_text(MASKED)
    source = {"factory": "masked.py:build", "example": "masked.py:example"}
    result = judge_float16(make_trial(make_config(tmp_path, name="masked", source=source), work / "masked"))

    assert (result.outcome, result.findings) == (Outcome.PASS, ())


MASKED = """
import torch

class Masked(torch.nn.Module):
    def forward(self, x, mask):
        return torch.softmax(x + mask, -1)

def build():
    return Masked().eval()

def example():
    torch.manual_seed(0)
    return torch.randn(1, 4, 4), torch.triu(torch.full((1, 4, 4), float("-inf")), 1)
"""


CHOOSING = """
import torch

class Map(torch.nn.Module):
    def __init__(self, spread):
        super().__init__()
        self.spread = spread

    def forward(self, x):
        return torch.argmax(0.5 + x * self.spread, 1)

class Best(torch.nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.gain = gain
        self.register_buffer("boxes", torch.randn(64, 4, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        scores, best = torch.topk(torch.sigmoid(x[0, 0, 0] * 1e-4), 8)
        return scores * self.gain * self.gain, self.boxes[best], best

def a_map(spread):
    return Map(spread).eval()

def the_best(gain=1.0):
    return Best(gain).eval()

def example():
    torch.manual_seed(0)
    return (torch.randn(1, 3, 64, 64),)
"""


def judge_choosing(folder: Path, work: Path, factory: str, args: dict[str, float]):
    (folder / "choosing.py").write_text(CHOOSING)
    source = {"factory": f"choosing.py:{factory}", "example": "choosing.py:example", "args": args}
    name = f"{factory}-{'-'.join(args) or 'plain'}-{int(1e4 * sum(args.values()))}"
    return judge_float16(make_trial(make_config(folder, name=name, source=source), work / name))


def test_a_choice_between_equals_is_judged_by_how_many_turn(tmp_path, work):
    """A few pixels of a map turn where two classes are all but equal; a map of nothing but such pixels is damaged."""
    few = judge_choosing(tmp_path, work, "a_map", {"spread": 0.05})
    many = judge_choosing(tmp_path, work, "a_map", {"spread": 1e-4})

    counts = {m.name: m.value for m in few.measurements}
    (turned,) = [value for name, value in counts.items() if name.startswith("choices_changed")]
    assert few.outcome is Outcome.PASS
    assert 0 < turned < 0.01 * 64 * 64
    assert many.outcome is Outcome.FAIL
    assert "chooses otherwise in" in many.message


def test_candidates_that_change_places_are_a_warning_and_wrong_scores_are_not(tmp_path, work):
    swapped = judge_choosing(tmp_path, work, "the_best", {})
    wrong = judge_choosing(tmp_path, work, "the_best", {"gain": 1000.0})

    assert swapped.outcome is Outcome.PASS
    assert [(f.rule, f.op.split()[0]) for f in swapped.findings] == [("float16.order", "topk")]
    assert wrong.outcome is Outcome.FAIL


STATEFUL = """
import torch

class Energy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.zeros(1, 4))

    def forward(self, x):
        self.total.add_(x * x)
        return torch.sqrt(self.total)

def build():
    return Energy().eval()

def example():
    return torch.full((1, 4), 300.0)
"""


def test_in_a_model_with_states_the_op_is_named_and_what_precision_cannot_cure_is_said(tmp_path):
    (tmp_path / "energy.py").write_text(STATEFUL)
    (tmp_path / "gate.yml").write_text(
        "version: 1\napp: {deployment_target: iOS18}\nmodels:\n  - name: energy\n"
        "    source: {factory: energy.py:build, example: energy.py:example}\n    states: [{name: total}]\n"
    )
    record = remedy.command(tmp_path / "gate.yml", "energy")

    assert record.result.outcome is Outcome.FAIL
    first = record.culprits[0]
    assert (first.op, first.source, first.cause) == ("mul", "energy.py:10", "overflow")
    assert record.cure is None
    assert "Core ML keeps states in float16" in (record.no_cure or "")


def test_rounding_of_constants_follows_coremltools_cast():
    from gate.mil.numerics import half_constant

    tiny = half_constant(torch.tensor([1e-12, -1e-12, 0.0, 1.0, 1e-7]))

    assert tiny.tolist() == [2.0**-24, -(2.0**-24), 0.0, 1.0, float(np.float16(1e-7))]
    assert Rounding(Precision.DECLARED, as_half=True).halves("float32")
