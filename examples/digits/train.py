# SPDX-License-Identifier: Apache-2.0
"""How was the model trained? On 1,437 real digits, pruning 70 % of the weights on the way.

Writes the weights, the held-out items and the calibration items. Everything is seeded and runs on one CPU thread, so
a second run on the same machine writes the same bytes; another CPU may round differently and end a digit apart.

    python examples/digits/train.py                    # about half a minute; rewrites the committed files
    python examples/digits/train.py --out /tmp/digits  # leaves them alone
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from model import Digits
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

SEED = 0
HELD_OUT = 360
CALIBRATION = 128
EPOCHS = 60
BATCH = 64
LEARNING_RATE = 3e-3
SPARSITY = 0.7
PRUNE_FROM, PRUNE_TO = 0.2, 0.7  # parts of the training between which the sparsity rises


def main() -> None:
    """Train, write, and print the held-out accuracy."""
    options = _options()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    options.out.mkdir(parents=True, exist_ok=True)
    images, labels = digits()
    model = train(images[:-HELD_OUT], labels[:-HELD_OUT], epochs=options.epochs)
    save_file(model.state_dict(), options.out / "digits.safetensors")
    write_splits(options.out, images, labels)
    right = correct(model, images[-HELD_OUT:], labels[-HELD_OUT:])
    print(f"held out: {right} of {HELD_OUT} right, accuracy {right / HELD_OUT:.4f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"passes over the training digits ({EPOCHS})")
    return parser.parse_args()


def digits() -> tuple[Tensor, Tensor]:
    """Return (1797, 1, 8, 8) grey values in 0..1 and their labels, in scikit-learn's order."""
    data = load_digits()
    return torch.tensor(data.images / 16, dtype=torch.float32)[:, None], torch.tensor(data.target)


def train(images: Tensor, labels: Tensor, *, epochs: int) -> Digits:
    """Train with shifted digits and rising sparsity; return the model in evaluation mode."""
    model = Digits().train()
    steps = math.ceil(len(images) / BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * steps)
    random = torch.Generator().manual_seed(SEED)
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    for epoch in range(epochs):
        masks = [magnitude_mask(weight, sparsity_at(epoch / epochs)) for weight in weights]
        for rows in torch.randperm(len(images), generator=random).split(BATCH):
            loss = functional.cross_entropy(model(shifted(images[rows], random)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            apply_masks(weights, masks)
    return model.eval()


def sparsity_at(progress: float) -> float:
    """Return the target sparsity: Zhu & Gupta's cubic ramp (arXiv:1710.01878, equation 1)."""
    ramp = min(1.0, max(0.0, (progress - PRUNE_FROM) / (PRUNE_TO - PRUNE_FROM)))
    return SPARSITY * (1 - (1 - ramp) ** 3)


def magnitude_mask(weight: Tensor, sparsity: float) -> Tensor:
    """Return 0 for the smallest `sparsity` of the weights, 1 for the others."""
    zeros = math.ceil(sparsity * weight.numel())
    if zeros == 0:
        return torch.ones_like(weight)
    threshold = weight.detach().abs().flatten().kthvalue(zeros).values
    return (weight.detach().abs() > threshold).to(weight.dtype)


@torch.no_grad()
def apply_masks(weights: list[nn.Parameter], masks: list[Tensor]) -> None:
    """Set pruned weights to zero."""
    for weight, mask in zip(weights, masks, strict=True):
        weight.mul_(mask)


def shifted(images: Tensor, random: torch.Generator) -> Tensor:
    """Return the batch moved by up to one pixel in each direction, zeros moving in."""
    down, right = torch.randint(3, (2,), generator=random).tolist()
    return functional.pad(images, (1, 1, 1, 1))[:, :, down : down + 8, right : right + 8]


@torch.no_grad()
def correct(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Count the items whose largest logit is their label."""
    return int((model(images).argmax(1) == labels).sum())


def write_splits(folder: Path, images: Tensor, labels: Tensor) -> None:
    """Write eval.npz, the last 360 items in scikit-learn's order, and calibration.npz, 128 drawn from the others."""
    training = len(images) - HELD_OUT
    chosen = np.random.default_rng(SEED).permutation(training)[:CALIBRATION]
    _write_items(folder / "calibration.npz", np.sort(chosen), images, labels)
    _write_items(folder / "eval.npz", np.arange(training, len(images)), images, labels)


def _write_items(path: Path, rows: np.ndarray, images: Tensor, labels: Tensor) -> None:
    ids = np.array([f"digit-{row:04d}" for row in rows])
    np.savez_compressed(path, image=images.numpy()[rows], label=labels.numpy()[rows], id=ids)


if __name__ == "__main__":
    main()
