# SPDX-License-Identifier: Apache-2.0
"""The path of assignments, against all assignments tried one by one."""

from itertools import product

import numpy as np
import pytest

from gate.search.assignment import Point, after, front, hull, moves


def weights(seed: int) -> dict[str, list[Point]]:
    random = np.random.default_rng(seed)
    return {
        name: [Point("leave", 1000, 0.0)]
        + [Point(f"o{i}", int(random.integers(50, 900)), float(random.exponential())) for i in range(4)]
        for name in "abc"
    }


def figures(points: dict[str, list[Point]], assignment: dict[str, str]) -> tuple[int, float]:
    chosen = [next(p for p in points[name] if p.option == option) for name, option in assignment.items()]
    return sum(p.bytes for p in chosen), sum(p.loss for p in chosen)


def test_a_hull_leaves_out_what_no_price_chooses():
    leave, good, inside, dominated = (
        Point("leave", 100, 0.0), Point("good", 50, 1.0), Point("inside", 40, 3.0), Point("dominated", 60, 2.0),
    )  # fmt: skip
    small = Point("small", 20, 4.0)
    assert hull([inside, small, dominated, leave, good]) == (leave, good, small)


def test_a_smaller_option_without_more_loss_replaces_a_larger_one():
    assert hull([Point("leave", 100, 0.0), Point("free", 60, 0.0)]) == (Point("free", 60, 0.0),)


@pytest.mark.parametrize("seed", range(20))
def test_every_assignment_of_the_path_is_best_for_its_size(seed):
    points = weights(seed)
    start, steps = moves(points)
    every = [dict(zip(points, (p.option for p in chosen), strict=True)) for chosen in product(*points.values())]
    for length in range(len(steps) + 1):
        bytes_, loss = figures(points, after(start, steps[:length]))
        assert min(
            figures(points, other)[1] for other in every if figures(points, other)[0] <= bytes_
        ) == pytest.approx(loss)


def test_the_path_ends_where_every_weight_is_smallest():
    points = weights(3)
    start, steps = moves(points)
    smallest = {name: min(options, key=lambda p: p.bytes).option for name, options in points.items()}
    assert after(start, steps) == smallest


def test_the_front_holds_what_nothing_beats():
    assert front([(5, 0.0), (3, 1.0), (4, 1.0), (2, 4.0), (6, 0.0)]) == (3, 1, 0)
