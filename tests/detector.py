# SPDX-License-Identifier: Apache-2.0
"""A torch model of the shape that Apple's demo compresses: a detector with a ResNet-18 backbone (WWDC23, session 10047).

The session prints 23 MB, 9 MB and 3 MB for float16, 6 and 2 bits. The head is ours: one 3x3 convolution to boxes and classes of
six anchors, wide enough for 23.6 MB. Values are random: sizes follow from the shape alone.
"""

import torch
from torch import Tensor, nn

ANCHORS, CLASSES = 6, 18  # (4 box values + 18 classes) x 6 anchors = 132 outputs at each place


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if stride > 1
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Detector(nn.Module):
    """ResNet-18 without its classifier, and a head that says boxes and classes at each place of the last map."""

    def __init__(self) -> None:
        super().__init__()
        stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        blocks = [
            BasicBlock(max(64, width // 2) if not index else width, width, 2 if width > 64 and not index else 1)
            for width in (64, 128, 256, 512)
            for index in range(2)
        ]
        self.backbone = nn.Sequential(*stem, *blocks)
        self.head = nn.Conv2d(512, ANCHORS * (4 + CLASSES), 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def detector(seed: int = 0) -> Detector:
    """Build it in evaluation mode."""
    torch.manual_seed(seed)
    return Detector().eval()
