# SPDX-License-Identifier: Apache-2.0
"""What does the app ship? A small convolutional classifier of 8×8 grey digits, 65,450 parameters."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

CHANNELS = (32, 48, 48, 64)


class Digits(nn.Module):
    """Four 3×3 convolutions with batch norm and a linear head: (n, 1, 8, 8) grey values in 0..1 to (n, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third, fourth = CHANNELS
        self.features = nn.Sequential(
            *_block(1, first),
            *_block(first, second),
            nn.MaxPool2d(2),
            *_block(second, third),
            *_block(third, fourth),
            nn.MaxPool2d(2),
        )
        self.head = nn.Linear(fourth * 2 * 2, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image).flatten(1))


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def build(weights: str = "digits.safetensors") -> Digits:
    """Return the trained model; `weights` is a file beside this one."""
    model = Digits()
    model.load_state_dict(load_file(Path(__file__).with_name(weights)))
    return model.eval()


def example() -> dict[str, Tensor]:
    """Return one input of the shape and range that the app sends: a grey ramp."""
    return {"image": torch.linspace(0, 1, 64).reshape(1, 1, 8, 8)}
