# SPDX-License-Identifier: Apache-2.0
"""`interface`: what breaks the app's code fails, what does not is told, and a report records what the next one compares."""

from pathlib import Path

import coremltools as ct
import pytest
import torch
from torch import nn

from gate import waivers
from gate.baseline import Baseline
from gate.checks import interface
from gate.checks.base import Subject
from gate.config import Waiver
from gate.interface import read_interface
from gate.mil.program import load_program
from gate.report import Candidate, Interface, InterfaceFeature, Model, Outcome, Role, Run, make_report
from tests.mil.models import convert
from tests.records import const, function, op, program, value

X = InterfaceFeature(name="x", kind="array", dtype="float32", shape=(1, 3))
Z = InterfaceFeature(name="z", kind="array", dtype="float32", shape=(1, 3))
Y = InterfaceFeature(name="y", kind="array", dtype="float32", shape=(1, 5))
RANGE = {"shape": (1, 3), "ranges": ((1, 1), (1, 9))}
BEFORE = Interface(inputs=(X, Z), outputs=(Y,), functions=("main",))


def changed(feature: InterfaceFeature, **fields) -> InterfaceFeature:
    return feature.model_copy(update=fields)


def after(**fields) -> Interface:
    return BEFORE.model_copy(update=fields)


@pytest.mark.parametrize(
    ("before", "now", "outcome", "told"),
    [
        pytest.param(BEFORE, BEFORE, "pass", "are those of the baseline", id="nothing"),
        pytest.param(BEFORE, after(outputs=(changed(Y, name="probs"),)), "fail", "'y' is now called 'probs'", id="renamed"),
        pytest.param(BEFORE, after(inputs=(X,)), "fail", "input 'z' is gone", id="removed"),
        pytest.param(BEFORE, after(inputs=(X, Z, changed(X, name="w"))), "fail", "'w' is new and required", id="a required input"),
        pytest.param(BEFORE, after(inputs=(X, Z, changed(X, name="w", optional=True))), "pass", "'w' is new", id="an optional input"),
        pytest.param(BEFORE, after(outputs=(Y, changed(Y, name="w"))), "pass", "'w' is new", id="a new output"),
        pytest.param(BEFORE, after(inputs=(Z, X)), "fail", "order of inputs is now z, x", id="order of inputs"),
        pytest.param(BEFORE, after(outputs=(changed(Y, dtype="float16"),)), "fail", "dtype was float32, is float16", id="type"),
        pytest.param(BEFORE, after(inputs=(changed(X, kind="image"), Z)), "fail", "kind was array, is image", id="kind"),
        pytest.param(BEFORE, after(inputs=(changed(X, shape=(1, 4)), Z)), "fail", "[1, 3], is [1, 4]", id="shape"),
        pytest.param(BEFORE, after(inputs=(changed(X, **RANGE), Z)), "pass", "is [1, 1…9]", id="a range that holds the old shape"),
        pytest.param(after(inputs=(changed(X, **RANGE), Z)), BEFORE, "fail", "was [1, 1…9]", id="a narrower range"),
        pytest.param(
            BEFORE, after(inputs=(changed(X, enumerated=((1, 3), (1, 6))), Z)), "pass", "or [1, 6]", id="enumerated, with the old shape"
        ),
        pytest.param(BEFORE, after(classes=3, classes_digest="0" * 64, predicted_class="label"), "pass", "labels", id="a classifier now"),
        pytest.param(
            after(classes=3, classes_digest="0" * 64),
            after(classes=3, classes_digest="1" * 64),
            "fail",
            "labels, or their order",
            id="other labels",
        ),
        pytest.param(after(functions=("a", "b")), after(functions=("a",)), "fail", "functions were a, b", id="a function is gone"),
    ],
)  # fmt: skip
def test_what_breaks_code_fails(before, now, outcome, told):
    judged = interface.judge(now, before)

    assert judged.outcome == outcome
    assert told in " ".join([judged.message, *(f.message for f in judged.findings)])
    assert (judged.remedy is not None) == (outcome == "fail")


def test_an_intended_change_is_accepted_by_a_waiver():
    from datetime import date

    failed = interface.judge(after(inputs=(X,)), BEFORE)
    accepted = Waiver(
        check="interface", model="m", rule="interface.removed", reason="app 2.0", owner="me", expires="2099-01-01"
    )

    assert waivers.waive(failed, "m", (accepted,), date(2026, 1, 1)).outcome is Outcome.PASS
    other = accepted.model_copy(update={"rule": "interface.type"})
    assert waivers.waive(failed, "m", (other,), date(2026, 1, 1)).outcome is Outcome.FAIL


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> dict[str, Path]:
    """A package, and the same with another name for its output."""
    folder = tmp_path_factory.mktemp("packages")
    for name in ("probs", "scores"):
        inputs = [ct.TensorType("x", shape=ct.EnumeratedShapes([(1, 3), (2, 3)]))]
        model = convert(nn.Linear(3, 2), (torch.rand(1, 3),), inputs, outputs=[ct.TensorType(name)])
        model.save(str(folder / f"{name}.mlpackage"))
    return {name: folder / f"{name}.mlpackage" for name in ("probs", "scores")}


class FakeCandidate:
    """A candidate that is only its package."""

    def __init__(self, path: Path) -> None:
        self.package = type("Package", (), {"path": path})


def answer(package: Path, recorded: Interface | None, known: str = "m"):
    shipped = Candidate(role=Role.SHIP, policy="float16", interface=recorded)
    report = make_report(Run(config_digest="0" * 64), (Model(name=known, candidates=(shipped,)),))
    entry = type("Entry", (), {"name": "m"})
    subject = Subject(
        config=None, entry=entry, candidate=FakeCandidate(package), conversion=None, bench=None, engine=None,
        baseline=Baseline(report, Path()),
    )  # fmt: skip
    (result,) = interface.CHECK.answer(subject)
    return result


def test_a_package_is_compared_with_what_the_baseline_recorded(packages):
    recorded = read_interface(load_program(packages["probs"]))

    assert recorded.inputs[0].enumerated == ((1, 3), (2, 3))
    assert Interface.model_validate_json(recorded.model_dump_json()) == recorded
    assert answer(packages["probs"], recorded).outcome is Outcome.PASS
    failed = answer(packages["scores"], recorded)
    assert failed.outcome is Outcome.FAIL
    assert "output 'probs' is now called 'scores'" in failed.message


def test_without_a_record_to_compare_with_it_is_not_run(packages):
    assert answer(packages["probs"], None).outcome is Outcome.NOT_RUN
    assert "First run" in answer(packages["probs"], None, known="another").message


def test_the_labels_of_a_classifier_are_part_of_the_interface():
    def labelled(*names: str) -> Interface:
        x, label, table = value("x", 2), value("label", dtype="string"), value("table", dtype="string")
        classify = op("classify", (label, table), probabilities=x, classes=const(list(names)))
        return read_interface(program(function((x,), classify, outputs=(x,))))

    assert labelled("cat", "dog").classes == 2
    assert interface.judge(labelled("dog", "cat"), labelled("cat", "dog")).outcome is Outcome.FAIL
