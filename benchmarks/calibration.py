# SPDX-License-Identifier: Apache-2.0
"""What do 8-bit activations cost in accuracy, calibrated on all items and, as coremltools 9.0 does, on the last one only?

Both examples, converted to float16 and then to `w8a8` with the range of each observer: on all calibration items (`all`), and on
one item, as `coremltools.optimize.coreml.linear_quantize_activations` keeps the last sample's range. Which item is last is
chance, so that each of eight items is once the last, and once a blank image, which is a legal input. Items that calibrate are
never judged.

    python benchmarks/calibration.py [--examples digits mnist]
"""

import argparse
import importlib.util
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

LAST = 8
OBSERVERS = ("min_max", "percentile", "moving_average")


def module(path: Path):
    """Load a file of an example as the gate does: beside its folder."""
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    sys.path.pop(0)
    return loaded


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return calibration images, judged images and their labels."""
    folder = ROOT / "examples" / "digits"
    judged = np.load(folder / "eval.npz")
    return np.load(folder / "calibration.npz")["image"], judged["image"], judged["label"]


def mnist() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return 128 of the 5,000 items to calibrate, and 1,000 others to judge."""
    items = list(module(ROOT / "examples" / "mnist" / "data.py").items())
    images = np.stack([image["image"][0] for image, _ in items])
    labels = np.array([label for _, label in items])
    order = np.random.default_rng(0).permutation(len(items))
    return images[order[:128]], images[order[128:1128]], labels[order[128:1128]]


EXAMPLES = {"digits": digits, "mnist": mnist}


def package(name: str, folder: Path) -> Path:
    """Convert the trained model of an example to float16."""
    from tests.compress.packages import convert

    model = module(ROOT / "examples" / name / "model.py")
    (example,) = model.example().values()
    return convert(model.build(), tuple(example.shape), "iOS17", folder / f"{name}.mlpackage")


def answers(path: Path, images: np.ndarray) -> np.ndarray:
    """Return the outputs, a row for each image."""
    from gate import mil

    rows = mil.load(path).predict([{"x": image[None]} for image in images])
    return np.stack([next(iter(row.values())).reshape(-1) for row in rows]).astype(
        np.float64
    )  # squares overflow float16


def accuracy(rows: np.ndarray, labels: np.ndarray) -> float:
    """Return the part of the items whose largest output is their label."""
    return float(np.mean(rows.argmax(1) == labels))


def error(rows: np.ndarray, exact: np.ndarray) -> float:
    """Return the relative L2 distance of all outputs."""
    return float(np.linalg.norm(rows - exact) / np.linalg.norm(exact))


def quantized(source: Path, images: np.ndarray, observer: str, out: Path) -> Path:
    """Apply w8a8, with the ranges of these images."""
    from gate.compress import Calibration, compress
    from gate.policy import Target, load

    recipe = load("w8a8", ROOT)
    step = recipe.steps[0].model_copy(
        update={"quantize_activations": recipe.activations.model_copy(update={"observer": observer})}
    )
    recipe = recipe.model_copy(update={"steps": (step, *recipe.steps[1:])})
    items = Calibration([{"x": image[None]} for image in images], f"{len(images)} items")
    return compress(source, recipe, out, target=Target.IOS17, cache=out.parent / "cache", calibration=items).path


def measure(name: str, folder: Path) -> dict[str, tuple[float, float]]:
    """Return accuracy and output error of float16, of each observer on all items, and of min_max on one item."""
    calibration, images, labels = EXAMPLES[name]()
    source = package(name, folder)
    exact = answers(source, images)

    def judged(items: np.ndarray, observer: str) -> tuple[float, float]:
        rows = answers(quantized(source, items, observer, folder / f"{name}-out.mlpackage"), images)
        return accuracy(rows, labels), error(rows, exact)

    found = {"float16": (accuracy(exact, labels), 0.0)}
    found |= {f"all, {observer}": judged(calibration, observer) for observer in OBSERVERS}
    found["last, blank"] = judged(np.full_like(calibration[:1], calibration.min()), "min_max")
    last = [judged(calibration[index : index + 1], "min_max") for index in range(LAST)]
    found["last, mean"] = tuple(float(value) for value in np.mean(last, axis=0))
    found["last, worst"] = (min(one for one, _ in last), max(one for _, one in last))
    return found


def show(name: str, row: dict[str, tuple[float, float]]) -> None:
    """Print accuracy, what it lost against float16, and the error of the outputs."""
    print(f"\n{name}")
    for what, (value, distance) in row.items():
        lost = 100 * (value - row["float16"][0])
        print(f"  {what:<24}{value:8.2%}  {lost:+7.2f} points  {distance:8.2%} of the outputs", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", nargs="+", default=list(EXAMPLES), choices=EXAMPLES)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name in arguments.examples:
            found[name] = measure(name, Path(folder))
            show(name, found[name])
    ratios = {  # error on all items, by that on the last one
        name: round(row["all, min_max"][1] / row["last, mean"][1], 3) for name, row in found.items()
    }
    machine = {"cores": os.cpu_count(), "system": platform.platform()}
    print(json.dumps({"benchmark": "calibration", "ratios": ratios, "figures": found, "machine": machine}))


if __name__ == "__main__":
    main()
