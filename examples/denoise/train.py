# SPDX-License-Identifier: Apache-2.0
"""How was the model trained? On patches of one photo, with fresh noise in every step.

Everything is seeded and runs on one CPU thread, so a second run on the same machine writes the same bytes; another CPU may round
differently.

    python examples/denoise/train.py                     # about a minute; rewrites the committed file
    python examples/denoise/train.py --out /tmp/denoise  # leaves it alone
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from data import NOISE, TRAINING, items, patches
from model import Denoiser
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

SEED = 0
STEPS = 1000
BATCH = 32
LEARNING_RATE = 2e-3


def main() -> None:
    """Train, write, and print how much cleaner the patches of the other photo become."""
    options = _options()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    options.out.mkdir(parents=True, exist_ok=True)
    model = train(torch.from_numpy(patches(TRAINING, step=8)), steps=options.steps)
    save_file(model.state_dict(), options.out / "denoise.safetensors")
    before, after = quality(model)
    print(f"mean PSNR of the held-out patches: {before:.2f} dB noisy, {after:.2f} dB cleaned")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"training steps ({STEPS})")
    return parser.parse_args()


def train(clean: Tensor, *, steps: int) -> Denoiser:
    """Minimise the squared error; return the model in evaluation mode."""
    model, random = Denoiser().train(), torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in range(steps):
        batch = clean[torch.randint(len(clean), (BATCH,), generator=random)]
        noisy = batch + NOISE * torch.randn(batch.shape, generator=random)
        loss = functional.mse_loss(model(noisy), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def quality(model: Denoiser) -> tuple[float, float]:
    """Return the mean PSNR of the held-out patches, before and after."""
    pairs = [(torch.from_numpy(inputs["image"]), torch.from_numpy(clean)[None]) for inputs, clean in items()]
    noisy, clean = (torch.cat(side) for side in zip(*pairs, strict=True))
    return psnr(noisy, clean), psnr(model(noisy), clean)


def psnr(image: Tensor, clean: Tensor) -> float:
    """Return the mean peak signal-to-noise ratio of colours in 0..1, in dB."""
    errors = ((image - clean) ** 2).flatten(1).mean(1).numpy()
    return float(np.mean(-10 * np.log10(errors)))


if __name__ == "__main__":
    main()
