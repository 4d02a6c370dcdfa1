# SPDX-License-Identifier: Apache-2.0
"""Package sizes: on a small net by hand, on the ResNet-50 shape against what Apple prints (WWDC23, session 10047)."""

import math
from pathlib import Path

import pytest

from gate.compress import compress
from gate.policy import Target, load
from tests.compress.packages import convert
from tests.detector import detector
from tests.resnet import resnet50, small_resnet

TOLERANCE = 0.01
RESNET50_MB = {  # decimal, as Apple prints it
    "float16": 51.1,
    "int8": 25.7,
    "palette-6bit": 19.2,
    "palette-4bit": 12.9,
    "prune-50": 28.8,
}
DETECTOR_MB = {"float16": 23.6, "palette-6bit": 9.0, "palette-2bit": 3.0}  # of the same session's demo
BITS_PER_VALUE = {  # tables, scales and masks included; 130,962 parameters
    "int8": (8, 8.3),
    "palette-6bit": (6, 6.3),
    "palette-4bit": (4, 4.2),
    "palette-2bit": (2, 2.2),
    "prune-50": (9, 9.2),
    "prune-75": (5, 5.2),
    "prune-50+palette-4bit": (3, 3.3),
}


def package_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def weight_bytes(path: Path) -> int:
    return (path / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return convert(small_resnet(), (1, 3, 64, 64), "iOS18", tmp_path_factory.mktemp("small") / "float16.mlpackage")


@pytest.mark.parametrize("name", BITS_PER_VALUE)
def test_a_small_net_shrinks_to_its_bits(name, small, workers, tmp_path):
    made = compress(small, load(name, tmp_path), tmp_path / "out.mlpackage", target=Target.IOS18, workers=workers)
    elements = sum(math.prod(promise.shape) for promise in made.promises if promise.applied)
    saved = weight_bytes(small) - weight_bytes(made.path)
    low, high = BITS_PER_VALUE[name]
    assert low <= 16 - saved * 8 / elements <= high


def sizes(package: Path, target: Target, names, folder: Path, workers, capsys) -> dict[str, float]:
    """Compress under each policy; return and print decimal MB."""
    found = {}
    for name in names:
        made = compress(package, load(name, folder), folder / name, target=target, workers=workers)
        found[name] = package_bytes(made.path) / 1e6
    with capsys.disabled():
        print("\n" + "\n".join(f"{name:<16}{size:8.2f} MB" for name, size in found.items()))
    return found


@pytest.mark.slow
def test_resnet50_has_the_sizes_that_apple_prints(tmp_path, workers, capsys):
    model = resnet50()
    assert sum(p.numel() for p in model.parameters()) == 25_557_032
    assert sum(p.ndim > 1 for p in model.parameters()) == 54
    package = convert(model, (1, 3, 224, 224), "iOS17", tmp_path / "float16.mlpackage")
    found = sizes(package, Target.IOS17, RESNET50_MB, tmp_path, workers, capsys)
    assert found == pytest.approx(RESNET50_MB, rel=TOLERANCE)


@pytest.mark.slow
def test_the_detector_takes_the_path_of_apples_demo(tmp_path, workers, capsys):
    """From 23.6 MB over 9 to 3: the session prints whole megabytes, so that half of one is what can be told apart."""
    model = detector()
    assert sum(p.numel() for p in model.backbone.parameters()) == 11_176_512  # ResNet-18 without its classifier
    package = convert(model, (1, 3, 320, 320), "iOS17", tmp_path / "float16.mlpackage")
    found = sizes(package, Target.IOS17, DETECTOR_MB, tmp_path, workers, capsys)
    assert found["float16"] == pytest.approx(23.6, abs=0.05)
    assert [round(size) for size in found.values()] == [24, 9, 3]
