# SPDX-License-Identifier: Apache-2.0
"""What does blame cost, in evaluations of the model?

A network of ResNet-50's shape and a transformer of 12 layers, each with one op that overflows in float16. One side evaluates the float32
program once; the other finds the culprit: compiling, the exact pass, the local errors, the error curve and all trials. At most 15 times is
promised. Prints whether the right op came first.

    python benchmarks/float16.py [--repeat N]
"""

import argparse
import json
import logging
import platform
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

LIMIT = 0.02
PROMISED = 15.0


def resnet() -> tuple[Any, Any, str]:
    """ResNet-50's shape; one block multiplies what it adds by a number beyond float16, and divides again."""
    import torch
    from torch import nn

    from tests.resnet import resnet50

    class Overflowing(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.block(x)
            return torch.sqrt((y * 1000.0) ** 2 + 1.0) * 0.001

    model = resnet50()
    model.blocks[9] = Overflowing(model.blocks[9])
    return model, torch.randn(1, 3, 224, 224), "mul pow square"


def transformer() -> tuple[Any, Any, str]:
    """Twelve pre-norm layers of width 256; in one, the attention scores are not scaled."""
    import torch
    from torch import nn

    class Layer(nn.Module):
        def __init__(self, width: int, heads: int, gain: float) -> None:
            super().__init__()
            self.heads, self.gain = heads, gain
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            b, n, d = x.shape
            q, k, v = (
                t.reshape(b, n, self.heads, d // self.heads).transpose(1, 2)
                for t in self.qkv(self.norm1(x)).chunk(3, -1)
            )
            scores = (q * self.gain) @ k.transpose(-1, -2) * ((d // self.heads) ** -0.5 / self.gain)
            y = torch.softmax(scores, -1) @ v
            x = x + self.out(y.transpose(1, 2).reshape(b, n, d))
            return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))

    torch.manual_seed(0)
    model = nn.Sequential(*(Layer(256, 4, 2.0e4 if index == 7 else 1.0) for index in range(12))).eval()
    return model, torch.randn(1, 128, 256), "matmul"


MODELS = {"resnet50": resnet, "transformer12": transformer}


def convert(model: Any, example: Any, out: Path) -> Path:
    """Convert in float32 by the plain trace route."""
    import coremltools as ct
    import torch

    traced = torch.jit.trace(model, example, check_trace=False)
    package = ct.convert(
        traced,
        inputs=[ct.TensorType(name="x", shape=tuple(example.shape))],
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )
    package.save(str(out))
    return out


def measure(name: str, repeat: int, folder: Path) -> dict[str, Any]:
    """Time one evaluation and one blame, in turns, on the same program."""
    from gate.float16.blame import find_culprits
    from gate.float16.trials import Trials
    from gate.mil.evaluator import load

    model, example, wanted = MODELS[name]()
    evaluator = load(convert(model, example, folder / f"{name}.mlpackage"), precision="float32")
    sample = {"x": example.numpy()}
    evaluator.predict(sample)
    singles, blames = [], []
    for _ in range(repeat):
        singles.append(_timed(lambda: evaluator.predict(sample)))
        started = time.perf_counter()
        blame = find_culprits(Trials(evaluator, sample), LIMIT)
        blames.append(time.perf_counter() - started)
    first = blame.culprits[0].place
    single, whole = statistics.median(singles), statistics.median(blames)
    return {
        "ops": len(evaluator.function.body.ops),
        "evaluation_s": round(single, 4),
        "blame_s": round(whole, 4),
        "ratio": round(whole / single, 2),
        "trials": blame.tried,
        "first": f"{first.type} {first.name}",
        "right": first.type in wanted.split(),
    }


def _timed(run: Any) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    """Measure both models and print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        figures = {name: measure(name, arguments.repeat, Path(folder)) for name in MODELS}
    for name, row in figures.items():
        print(
            f"{name:14} {row['ops']:4} ops   evaluation {row['evaluation_s']:.3f} s   blame {row['blame_s']:.3f} s   "
            f"{row['ratio']:.1f} evaluations (at most {PROMISED:.0f})   {row['trials']} trials   first: {row['first']}"
            f"{'' if row['right'] else '  WRONG'}"
        )
    ratios = {name: row["ratio"] for name, row in figures.items()}
    machine = {"cpu": platform.processor() or platform.machine(), "python": platform.python_version()}
    print(json.dumps({"benchmark": "float16", "ratios": ratios, "figures": figures, "machine": machine}))


if __name__ == "__main__":
    main()
