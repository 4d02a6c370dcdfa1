# SPDX-License-Identifier: Apache-2.0
"""How much smaller is a searched assignment than the best uniform policy, and how many samples does finding and certifying it cost?

On each example: every shipped policy, and every option of the search applied to all weights alike, is certified under the example's own
accuracy budget on the confirmation items; the smallest that passes is the best uniform policy. (Choosing it there favours it.) The search sees
the search items only, and what it finds is certified once. Ratio: bytes of the package by bytes of the best uniform one; of the shipped
policies alone, and of all.

Then a network like that of NNCF's accuracy control: 14 layers, 1,000 items, of which one or eight layers must
be left alone. NNCF 2.x evaluates 7,201 and 14,201 samples there; the ratio is how many times fewer are evaluated here, everything counted:
reference, sensitivity, verification and certification.

    python benchmarks/search.py [--only mnist digits denoise one eight]
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

EXAMPLES = ("mnist", "digits", "denoise")
NNCF = {"one": (1, 7_201), "eight": (8, 14_201)}  # layers that must be left, samples that NNCF evaluates
SECONDS = 1_200.0

NETWORK = """
import torch
from torch import nn

LAYERS, WIDTH, BROKEN = 14, 32, {broken}


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, 10 if i == LAYERS - 1 else WIDTH) for i in range(LAYERS))

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x)) * 0.5 + x * KEEP
        return self.layers[-1](x)


KEEP = torch.ones(WIDTH)
KEEP[0] = 0.0  # the first feature is always zero, so that what a layer makes of it does not matter


def build():
    torch.manual_seed(0)
    model = Deep().eval()
    with torch.no_grad():
        for index, layer in enumerate(model.layers):
            if index < LAYERS - 1:
                layer.weight[0].zero_()
                layer.bias[0] = -1.0
            if index and index <= BROKEN:
                layer.weight[:, 0] = 400.0  # takes the whole range of eight bits
    return model


def example():
    return {{"x": torch.linspace(-1, 1, WIDTH).reshape(1, WIDTH)}}
"""

CONFIG = """
version: 1
app: {deployment_target: iOS17}
models:
  - name: deep
    source: {factory: model.py:build, example: model.py:example}
    reference: source
    dataset: eval.npz
    metric: accuracy
    splits: {seed: 3, search: 30 %, confirm: 70 %}
    budgets: {accuracy: {drop: 1 point}}
"""


@contextmanager
def opened(config: Path, folder: Path) -> Iterator:
    """Open the one model entry of a configuration, converted and ready to be searched."""
    from gate.compress import Workers
    from gate.config import load
    from gate.engine import make_engine
    from gate.entry import Circumstances, Trial
    from gate.source import open_source

    loaded = load(config)
    entry = loaded.models[0]
    scratch = folder / "scratch"
    scratch.mkdir()
    with (
        Workers(os.cpu_count() or 1) as workers,
        open_source(entry, loaded, workdir=scratch, time_limit=SECONDS, memory_limit=loaded.limits.memory) as source,
    ):
        around = Circumstances(loaded, make_engine("mil"), None, (), folder / "cache", workers, folder)
        trial = Trial(entry, source, around, scratch, searches=True)
        trial.prepare()
        yield trial


def certified(trial, policy) -> tuple[int, bool, int]:
    """Compress by a policy and judge its accuracy on the confirmation items: bytes, whether it passes, items used."""
    from gate.candidate import Candidate, read_package
    from gate.checks import accuracy, base
    from gate.compress import compress
    from gate.report import Outcome, Role

    before, around = trial.before(policy), trial.around
    out = around.work / "packages" / f"{policy.name}.mlpackage"
    made = compress(
        before,
        policy,
        out,
        target=trial.target,
        layers=trial.conversion.layers,
        cache=around.cache,
        workers=around.workers,
    )
    candidate = Candidate(Role.EXPLORE, policy, read_package(out))
    rows = base.run(accuracy.CHECK, trial.subject(candidate, made, before))
    used = max((m.n or 0 for row in rows for m in row.measurements), default=0)
    return candidate.package.bytes, all(row.outcome is Outcome.PASS for row in rows), used


def uniform_policies(trial) -> dict[str, object]:
    """Every shipped policy and every option that the target carries."""
    from gate.policy import Precision, load, shipped_policies
    from gate.search.options import GROUPED, OPTIONS, carried

    shipped = [load(name, ROOT) for name in shipped_policies()]
    fitting = {p.name: p for p in shipped if p.needed_target.version <= trial.target.version}
    # 8-bit activations store weights as int8 does: a gain in speed, at the same size and no better accuracy.
    usable = {name: p for name, p in fitting.items() if p.precision is Precision.FLOAT16 and not p.activations}
    return usable | {
        o.name: o.everywhere(Precision.FLOAT16)
        for o in carried((*OPTIONS, *GROUPED), trial.target)
        if o.name not in usable
    }


def example(name: str) -> tuple[dict[str, float], dict[str, float]]:
    """Compare on one example; return ratios and figures."""
    from gate.policy import shipped_policies
    from gate.search import Ask, search, start_policy

    with tempfile.TemporaryDirectory() as folder, opened(ROOT / "examples" / name / "gate.yml", Path(folder)) as trial:
        started = time.process_time()
        found = search(trial, start_policy(trial.entry), Ask(SECONDS, tradeoff=False))
        seconds = time.process_time() - started
        bytes_, passes, used = certified(trial, found.policy)
        uniform = {policy: certified(trial, made) for policy, made in uniform_policies(trial).items()}
    print(f"\n{name}: {len(trial.bench.dataset):,} items certify, {len(trial.search_items):,} are searched")
    for policy, (size, ok, _) in sorted(uniform.items(), key=lambda row: row[1][0]):
        print(f"  {policy:<24}{size:>9,} B   {'certified' if ok else 'not certified'}")
    print(f"  {'searched':<24}{bytes_:>9,} B   {'certified' if passes else 'NOT CERTIFIED'}: {found.policy.summary}")
    best = min(size for size, ok, _ in uniform.values() if ok)
    shipped = min(size for policy, (size, ok, _) in uniform.items() if ok and policy in shipped_policies())
    if not passes:
        bytes_ = max(size for size, _, _ in uniform.values())  # what is not certified is worth nothing
    ratios = {name: round(bytes_ / shipped, 4), f"{name}_of_any_uniform": round(bytes_ / best, 4)}
    evaluations = sum(found.spent.values()) + used
    return ratios, {f"{name}_evaluations": evaluations, f"{name}_search_cpu_s": round(seconds, 1)}


def like_nncf(name: str) -> tuple[dict[str, float], dict[str, float]]:
    """Count the samples of a search and its certification; return ratios and figures."""
    import numpy as np

    from gate.search import Ask, search, start_policy

    broken, theirs = NNCF[name]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "model.py").write_text(NETWORK.format(broken=broken))
        (folder / "gate.yml").write_text(CONFIG)
        write_items(folder, np.random.default_rng(1))
        with opened(folder / "gate.yml", folder) as trial:
            found = search(trial, start_policy(trial.entry), Ask(SECONDS, options=("int8",), tradeoff=False))
            _, passes, used = certified(trial, found.policy)
            left = sum(option == "leave" for option in found.best.assignment.values()) if found.best else 14
            reference = len(trial.bench.dataset)
    ours = sum(found.spent.values()) + used + reference
    print(
        f"\n{name}: {left} of 14 layers left, {'certified' if passes else 'NOT CERTIFIED'}; evaluated {ours:,} samples "
        f"({dict(found.spent)}, certification {used} + {reference} of the reference), NNCF {theirs:,}"
    )
    return {f"fewer_{name}": round(theirs / ours, 2) if passes and left == broken else 0.0}, {f"samples_{name}": ours}


def write_items(folder: Path, random) -> None:
    """Write 1,000 items with the class that the network gives them."""
    import numpy as np
    import torch

    scope: dict = {}
    exec((folder / "model.py").read_text(), scope)  # our own text, above
    x = random.normal(size=(1_000, 1, 32)).astype(np.float32)
    x[:, :, 0] = 0.0
    with torch.no_grad():
        label = scope["build"]()(torch.from_numpy(x[:, 0])).argmax(1).numpy()
    np.savez(folder / "eval.npz", x=x, label=label, id=np.array([f"item-{i}" for i in range(1_000)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*EXAMPLES, *NNCF], default=[*EXAMPLES, *NNCF])
    arguments = parser.parse_args()
    ratios: dict[str, float] = {}
    figures: dict[str, float] = {}
    for name in arguments.only:
        more, counted = example(name) if name in EXAMPLES else like_nncf(name)
        ratios, figures = ratios | more, figures | counted
    machine = {"cores": os.cpu_count(), "system": platform.platform()}
    print(json.dumps({"benchmark": "search", "ratios": ratios, "figures": figures, "machine": machine}))


if __name__ == "__main__":
    main()
