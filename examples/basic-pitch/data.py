# SPDX-License-Identifier: Apache-2.0
"""What is it judged on? 24 synthesized notes and chords, two seconds each, without labels: agreement with the twin decides.

Synthesized, because the wheel carries no audio and recordings have owners. Each tone has six harmonics and a decay, so
that onset, note and contour outputs all have something to say.
"""

from collections.abc import Iterator

import numpy as np

SAMPLE_RATE = 22_050
SAMPLES = 43_844  # two seconds less one hop of 256: the window of the model
HARMONICS = 6
NOTES = range(40, 88, 3)  # 16 single notes as MIDI numbers, 69 being A4 at 440 Hz
CHORDS = tuple((root, root + third, root + 7) for root in (48, 55, 60, 65) for third in (3, 4))
NOISE = 1e-3


def items() -> Iterator[tuple[dict[str, np.ndarray], None]]:
    """Yield each window as the model's input, (1, 43844, 1), amplitude below 1."""
    random = np.random.default_rng(0)
    for pitches in [*((note,) for note in NOTES), *CHORDS]:
        yield {"input_2": window(pitches, random)}, None


def items_with_silence() -> Iterator[tuple[dict[str, np.ndarray], None]]:
    """Yield the same and one silent window, on which the package answers NaN and its twin does not (README.md)."""
    yield from items()
    yield {"input_2": np.zeros((1, SAMPLES, 1), np.float32)}, None


def window(pitches: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Return the notes struck together at a random time in the first half second."""
    time = np.arange(SAMPLES) / SAMPLE_RATE - random.uniform(0, 0.5)
    sound = np.where(time < 0, 0, sum(tone(pitch, time) for pitch in pitches))
    sound = 0.5 * sound / np.abs(sound).max() + NOISE * random.standard_normal(SAMPLES)
    return sound.astype(np.float32).reshape(1, SAMPLES, 1)


def tone(pitch: int, time: np.ndarray) -> np.ndarray:
    """Return a decaying harmonic tone of a MIDI pitch."""
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    harmonics = range(1, HARMONICS + 1)
    return np.exp(-1.5 * np.maximum(time, 0)) * sum(np.sin(2 * np.pi * k * frequency * time) / k**2 for k in harmonics)
