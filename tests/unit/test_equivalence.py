"""The table that proves N ranks equal to one: right numbers when equal, an error when not."""

import math

import pytest
import torch

from course_lib.equivalence import equivalence_table


def run(*losses: float, weight: float = 1.0, bias: float = 0.0):
    return list(losses), {"weight": torch.full((2, 3), weight), "bias": torch.tensor([bias, 0.0])}


def test_one_row_a_world_size_with_the_largest_differences():
    one = run(0.5, 0.25, 0.125)
    table = equivalence_table(
        {
            4: run(0.5, 0.25 - 2**-18, 0.125 + 2**-19, bias=-(2**-12)),
            1: one,
            2: run(0.5, 0.25, 0.125 + 2**-20, weight=1 + 2**-10, bias=2**-11),
        }
    )
    assert list(table.index) == ["1 against 2 ranks", "1 against 4 ranks"]
    assert table["largest difference of losses"].tolist() == [2**-20, 2**-18]
    assert table["largest difference of weights"].tolist() == [2**-10, 2**-12]


@pytest.mark.parametrize(
    ("other", "step"),
    [
        (run(0.5, 0.25, 0.1251), 3),
        (run(0.4999, 0.25, 0.1251), 1),  # the first step that differs is named
        (run(0.5, math.nan, 0.125), 2),
        (run(0.5, math.inf, 0.125), 2),
    ],
)
def test_losses_that_are_apart_name_the_ranks_and_the_step(other, step):
    runs = {1: run(0.5, 0.25, 0.125), 2: run(0.5, 0.25, 0.125), 3: other}
    with pytest.raises(
        AssertionError, match=f"1 and 3 ranks do not learn the same: in step {step} "
    ):
        equivalence_table(runs)


def test_the_tolerance_counts():
    runs = {1: run(0.5), 2: run(0.5 + 2**-20)}
    equivalence_table(runs, tolerance=2**-20)
    with pytest.raises(AssertionError, match="more than 1e-12"):
        equivalence_table(runs, tolerance=1e-12)


@pytest.mark.parametrize(
    "worlds", [[], [1], [2, 4]], ids=["none", "nothing-to-compare", "no-single-process"]
)
def test_one_process_and_another_are_needed(worlds):
    with pytest.raises(ValueError, match="1 and at least one other are needed"):
        equivalence_table({n: run(0.5) for n in worlds})


@pytest.mark.parametrize(
    ("one", "two"), [(run(0.5, 0.4), run(0.5)), (run(0.5), run(0.5, 0.4)), (run(), run())]
)
def test_runs_of_unequal_or_no_steps(one, two):
    with pytest.raises(ValueError, match=rf"{len(one[0])} losses on 1 rank, {len(two[0])} on 2"):
        equivalence_table({1: one, 2: two})
