# SPDX-License-Identifier: Apache-2.0
"""What is it judged on? 442 patches of the photo of a flower that comes with scikit-learn, with noise; training saw the other photo."""

from collections.abc import Iterator

import numpy as np
from sklearn.datasets import load_sample_image

SIDE = 24
NOISE = 25 / 255  # standard deviation, of colours in 0..1
TEST, TRAINING = "flower.jpg", "china.jpg"


def patches(photo: str, step: int = SIDE) -> np.ndarray:
    """Return (n, 3, SIDE, SIDE) colours in 0..1, from the top left, row by row."""
    image = (load_sample_image(photo) / np.float32(255)).transpose(2, 0, 1)
    rows, columns = (range(0, size - SIDE + 1, step) for size in image.shape[1:])
    return np.stack([image[:, y : y + SIDE, x : x + SIDE] for y in rows for x in columns]).astype(np.float32)


def items() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Yield each noisy patch as the model's input, (1, 3, SIDE, SIDE), with the clean one as its label."""
    random = np.random.default_rng(0)
    for clean in patches(TEST):
        noisy = clean + random.normal(0, NOISE, clean.shape)
        yield {"image": noisy.astype(np.float32)[None]}, clean
