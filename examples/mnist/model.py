# SPDX-License-Identifier: Apache-2.0
"""What does the app ship? The trained digit classifier of digit-recognizer-py 0.1.0, 390,410 parameters.

The weights stay in its wheel; the network is written anew from the shapes and names in them.
"""

import torch
from torch import Tensor, nn
from wheels import installed_file


class Recognizer(nn.Module):
    """Three convolutions and two linear layers: (n, 1, 28, 28) normalised grey values to (n, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_layers = nn.Sequential(*_block(1, 32), *_block(32, 64), *_block(64, 128))
        self.fc_layers = nn.Sequential(nn.Linear(128 * 3 * 3, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, image: Tensor) -> Tensor:
        return self.fc_layers(self.conv_layers(image).flatten(1))


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)


def build() -> Recognizer:
    """Return the trained model."""
    path = installed_file("digit-recognizer-py", "0.1.0", "digit_recognizer/models/handwriting_model.pth")
    model = Recognizer()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()


def example() -> dict[str, Tensor]:
    """Return one input of the shape and range that the app sends: a grey ramp, normalised as in data.py."""
    return {"image": torch.linspace(-0.42, 2.82, 28 * 28).reshape(1, 1, 28, 28)}
