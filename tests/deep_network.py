# SPDX-License-Identifier: Apache-2.0
"""A network of 300 operations in which one can be made to overflow in float16: tanh(linear(x)) scaled up and down again, a hundred times."""

from pathlib import Path

import torch
from torch import Tensor, nn

BLOCKS = 100
WIDTH = 16


class Block(nn.Module):
    """A linear layer, a tanh, and a gain."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x)) * 1.5


class Faulty(Block):
    """The same function; the scores on the way are beyond float16."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.linear(x))
        scores = y * 2.0e5  # the seeded fault
        return torch.tanh(scores) * 1.5e-5 + y * 1.5 + torch.log(scores.abs() + 1.0) * 0.1


FAULT_LINE = 1 + Path(__file__).read_text(encoding="utf-8").splitlines().index(
    "        scores = y * 2.0e5  # the seeded fault"
)


def build(fault: int = -1) -> nn.Sequential:
    """Build the network with the fault in one block; -1: none."""
    torch.manual_seed(0)
    return nn.Sequential(*(Faulty() if index == fault else Block() for index in range(BLOCKS))).eval()


def example() -> tuple[Tensor, ...]:
    """Make an input."""
    torch.manual_seed(1)
    return (torch.randn(1, WIDTH),)
