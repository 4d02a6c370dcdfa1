# SPDX-License-Identifier: Apache-2.0
"""What does the app ship? A small U-shaped denoiser of colour photos, 95,555 parameters."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

FINE, MIDDLE, COARSE = 16, 32, 64  # channels at full, half and quarter resolution
SIDE = 24  # pixels of an item


class Denoiser(nn.Module):
    """3×3 convolutions at three resolutions that predict the noise: (n, 3, h, w) colours in 0..1 to the same, cleaned."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, FINE, 3, padding=1)
        self.down = nn.Conv2d(FINE, MIDDLE, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(MIDDLE, COARSE, 3, stride=2, padding=1)
        self.bottom = nn.Conv2d(COARSE, COARSE, 3, padding=1)
        self.rise = nn.Conv2d(COARSE + MIDDLE, MIDDLE, 3, padding=1)
        self.surface = nn.Conv2d(MIDDLE + FINE, FINE, 3, padding=1)
        self.leave = nn.Conv2d(FINE, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        fine = torch.relu(self.enter(image))
        middle = torch.relu(self.down(fine))
        coarse = torch.relu(self.bottom(torch.relu(self.deep(middle))))
        middle = torch.relu(self.rise(torch.cat([_doubled(coarse), middle], 1)))
        fine = torch.relu(self.surface(torch.cat([_doubled(middle), fine], 1)))
        return image - self.leave(fine)


def _doubled(image: Tensor) -> Tensor:
    return functional.interpolate(image, scale_factor=2.0, mode="nearest")


def build(weights: str = "denoise.safetensors") -> Denoiser:
    """Return the trained model; `weights` is a file beside this one."""
    model = Denoiser()
    model.load_state_dict(load_file(Path(__file__).with_name(weights)))
    return model.eval()


def example() -> dict[str, Tensor]:
    """Return one input of the shape and range that the app sends: a colour ramp."""
    return {"image": torch.linspace(0, 1, 3 * SIDE * SIDE).reshape(1, 3, SIDE, SIDE)}
