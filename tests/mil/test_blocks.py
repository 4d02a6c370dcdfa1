# SPDX-License-Identifier: Apache-2.0
"""Do the ops work that a row can't show: blocks, lists, states, random numbers, and the end of a classifier?

Each has a small program, converted by coremltools.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil import mil
from coremltools.converters.mil.mil import types

import gate.mil
from gate.mil.errors import OpFailed


@dataclass(frozen=True)
class Small:
    """A program, the ops that it is there for, and what its outputs are for one input."""

    name: str
    ops: tuple[str, ...]
    build: Callable[..., Any] = field(repr=False)
    inputs: dict[str, Any] = field(repr=False)
    expected: Any = field(repr=False)


def branch(x: Any) -> Any:
    positive = mb.greater(x=mb.reduce_sum(x=x, axes=[0], keep_dims=False), y=0.0)
    return mb.cond(pred=positive, _true_fn=lambda: mb.add(x=x, y=1.0), _false_fn=lambda: mb.mul(x=x, y=2.0))


def doubled_until_100(x: Any) -> Any:
    return mb.while_loop(
        _cond=lambda v: mb.squeeze(x=mb.less(x=v, y=100.0), axes=[0]),
        _body=lambda v: mb.add(x=v, y=v),
        loop_vars=(x,),
    )


def running(x: Any) -> Any:
    """Collect x, 2x, 4x in a list that starts too short."""
    _, ls, _ = mb.while_loop(
        _cond=lambda i, ls, v: mb.less(x=i, y=3),
        _body=lambda i, ls, v: (mb.add(x=i, y=1), mb.list_write(ls=ls, index=i, value=v), mb.add(x=v, y=v)),
        loop_vars=(0, mb.make_list(init_length=1, elem_shape=(1,)), x),
    )
    return mb.list_gather(ls=ls, indices=mb.range_1d(start=0, end=mb.list_length(ls=ls), step=1))


def written(*shape: Any) -> Any:
    """Write behind the end of a list whose elements have a shape of several sizes, or of unknown ones."""

    def build(x: Any) -> Any:
        ls = mb.list_write(ls=mb.make_list(init_length=1, elem_shape=shape), index=1, value=x)
        return mb.list_read(ls=ls, index=1)

    return build


def scattered(x: Any) -> Any:
    ls = mb.make_list(init_length=2, elem_shape=(1,))
    ls = mb.list_scatter(ls=ls, indices=[3, 0], value=mb.stack(values=(x, mb.add(x=x, y=1.0)), axis=0))
    return [mb.list_read(ls=ls, index=i, name=f"at_{i}") for i in range(4)]


def chosen(x: Any) -> Any:
    return mb.select(cond=mb.greater(x=x, y=2.0), a=x, b=mb.mul(x=x, y=-1.0))


PROGRAMS = [
    Small("true", ("cond",), branch, {"x": [1.0, 2.0]}, [2.0, 3.0]),
    Small("false", ("cond",), branch, {"x": [-1.0, -2.0]}, [-2.0, -4.0]),
    Small("loop", ("while_loop",), doubled_until_100, {"x": [7.0]}, [112.0]),
    Small("no-pass", ("while_loop",), doubled_until_100, {"x": [101.0]}, [101.0]),
    Small(
        "list",
        ("while_loop", "make_list", "list_write", "list_length", "list_gather"),
        running,
        {"x": [3.0]},
        [[3.0], [6.0], [12.0]],
    ),
    Small("rank-2", ("make_list",), written(1, 2), {"x": [[3.0, 4.0]]}, [[3.0, 4.0]]),
    Small("unknown-size", ("make_list",), written("rows", 2), {"x": [[3.0, 4.0]]}, [[3.0, 4.0]]),
    Small("scatter", ("list_scatter", "list_read"), scattered, {"x": [5.0]}, ([6.0], [0.0], [0.0], [5.0])),
    Small("select", ("select",), chosen, {"x": [1.0, 3.0]}, [-1.0, 3.0]),
    Small("bernoulli", ("random_bernoulli",), lambda x: mb.random_bernoulli(shape=[2], prob=1.0), {"x": [0.0]}, [1, 1]),
    Small(
        "normal", ("random_normal",), lambda x: mb.random_normal(shape=[2], mean=3.0, stddev=0.0), {"x": [0.0]}, [3, 3]
    ),
    Small(
        "uniform", ("random_uniform",), lambda x: mb.random_uniform(shape=[2], low=4.0, high=4.0), {"x": [0.0]}, [4, 4]
    ),
    Small(
        "categorical",
        ("random_categorical",),
        lambda x: mb.random_categorical(x=x, mode="probs", size=3),
        {"x": [[0.0, 1.0, 0.0]]},
        [[1.0, 1.0, 1.0]],
    ),
]


# Ops that the tests below show.
SHOWN = {"classify", "read_state", "write_state", "coreml_update_state"}


def loaded(build: Callable[..., Any], inputs: dict[str, Any], target: Any = ct.target.iOS17, **options: Any) -> Any:
    """Convert a program in float32, and load it."""
    program = mil.Program()
    given = {name: mb.placeholder(shape=np.shape(value)) for name, value in inputs.items()}
    with mil.Function(given, opset_version=target) as function:
        outputs = build(**function.inputs)
        function.set_outputs(list(outputs) if isinstance(outputs, (tuple, list)) else [outputs])
        program.add_function("main", function)
    model = ct.convert(
        program,
        source="milinternal",
        convert_to="mlprogram",
        minimum_deployment_target=target,
        compute_precision=ct.precision.FLOAT32,
        **options,
    )
    return gate.mil.load(model)


def arrays(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: np.array(value, np.float32) for name, value in inputs.items()}


@pytest.mark.parametrize("small", PROGRAMS, ids=lambda small: small.name)
def test_a_small_program_gives_what_its_row_says(small: Small) -> None:
    evaluator = loaded(small.build, small.inputs)
    assert set(small.ops) <= {op.type for op in evaluator.function.body.walk()}
    results = evaluator.predict(arrays(small.inputs))
    expected = small.expected if isinstance(small.expected, tuple) else (small.expected,)
    assert len(results) == len(expected)
    for result, wanted in zip(results.values(), expected, strict=True):
        np.testing.assert_allclose(result, np.array(wanted, np.float32))


def test_a_loop_that_never_ends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gate.mil.ops.control_flow.MAX_ITERATIONS", 50)
    evaluator = loaded(doubled_until_100, {"x": [0.0]})
    with pytest.raises(OpFailed, match="still running after 50 iterations"):
        evaluator.predict({"x": np.zeros(1, np.float32)})


def test_a_read_behind_the_end_of_a_list_is_an_error() -> None:
    def build(x: Any) -> Any:
        ls = mb.list_write(ls=mb.make_list(init_length=2, elem_shape=(1,)), index=0, value=x)
        return mb.list_read(ls=ls, index=2)

    with pytest.raises(OpFailed, match="index 2 of a list of 2"):
        loaded(build, {"x": [1.0]}).predict({"x": np.ones(1, np.float32)})


def test_random_ops_with_a_seed_repeat_and_follow_their_distribution() -> None:
    evaluator = loaded(lambda x: mb.random_normal(shape=[4000], mean=2.0, stddev=3.0, seed=5), {"x": [0.0]})
    (first,) = evaluator.predict({"x": np.zeros(1, np.float32)}).values()
    (again,) = evaluator.predict({"x": np.zeros(1, np.float32)}).values()
    np.testing.assert_array_equal(first, again)
    assert first.mean() == pytest.approx(2.0, abs=0.2)
    assert first.std() == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize("labels", [["cat", "dog", "owl"], [3, 5, 9]], ids=["names", "numbers"])
def test_a_classifier_returns_label_and_probabilities(labels: list[Any]) -> None:
    config = ct.ClassifierConfig(labels)
    evaluator = loaded(lambda x: mb.softmax(x=x, axis=-1), {"x": [[0.0, 0.0, 0.0]]}, classifier_config=config)
    assert "classify" in {op.type for op in evaluator.function.body.walk()}
    label, probabilities = evaluator.predict({"x": np.log(np.array([[1, 2, 1]], np.float32))}).values()
    assert label == labels[1]
    assert probabilities == pytest.approx({labels[0]: 0.25, labels[1]: 0.5, labels[2]: 0.25})


def test_a_state_adds_up_over_predictions_and_states_are_apart() -> None:
    specs = [mb.TensorSpec((2,), types.fp16), mb.StateTensorSpec((2,), types.fp16)]

    @mb.program(input_specs=specs, opset_version=ct.target.iOS18)
    def total(x: Any, sum: Any) -> Any:
        return mb.coreml_update_state(state=sum, value=mb.add(x=x, y=mb.read_state(input=sum)))

    evaluator = gate.mil.load(ct.convert(total, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS18))
    state, other = evaluator.make_state(), evaluator.make_state()
    for wanted in ([1, 2], [2, 4], [3, 6]):
        (result,) = evaluator.predict({"x": np.array([1, 2], np.float16)}, state).values()
        np.testing.assert_array_equal(result, wanted)
    np.testing.assert_array_equal(state.read_state("sum"), [3, 6])
    np.testing.assert_array_equal(other.read_state("sum"), [0, 0])


@pytest.mark.parametrize("sequence", [True, False], ids=["sequence", "last"])
def test_a_bidirectional_lstm_is_torch_s(sequence: bool) -> None:
    torch.manual_seed(0)
    layer = torch.nn.LSTM(3, 4, bidirectional=True)
    x, h, c = torch.randn(5, 2, 3), torch.randn(2, 2, 4), torch.randn(2, 2, 4)
    wanted, (h_n, c_n) = layer(x, (h, c))

    def gates(weight: Any) -> Any:
        i, f, z, o = np.split(weight.detach().numpy(), 4)
        return np.concatenate([i, f, o, z])

    def weights(suffix: str, back: str) -> dict[str, Any]:
        ih, hh = (gates(getattr(layer, f"weight_{k}_l0{suffix}")) for k in ("ih", "hh"))
        bias = gates(getattr(layer, f"bias_ih_l0{suffix}") + getattr(layer, f"bias_hh_l0{suffix}"))
        return {f"weight_ih{back}": ih, f"weight_hh{back}": hh, f"bias{back}": bias}

    both = {**weights("", ""), **weights("_reverse", "_back")}
    inputs = {"x": x.numpy(), "h": torch.cat(tuple(h), 1).numpy(), "c": torch.cat(tuple(c), 1).numpy()}
    evaluator = loaded(
        lambda x, h, c: mb.lstm(
            x=x, initial_h=h, initial_c=c, direction="bidirectional", output_sequence=sequence, **both
        ),
        inputs,
    )
    got, got_h, got_c = evaluator.predict(inputs).values()
    shown = wanted if sequence else torch.cat([wanted[-1:, :, :4], wanted[:1, :, 4:]], 2)
    np.testing.assert_allclose(got, shown.detach(), atol=1e-6)
    np.testing.assert_allclose(got_h, torch.cat(tuple(h_n), 1).detach(), atol=1e-6)
    np.testing.assert_allclose(got_c, torch.cat(tuple(c_n), 1).detach(), atol=1e-6)
