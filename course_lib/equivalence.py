"""Proof that N ranks learn what one process learns."""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch

Run = tuple[Sequence[float], Mapping[str, torch.Tensor]]


def equivalence_table(runs: Mapping[int, Run], tolerance: float = 1e-5) -> pd.DataFrame:
    """Compare runs from the same weights and the same global batches on 1 and on N ranks.

    Args:
        runs: World size → ``(losses, weights)``: the global loss of each of the first steps, and
            the ``state_dict`` after them. World size 1 must be among them.
        tolerance: How far the losses may be apart: 1e-5 for float32, 1e-12 for float64. (Rounding
            grows with the steps, so compare about 20 of them.)

    Returns:
        One row for each N: the largest absolute difference of the losses and of the weights.

    Raises:
        ValueError: There is no run with 1 rank, or the runs differ in their number of steps.
        AssertionError: Losses are further apart than ``tolerance``, or not numbers; the text names
            the world size and the step.
    """
    if 1 not in runs or len(runs) < 2:
        raise ValueError(f"runs on {sorted(runs)} ranks: 1 and at least one other are needed")
    losses, weights = runs[1]
    rows = {}
    for n, (other_losses, other_weights) in sorted(runs.items()):
        if n == 1:
            continue
        if len(other_losses) != len(losses) or not losses:
            raise ValueError(f"{len(losses)} losses on 1 rank, {len(other_losses)} on {n} ranks")
        apart = [abs(a - b) for a, b in zip(losses, other_losses, strict=True)]
        for step, difference in enumerate(apart, 1):
            assert difference <= tolerance, (
                f"1 and {n} ranks do not learn the same: in step {step} their losses are "
                f"{difference:.2g} apart, more than {tolerance:.0e}"
            )
        rows[f"1 against {n} ranks"] = {
            "largest difference of losses": max(apart),
            "largest difference of weights": _largest_difference(weights, other_weights),
        }
    return pd.DataFrame(rows).T


def _largest_difference(
    weights: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]
) -> float:
    if weights.keys() != others.keys():
        raise ValueError(f"the models differ in {sorted(weights.keys() ^ others.keys())}")
    # torch's maximum, unlike Python's, does not lose a NaN
    return (
        torch.stack([(weights[n] - others[n]).abs().max().double() for n in weights]).max().item()
    )
