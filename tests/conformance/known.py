# SPDX-License-Identifier: Apache-2.0
"""Which of coremltools' tests fail here, and why is that not a wrong number of ours?

docs/evaluator.md shows this table; a failure that is not in it fails the run.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """Tests whose id contains all of `parts`."""

    parts: tuple[str, ...]
    why: str


KNOWN = (
    Known(
        ("iOS15/test_image_resizing.py", "TestCropResize"),
        "boxes far outside the image, which the documentation excludes: the expected values follow none of its formulas",
    ),
    Known(
        ("test_image_resizing.py", "TestCropResize::test_builder_to_backend_ios16", "fp32"),
        "expects 7.899 where the documented formula gives 7.9: the error of a float16 engine, at 1e-4",
    ),
    Known(
        ("test_image_resizing.py", "TestCropResize::test_builder_to_backend_ios17", "fp32", "N=3"),
        "expects 7.899 where the documented formula gives 7.9: the error of a float16 engine, at 1e-4",
    ),
    Known(
        ("iOS15/test_image_resizing.py", "TestResample", "fp32"),
        "counts two casts in the converted program, which only the float16 one has; the numbers agree",
    ),
    Known(
        ("TestNormalizationLocalResponseNorm::test_builder_to_backend_smoke", "fp32"),
        "expects each value divided by its own square alone; the documentation sums over neighbouring channels, as torch does",
    ),
    Known(
        ("iOS17/test_recurrent.py", "numpy.float16"),
        "holds a float16 network to 1e-4 of values computed in double; where its sums cancel, they are several float16 steps off",
    ),
    Known(
        ("TestGather::test_gather_nd_int16_indices", "fp32", "dynamic=True"),
        "looks, after the numbers, for a cast to int16 that the converter makes in float16 programs only",
    ),
    Known(
        ("TestStack::test_stack_dynamic_range_dim", "default_dynamic_size=2"),
        "expects a refusal, since Core ML compares declared shapes; the actual ones agree, and the evaluator computes the answer",
    ),
)


def why(test_id: str) -> str | None:
    """Return the reason for a known failure."""
    return next((known.why for known in KNOWN if all(part in test_id for part in known.parts)), None)
