# SPDX-License-Identifier: Apache-2.0
"""What does the app ship? A small convolutional denoiser of colour photos, 38,659 parameters."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

CHANNELS = 32
SIDE = 24  # pixels of an item


class Denoiser(nn.Module):
    """Six 3×3 convolutions that predict the noise: (n, 3, h, w) colours in 0..1 to the same, cleaned."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, CHANNELS, 3, padding=1), nn.ReLU()]
        for _ in range(4):
            layers += [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU()]
        self.noise = nn.Sequential(*layers, nn.Conv2d(CHANNELS, 3, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        return image - self.noise(image)


def build(weights: str = "denoise.safetensors") -> Denoiser:
    """Return the trained model; `weights` is a file beside this one."""
    model = Denoiser()
    model.load_state_dict(load_file(Path(__file__).with_name(weights)))
    return model.eval()


def example() -> dict[str, Tensor]:
    """Return one input of the shape and range that the app sends: a colour ramp."""
    return {"image": torch.linspace(0, 1, 3 * SIDE * SIDE).reshape(1, 3, SIDE, SIDE)}
