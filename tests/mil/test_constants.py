# SPDX-License-Identifier: Apache-2.0
"""Decoded constants: what is declared is checked whoever else holds the same bytes, and what a chain costs is bounded."""

import numpy as np
import pytest

from gate.mil import ops as ops  # registers the kernels
from gate.mil.constants import LONGEST_CHAIN, Constants, Exchanged
from gate.mil.errors import BadPackage, OpFailed
from gate.mil.numerics import Rounding
from gate.mil.program import Constant, Op, TensorType, Value

SQUARE = TensorType("float32", (4, 4))


def palette(*outputs: TensorType, indices=None) -> Op:
    stored = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64) % 4 if indices is None else indices
    inputs = {
        "indices": (Constant("indices", TensorType("uint8", (64, 64)), stored),),
        "lut": (Constant("lut", TensorType("float16", (1, 1, 4, 1)), np.ones((1, 1, 4, 1), np.float16)),),
    }
    return Op("constexpr_lut_to_dense", "w", inputs, tuple(Value(f"w{i}", kind) for i, kind in enumerate(outputs)))


def shift(name: str, data, scale) -> Op:
    inputs = {"data": (data,), "scale": (scale,)}
    return Op("constexpr_blockwise_shift_scale", name, inputs, (Value(name, SQUARE),))


def ones(name: str) -> Constant:
    return Constant(name, SQUARE, np.ones((4, 4), np.float32))


def tensor(*chain: Op):
    constants = Constants()
    for op in chain:
        constants.fold(op, "CoreML8")
    return constants.tensor(constants.resolve(chain[-1].outputs[0]), "float16", Rounding())


@pytest.mark.parametrize(
    ("outputs", "error"),
    [
        pytest.param((TensorType("float16", (32, 128)),), OpFailed, id="another shape"),
        pytest.param((TensorType("float16", (64, 64)),) * 2, BadPackage, id="a result too many"),
    ],
)
def test_what_is_declared_is_checked_though_another_program_holds_the_same_bytes(outputs, error):
    held = tensor(palette(TensorType("float16", (64, 64))))
    assert held.shape == (64, 64)
    with pytest.raises(error, match="w"):
        tensor(palette(*outputs))


def test_each_op_of_a_chain_is_decoded_once(monkeypatch):
    """Every layer reads both results of the one before; decoding each where it is read would double with each layer."""
    calls = []
    real = np.ones((4, 4), np.float32)
    monkeypatch.setattr(
        "gate.mil.constants._decode", lambda op, kernel, inputs: calls.append(op.name) or (real.copy(),)
    )
    a, b, chain = ones("a"), ones("b"), []
    for layer in range(LONGEST_CHAIN):
        chain += [shift(f"a{layer}", a, b), shift(f"b{layer}", b, a)]
        a, b = chain[-2].outputs[0], chain[-1].outputs[0]
    tensor(*chain)
    assert len(calls) == len(set(calls)) < len(chain)


def test_a_chain_longer_than_anybody_writes_is_refused():
    chain = [shift("w0", ones("data"), ones("scale"))]
    for place in range(1, LONGEST_CHAIN + 1):
        chain.append(shift(f"w{place}", chain[-1].outputs[0], ones("scale")))
    tensor(*chain[:-1])
    with pytest.raises(BadPackage, match="chain"):
        tensor(*chain)


def test_other_values_for_one_constant_decode_nothing_again(monkeypatch):
    base = Constants()
    whole = palette(TensorType("float16", (64, 64)))
    base.fold(whole, "CoreML8")
    base.tensor(base.resolve(whole.outputs[0]), "float16", Rounding())
    base.check_unread()
    monkeypatch.setattr("gate.mil.constants.Decoding.array", lambda *_: pytest.fail("decoded again"))
    Exchanged(base, {"other": np.zeros(1, np.float32)}).check_unread()


def test_damage_in_what_nothing_reads_is_told_as_well():
    constants = Constants()
    constants.fold(palette(TensorType("float16", (64, 64)), indices=np.full((64, 64), 9, np.uint8)), "CoreML8")
    with pytest.raises(BadPackage, match="index 9"):
        constants.check_unread()
