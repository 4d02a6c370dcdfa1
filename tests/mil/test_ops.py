# SPDX-License-Identifier: Apache-2.0
"""Does each kernel compute what MIL defines?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from gate.mil.batch import Stack
from gate.mil.ops.registry import KERNELS, find
from gate.mil.program import Op
from tests.mil.op_cases import ROWS as PLAIN
from tests.mil.op_cases import Row
from tests.mil.op_cases_places import PLACES
from tests.mil.programs import one_op, run_op, tensor
from tests.mil.test_blocks import PROGRAMS, SHOWN

ROWS = [*PLAIN, *PLACES]


@pytest.mark.parametrize("row", ROWS, ids=[f"{i}-{row.label}" for i, row in enumerate(ROWS)])
def test_the_result_is_what_the_row_says(row: Row) -> None:
    expected = row.expected if isinstance(row.expected, tuple) else (row.expected,)
    wanted = tuple(tensor(x) for x in expected)
    wanted = tuple(x.float() if row.dtype == "float16" and x.dtype is not torch.bool else x for x in wanted)
    results = run_op(row.op, row.inputs, wanted, row.dtype, row.opset)
    tolerance = 1e-3 if row.dtype == "float16" else 2e-6
    for result, want in zip(results, wanted, strict=True):
        assert result.dtype == want.dtype
        np.testing.assert_allclose(result.numpy(), want.numpy(), rtol=tolerance, atol=tolerance)


def test_every_kernel_has_a_row() -> None:
    rows = {row.op for row in ROWS} | {op for program in PROGRAMS for op in program.ops} | SHOWN
    assert sorted(op for op in KERNELS if op not in rows and not op.startswith("constexpr_")) == []


FRESH = [row for row in ROWS if KERNELS[row.op][0].fresh and row.dtype == "float32"]


@pytest.mark.parametrize("row", FRESH, ids=[f"{i}-{row.label}" for i, row in enumerate(FRESH)])
def test_a_fresh_kernel_returns_new_memory(row: Row) -> None:
    """Its result is rounded in place, which must change nobody else's values."""

    def observe(op: Op, inputs: Mapping[str, Any], results: tuple[Any, ...]) -> None:
        given = {x.untyped_storage().data_ptr() for x in inputs.values() if isinstance(x, torch.Tensor)}
        assert not given & {x.untyped_storage().data_ptr() for x in results}

    run_op(row.op, row.inputs, (tensor(row.expected),), row.dtype, row.opset, observe=observe)


def has_rows(row: Row) -> bool:
    kernel = find(row.op, row.opset)
    computed = [name for name, value in row.inputs.items() if isinstance(value, np.ndarray)]
    return kernel is not None and kernel.rows and computed == ["x"] and row.inputs["x"].ndim > 0


WITH_ROWS = [row for row in ROWS if has_rows(row)]


@pytest.mark.parametrize("row", WITH_ROWS, ids=[f"{i}-{row.label}" for i, row in enumerate(WITH_ROWS)])
def test_a_stack_of_samples_runs_as_rows(row: Row) -> None:
    x, expected = row.inputs["x"], tensor(row.expected)
    if x.ndim == 1:
        x, expected = x[None], expected[None]
    scales = (1, 2, -1) if x.dtype.kind == "f" else (1, 1)
    samples = [np.asarray(x * scale, x.dtype) if scale != 1 else x for scale in scales]
    function, plan, _ = one_op(row.op, {**row.inputs, "x": x}, (expected,), row.dtype, row.opset)
    stack = Stack(plan, function)
    assert plan.body.steps[0].rows
    (together,) = stack.run([{"x": tensor(sample)} for sample in samples]).values()
    for found, sample in zip(together, samples, strict=True):
        (wanted,) = run_op(row.op, {**row.inputs, "x": sample}, (expected,), row.dtype, row.opset)
        assert torch.allclose(found.double(), wanted.double(), rtol=2**-10, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize(("window", "stride", "pad"), [(2, 2, 0), (3, 2, 1), (5, 1, 2), (3, 3, 0)])
def test_a_large_max_pool_equals_torch(window: int, stride: int, pad: int) -> None:
    """Large ones are computed from slices, which the small rows of the table never reach."""
    x = torch.randn(1, 8, 61, 64, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.max_pool2d(x, window, stride, pad)
    inputs = {
        "x": x.numpy(),
        "kernel_sizes": [window] * 2,
        "strides": [stride] * 2,
        "pad_type": "custom",
        "pad": [pad] * 4,
    }
    (result,) = run_op("max_pool", inputs, (wanted,))
    assert torch.equal(result, wanted)
