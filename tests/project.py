# SPDX-License-Identifier: Apache-2.0
"""A throw-away repository of a team: files, gate.yml, and one model entry opened as a source."""

from contextlib import AbstractContextManager
from pathlib import Path
from textwrap import dedent

from gate import config
from gate.source import Source, open_source

TINY = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return torch.relu(self.fc(x))

class Net(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.layers = nn.ModuleList([Block() for _ in range(depth)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return torch.softmax(x, -1)

def build(depth=2):
    torch.manual_seed(1)
    return Net(depth)

def example():
    return (torch.randn(1, 4),)
"""


class Project:
    """The team's folder; `write` adds files, `open` opens its only model entry."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        self.out = folder / "out"
        self.folder.mkdir()

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))

    def config(self, entry: str) -> config.Config:
        body = "\n".join(f"    {line}" for line in dedent(entry).strip().splitlines())
        self.write("gate.yml", f"version: 1\nmodels:\n  - name: tiny\n{body}\n")
        return config.load(self.folder / "gate.yml")

    def open(
        self, entry: str, *, seconds: float = 60, memory: int = 8 * 10**9, hidden: tuple[Path, ...] = ()
    ) -> AbstractContextManager[Source]:
        loaded = self.config(entry)
        return open_source(
            loaded.models[0], loaded, workdir=self.out, time_limit=seconds, memory_limit=memory, hidden=hidden
        )
