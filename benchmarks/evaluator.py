# SPDX-License-Identifier: Apache-2.0
"""How long does the evaluator take, against torch eager on the same weights and the same threads?

Each architecture is built with random weights, converted by coremltools, and run four ways in turn (so that a busy
machine slows all of them): torch eager in float32, the evaluator in `float32` and in `declared`, and onnxruntime where
it is installed and the model exports. The best of several rounds counts. Beside time: the peak of live tensor bytes of one
prediction, weights and states included on both sides; and how long 100 MB of 4-bit palettes take to load, in this
process and in a new one, each beside what it takes to fill as much memory.

    python benchmarks/evaluator.py [--only NAME…] [--rounds N] [--clock wall|cpu]

`--clock cpu` counts the process's own time on one thread: what remains meaningful on a machine that others use.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

THREADS = 2
os.environ["KINETO_LOG_LEVEL"] = "5"  # the profiler's own lines


class ConvBlock(nn.Sequential):
    """Convolution, batch norm, activation."""

    def __init__(
        self, a: int, b: int, k: int, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = nn.ReLU
    ) -> None:
        layers: list[nn.Module] = [nn.Conv2d(a, b, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(b)]
        super().__init__(*layers, *([act()] if act else []))


class Bottleneck(nn.Module):
    def __init__(self, a: int, width: int, stride: int = 1) -> None:
        super().__init__()
        b = 4 * width
        self.body = nn.Sequential(
            ConvBlock(a, width, 1), ConvBlock(width, width, 3, stride), ConvBlock(width, b, 1, act=None)
        )
        self.skip = ConvBlock(a, b, 1, stride, act=None) if a != b or stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


def resnet50() -> nn.Module:
    layers: list[nn.Module] = [ConvBlock(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    a = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(count):
            layers.append(Bottleneck(a, width, stride if i == 0 else 1))
            a = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


class Squeeze(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(c, c // 4, 1), nn.Conv2d(c // 4, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Inverted(nn.Module):
    """A block of MobileNetV2, or V3 with squeeze and hard swish."""

    def __init__(self, a: int, b: int, stride: int, expand: int, act: type[nn.Module], squeeze: bool) -> None:
        super().__init__()
        hidden = a * expand
        parts: list[nn.Module] = [
            ConvBlock(a, hidden, 1, act=act),
            ConvBlock(hidden, hidden, 3, stride, hidden, act=act),
        ]
        self.body = nn.Sequential(*parts, *([Squeeze(hidden)] if squeeze else []), ConvBlock(hidden, b, 1, act=None))
        self.residual = a == b and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


def mobilenet(act: type[nn.Module], squeeze: bool) -> nn.Module:
    layers: list[nn.Module] = [ConvBlock(3, 32, 3, 2, act=act)]
    a = 32
    for b, count, stride in ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2)):
        for i in range(count):
            layers.append(Inverted(a, b, stride if i == 0 else 1, 6, act, squeeze))
            a = b
    head = [ConvBlock(a, 1280, 1, act=act), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    return nn.Sequential(*layers, *head)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x: Tensor) -> Tensor:
        b, n, w = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(w // self.heads), -1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, w))


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention, self.a, self.b = Attention(width, heads), nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.a(x))
        return x + self.mlp(self.b(x))


class VisionTransformer(nn.Module):
    def __init__(self, width: int = 192, depth: int = 12) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.place = nn.Parameter(torch.randn(1, 197, width) * 0.02)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, 3) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token, self.patches(x).flatten(2).transpose(1, 2)], 1) + self.place
        return self.head(self.norm(self.blocks(x))[:, 0])


class UNet(nn.Module):
    def __init__(self, c: int = 32) -> None:
        super().__init__()
        double = lambda a, b: nn.Sequential(ConvBlock(a, b, 3), ConvBlock(b, b, 3))  # noqa: E731
        self.down = nn.ModuleList([double(3, c), double(c, 2 * c), double(2 * c, 4 * c)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(4 * c, 2 * c, 2, 2), nn.ConvTranspose2d(2 * c, c, 2, 2)])
        self.join = nn.ModuleList([double(4 * c, 2 * c), double(2 * c, c)])
        self.head = nn.Conv2d(c, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down[0](x)
        b = self.down[1](F.max_pool2d(a, 2))
        y = self.down[2](F.max_pool2d(b, 2))
        y = self.join[0](torch.cat([self.up[0](y), b], 1))
        return self.head(self.join[1](torch.cat([self.up[1](y), a], 1)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(80, 256, batch_first=True), nn.Linear(256, 40)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


class Decoder(nn.Module):
    """One step of a small language model with its keys and values in states."""

    def __init__(self, width: int = 512, depth: int = 4, length: int = 128) -> None:
        super().__init__()
        self.heads, self.depth = 8, depth
        self.embedding = nn.Embedding(4000, width)
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(depth))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)) for _ in range(depth)
        )
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth))
        self.head = nn.Linear(width, 4000)
        self.register_buffer("keys", torch.zeros(depth, 8, length, width // 8))
        self.register_buffer("values", torch.zeros(depth, 8, length, width // 8))

    def forward(self, token: Tensor, mask: Tensor) -> Tensor:
        x = self.embedding(token)
        for i in range(self.depth):
            q, k, v = self.qkv[i](self.norm[2 * i](x)).reshape(1, 3, 8, -1).permute(1, 2, 0, 3)
            self.keys[i, :, 5:6] = k
            self.values[i, :, 5:6] = v
            scores = torch.softmax(q @ self.keys[i].transpose(-1, -2) / 8 + mask, -1)
            x = x + self.out[i]((scores @ self.values[i]).transpose(0, 1).reshape(1, 1, -1))[0]
            x = x + self.mlp[i](self.norm[2 * i + 1](x))
        return self.head(x)


class Detector(nn.Module):
    """A one-stage head over a small backbone: boxes decoded against anchors, scores."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvBlock(3, 32, 3, 2), ConvBlock(32, 64, 3, 2), ConvBlock(64, 128, 3, 2), ConvBlock(128, 128, 3)
        )
        self.boxes, self.scores = nn.Conv2d(128, 4 * 3, 3, padding=1), nn.Conv2d(128, 20 * 3, 3, padding=1)
        self.register_buffer("anchors", torch.rand(32 * 32 * 3, 4) + 0.1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.body(x)
        boxes = self.boxes(y).permute(0, 2, 3, 1).reshape(1, -1, 4)
        scores = torch.sigmoid(self.scores(y).permute(0, 2, 3, 1).reshape(1, -1, 20))
        centre = boxes[..., :2] * self.anchors[:, 2:] + self.anchors[:, :2]
        return torch.cat([centre, torch.exp(boxes[..., 2:].clamp(max=4)) * self.anchors[:, 2:]], -1), scores


def digits() -> nn.Module:
    convolutions = [ConvBlock(1, 16, 3), nn.MaxPool2d(2), ConvBlock(16, 32, 3), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*convolutions, nn.Linear(32 * 2 * 2, 64), nn.ReLU(), nn.Linear(64, 10))


@dataclass(frozen=True)
class Architecture:
    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]
    states: tuple[str, ...] = ()
    repeat: int = 1  # calls that are timed together


def picture(side: int, channels: int = 3) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.rand(1, channels, side, side),)


ARCHITECTURES = (
    Architecture("resnet50", resnet50, picture(224)),
    Architecture("mobilenet_v2", lambda: mobilenet(nn.ReLU6, False), picture(224)),
    Architecture("mobilenet_v3", lambda: mobilenet(nn.Hardswish, True), picture(224)),
    Architecture("vit_tiny", VisionTransformer, picture(224)),
    Architecture("unet", UNet, picture(128)),
    Architecture("lstm", Recurrent, lambda: (torch.randn(1, 100, 80),), repeat=3),
    Architecture("decoder", Decoder, lambda: (torch.tensor([7]), torch.zeros(1, 128)), ("keys", "values"), repeat=5),
    Architecture("detector", Detector, picture(256)),
    Architecture("digits", digits, picture(8, 1), repeat=50),
)


@dataclass(frozen=True)
class Figures:
    name: str
    torch_ms: float
    float32_ms: float
    declared_ms: float
    onnxruntime_ms: float | None
    torch_bytes: int
    float32_bytes: int
    declared_bytes: int
    float32_error: float
    declared_error: float


def convert(architecture: Architecture, precision: str) -> tuple[nn.Module, tuple[Tensor, ...], Any]:
    import coremltools as ct

    torch.manual_seed(0)
    module = architecture.build().eval()
    settle_batch_norms(module, architecture.inputs)
    example = architecture.inputs()
    types = [
        ct.TensorType(f"in{i}", shape=x.shape, dtype=np.int32 if x.dtype == torch.int64 else np.float32)
        for i, x in enumerate(example)
    ]
    states = [
        ct.StateType(ct.TensorType(shape=getattr(module, n).shape, dtype=np.float16), name=n)
        for n in architecture.states
    ]
    options: dict[str, Any] = {"states": states} if states else {}
    with torch.no_grad():
        traced = torch.jit.trace(module, example, check_trace=False)
    with quiet():
        model = ct.convert(
            traced,
            inputs=types,
            minimum_deployment_target=ct.target.iOS18 if states else ct.target.iOS17,
            compute_precision=getattr(ct.precision, precision),
            **options,
        )
    return module, example, model


def quiet() -> contextlib.AbstractContextManager[Any]:
    """Keep coremltools' progress bars out of the table."""
    return contextlib.redirect_stderr(io.StringIO())


def settle_batch_norms(module: nn.Module, inputs: Callable[[], tuple[Tensor, ...]]) -> None:
    """Give random networks sane activations: running statistics of a few samples."""
    if any(isinstance(m, nn.BatchNorm2d) for m in module.modules()):
        module.train()
        with torch.no_grad():
            for _ in range(3):
                module(*(x.repeat(2, 1, 1, 1) for x in inputs())) if not isinstance(module, Detector) else module.body(
                    *inputs()
                )
        module.eval()


def measure(architecture: Architecture, rounds: int, clock: Callable[[], float]) -> Figures:
    from gate.mil.evaluator import load

    module, example, exact_model = convert(architecture, "FLOAT32")
    _, _, half_model = convert(architecture, "FLOAT16")
    exact, declared = load(exact_model, precision="float32"), load(half_model, precision="declared")
    feed = {f"in{i}": x.int() if x.dtype == torch.int64 else x for i, x in enumerate(example)}
    states = exact.make_state(), declared.make_state()
    onnx = onnx_runner(module, example)
    with torch.inference_mode():
        wanted = flat(module(*example))
    runs: list[Callable[[], Any]] = [
        lambda: module(*example),
        lambda: exact.run(feed, states[0]),
        lambda: declared.run(feed, states[1]),
    ]
    errors = [range_error(wanted, list(r().values())) for r in runs[1:]]
    best = race([*runs, *([onnx] if onnx else [])], rounds, architecture.repeat, clock)
    held = (
        held_bytes([*module.parameters(), *module.buffers()]),
        *(
            held_bytes([*tensors_of(e.plan.body), *(x.value for x in s.values())])
            for e, s in zip((exact, declared), states, strict=True)
        ),
    )
    bytes_ = [before + peak_bytes(run) for before, run in zip(held, runs, strict=True)]
    return Figures(architecture.name, *best[:3], best[3] if onnx else None, *bytes_, *errors)


def tensors_of(body: Any) -> list[Tensor]:
    """List the constants that the steps of a program read."""
    return [value for step in body.steps for value in step.constants.values() if isinstance(value, Tensor)]


def held_bytes(tensors: list[Tensor]) -> int:
    """Return the bytes of what is there before a prediction."""
    packed = sum(torch.ops.mkldnn._nbytes(t) for t in {id(t): t for t in tensors if t.is_mkldnn}.values())
    plain = [t for t in tensors if not t.is_mkldnn]
    return packed + sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in plain}.values())


def peak_bytes(run: Callable[[], Any]) -> int:
    """Return the most bytes that a run took from torch's allocator at once."""
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.inference_mode(), torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return int(live.max(initial=0))


PALETTE_BYTES, LAYERS, WIDTH = 100_000_000, 10, 4096


def palettized_load(clock: Callable[[], float]) -> dict[str, float]:
    """Time the loading of 100 MB of 4-bit palettes, 200 million weights; and to fill as much new memory as they take."""
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb

    from gate.mil.evaluator import load

    rows = 2 * PALETTE_BYTES // LAYERS // WIDTH
    random = np.random.default_rng(0)

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, WIDTH))], opset_version=ct.target.iOS16)
    def program(x: Any) -> Any:
        half, sums = mb.cast(x=x, dtype="fp16"), []
        for _ in range(LAYERS):
            weight = mb.constexpr_lut_to_dense(
                indices=random.integers(0, 256, rows * WIDTH // 2, dtype=np.uint8),
                lut=random.standard_normal(16).astype(np.float16),
                shape=np.array([rows, WIDTH], np.uint32),
            )
            sums.append(mb.reduce_sum(x=mb.linear(x=half, weight=weight), axes=[-1]))
        return mb.concat(values=sums, axis=0)

    target, passes = ct.target.iOS16, ct.PassPipeline.EMPTY
    with quiet():
        model = ct.convert(program, minimum_deployment_target=target, pass_pipeline=passes, skip_model_load=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "palettes.mlpackage"
        model.save(str(path))
        load_ms, fill_ms = race([lambda: load(path), lambda: np.full(2 * PALETTE_BYTES, 1, np.float32)], 3, 1, clock)
        cold_load_ms, cold_fill_ms = cold_load(path, clock)
    return {
        "palettized_load_ms": load_ms,
        "palettized_fill_ms": fill_ms,
        "palettized_cold_load_ms": cold_load_ms,
        "palettized_cold_fill_ms": cold_fill_ms,
    }


COLD = """
import sys, time, numpy
from gate.mil.evaluator import load
clock = getattr(time, sys.argv[1])
start = clock()
load(sys.argv[2])
loaded = clock()
numpy.full(int(sys.argv[3]), 1, numpy.float32)
print((loaded - start) * 1000, (clock() - loaded) * 1000)
"""


def cold_load(path: Path, clock: Callable[[], float]) -> tuple[float, float]:
    """Time the first load of a process that has imported the evaluator, and a fill of new memory after it."""
    root = str(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-c", COLD, clock.__name__, str(path), str(2 * PALETTE_BYTES)]
    printed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    load_ms, fill_ms = map(float, printed.split())
    return load_ms, fill_ms


PAUSE_S, UNMEASURED = 0.05, 5
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def race(runs: list[Callable[[], Any]], rounds: int, repeat: int, clock: Callable[[], float]) -> list[float]:
    """Return the best milliseconds of each, taken in turns.

    The threads of OpenMP and of onnxruntime go on spinning after their work, and would take a core from the next: wait for them,
    then let the one whose turn it is run until its threads, its memory and the caches are its own.
    """
    best = [math.inf] * len(runs)
    with torch.inference_mode():
        for _ in range(rounds):
            for i, run in enumerate(runs):
                time.sleep(PAUSE_S)
                for _ in range(UNMEASURED):
                    run()
                start = clock()
                for _ in range(repeat):
                    run()
                best[i] = min(best[i], (clock() - start) * 1000 / repeat)
    return best


def onnx_runner(module: nn.Module, example: tuple[Tensor, ...]) -> Callable[[], Any] | None:
    """Export and open a session; None where either is not possible."""
    try:
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "m.onnx")
            torch.onnx.export(module, example, path, dynamo=False, input_names=[f"in{i}" for i in range(len(example))])
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        print(f"  no ONNX twin: {type(error).__name__}", file=sys.stderr)
        return None
    feed = {i.name: x.numpy() for i, x in zip(session.get_inputs(), example, strict=False)}
    return lambda: session.run(None, feed)


def flat(value: Any) -> list[Tensor]:
    return list(value) if isinstance(value, tuple) else [value]


def range_error(wanted: list[Tensor], found: list[Tensor]) -> float:
    """Return the largest error relative to its output's largest magnitude."""
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-6)) for a, b in zip(wanted, found, strict=True))


def batch_speedup(clock: Callable[[], float], samples: int = 360) -> dict[str, float]:
    """Compare samples one by one with stacks of them, on the digits network."""
    from gate.mil.evaluator import load

    _, _, model = convert(next(a for a in ARCHITECTURES if a.name == "digits"), "FLOAT16")
    evaluator = load(model)
    generator = np.random.default_rng(0)
    inputs = [{"in0": generator.random((1, 1, 8, 8), np.float32)} for _ in range(samples)]
    one, many = (lambda: [evaluator.predict(s) for s in inputs]), (lambda: evaluator.predict(inputs))
    alone, together = one(), many()
    difference = max(
        float(np.abs(np.float32(next(iter(a.values()))) - np.float32(next(iter(b.values())))).max())
        for a, b in zip(alone, together, strict=True)
    )
    one_ms, many_ms = race([one, many], 15, 1, clock)
    return {
        "batch_one_by_one_ms": one_ms,
        "batch_together_ms": many_ms,
        "batch_speedup": one_ms / many_ms,
        "batch_difference": difference,
    }


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[a.name for a in ARCHITECTURES])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS if arguments.clock == "wall" else 1)
    clock = CLOCKS[arguments.clock]
    warnings.simplefilter("ignore")
    logging.getLogger("coremltools").setLevel(logging.CRITICAL)
    rows = []
    print(
        f"{'':14}{'torch':>9}{'float32':>9}{'declared':>9}{'onnx':>9}   ms; errors; peak bytes of float32, declared by torch's"
    )
    for architecture in ARCHITECTURES:
        if architecture.name in arguments.only:
            row = measure(architecture, arguments.rounds, clock)
            rows.append(row)
            onnx = f"{row.onnxruntime_ms:9.2f}" if row.onnxruntime_ms else f"{'-':>9}"
            print(
                f"{row.name:14}{row.torch_ms:9.2f}{row.float32_ms:9.2f}{row.declared_ms:9.2f}{onnx}"
                f"   {row.float32_error:.1e} {row.declared_error:.1e}"
                f"   {row.float32_bytes / row.torch_bytes:.2f} {row.declared_bytes / row.torch_bytes:.2f}",
                flush=True,
            )
    print(json.dumps(summary(rows, arguments.clock)))


def summary(rows: list[Figures], clock: str) -> dict[str, Any]:
    ratios = {
        "float32_vs_torch": geometric_mean([r.float32_ms / r.torch_ms for r in rows]),
        "declared_vs_torch": geometric_mean([r.declared_ms / r.torch_ms for r in rows]),
    }
    twins = [r.float32_ms / r.onnxruntime_ms for r in rows if r.onnxruntime_ms]
    if twins:
        ratios["float32_vs_onnxruntime"] = geometric_mean(twins)
    for precision in ("float32", "declared"):
        shares = [getattr(r, f"{precision}_bytes") / r.torch_bytes for r in rows]
        ratios[f"{precision}_peak_bytes_vs_torch"] = geometric_mean(shares)
        ratios[f"{precision}_peak_bytes_vs_torch_worst"] = max(shares)
    figures = {r.name: vars(r) for r in rows}
    return {
        "benchmark": "evaluator",
        "ratios": {k: round(v, 3) for k, v in ratios.items()},
        "figures": {**figures, **batch_speedup(CLOCKS[clock]), **palettized_load(CLOCKS[clock])},
        "machine": {
            "threads": torch.get_num_threads(),
            "clock": clock,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cpu": platform.processor() or platform.machine(),
        },
    }


if __name__ == "__main__":
    main()
