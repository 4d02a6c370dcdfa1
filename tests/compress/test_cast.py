# SPDX-License-Identifier: Apache-2.0
"""Finished packages in another precision or opset: the same answers, and the types that the app knows."""

from pathlib import Path

import numpy as np
import pytest

from gate import mil
from gate.compress import cast_float16, compress, raise_target
from gate.errors import ToolchainError
from gate.mil.program import load_program
from gate.policy import Target, load
from tests.compress.packages import by_reader, convert, net


@pytest.fixture(scope="module")
def float32(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("float32")
    return convert(net(), (1, 4, 8, 8), "iOS15", folder / "float32.mlpackage", float16=False)


def answer(package: Path) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)
    (found,) = mil.load(package).predict({"x": x}).values()
    return found


def features(package: Path) -> list[tuple[str, int]]:
    description = load_program(package).spec.description
    return [(f.name, f.type.multiArrayType.dataType) for f in [*description.input, *description.output]]


def test_a_float32_package_becomes_float16_and_keeps_its_interface(float32, tmp_path):
    cast = cast_float16(float32, tmp_path / "float16.mlpackage")
    assert {weight.dtype for weight in by_reader(float32).values() if len(weight.shape) > 1} == {"float32"}
    assert {weight.dtype for weight in by_reader(cast).values() if len(weight.shape) > 1} == {"float16"}
    assert features(cast) == features(float32)
    np.testing.assert_allclose(answer(cast), answer(float32), atol=0.01 * np.abs(answer(float32)).max())
    assert not np.array_equal(answer(cast), answer(float32))


def test_a_raised_program_has_the_opset_and_the_same_answers(float32, tmp_path):
    raised = raise_target(float32, Target.IOS18, tmp_path / "raised.mlpackage")
    assert load_program(raised).function().opset == "CoreML8"
    np.testing.assert_array_equal(answer(raised), answer(float32))


def test_an_ios15_package_is_compressed_under_a_later_target(float32, workers, tmp_path):
    made = compress(float32, load("int8", tmp_path), tmp_path / "out.mlpackage", target=Target.IOS16, workers=workers)
    assert load_program(made.path).function().opset == "CoreML6"
    assert {weight.bits for weight in by_reader(made.path).values() if weight.forms} == {8}


def test_what_coremltools_cannot_rewrite_is_a_toolchain_error(tmp_path):
    (tmp_path / "broken.mlpackage").mkdir()
    with pytest.raises(ToolchainError, match=r"broken\.mlpackage: coremltools cannot rewrite the package"):
        cast_float16(tmp_path / "broken.mlpackage", tmp_path / "out.mlpackage")
