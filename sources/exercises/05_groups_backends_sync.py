# %% [markdown]
# # Exercises for lesson 05: groups, backends and waiting for each other
#
# Complete each function, run its cell, then run the check below it. The checks call your functions on 2, 3, 4 and 6 ranks, look at
# the result, and at which ranks met, and when.

# %%
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from course_lib import launch, process_group
from course_lib.checks import lesson_05 as check

# %% [markdown]
# ## 5.1 · Along the row, down the column
#
# *Difficulty 3 of 5 · 20 minutes · goal: two collectives a rank, one in its row and one in its column*
#
# The ranks stand in a grid, numbered row by row: with 2 rows and 3 columns, ranks 0, 1, 2 are the first row, and 0 and 3 the
# first column. Every rank has numbers, and wants two sums: that of its row and that of its column. Make the groups with
# `new_group` (or a mesh, if you like). Who has to call it, and for which groups?


# %%
def grid_sums(numbers: torch.Tensor, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum over this rank's row and over its column. Called on all rows · columns ranks.

    Args:
        numbers: This rank's numbers, the same shape and type everywhere. They must not be changed.
        rows: Rows of the grid.
        columns: Columns of the grid. Rank r stands in row r // columns, column r % columns.

    Returns:
        The sum over the ranks of this rank's row, and the sum over those of its column.
    """
    # BEGIN SOLUTION
    rank = dist.get_rank()
    in_row = [[r * columns + c for c in range(columns)] for r in range(rows)]
    in_column = [[r * columns + c for r in range(rows)] for c in range(columns)]
    row_groups = [dist.new_group(ranks) for ranks in in_row]
    column_groups = [dist.new_group(ranks) for ranks in in_column]
    row_sum, column_sum = numbers.clone(), numbers.clone()
    dist.all_reduce(row_sum, group=row_groups[rank // columns])
    dist.all_reduce(column_sum, group=column_groups[rank % columns])
    return row_sum, column_sum
    # END SOLUTION


# %%
check.grid_sums(grid_sums)

# %% [markdown] tags=["solution"]
# All ranks make all groups, those of the others too, in one order. In a program the groups would be made once, at the start, not
# at every sum: making one takes a round of introductions. And each sum starts from a copy of the numbers: the second one would
# otherwise add up row sums, and everybody would hold the total.

# %% [markdown]
# ## 5.2 · Find the missing wait
#
# *Difficulty 2 of 5 · 10 minutes · goal: both sums on their way before `prepare()` runs, and both waited for after it*
#
# A training step averages two gradients over the ranks, and prepares the next batch meanwhile. It looks well, and there is no
# error. Run it with a large first gradient and look at both averages, which should be 1.5:


# %%
def average_wrongly(first, second, prepare):
    for gradient in (first, second):
        work = dist.all_reduce(gradient, async_op=True)
    batch = prepare()
    work.wait()
    ranks = dist.get_world_size()
    return first / ranks, second / ranks, batch


def two_gradients():
    with process_group() as pg:
        first, second = torch.full((8_000_000,), pg.rank + 1.0), torch.full((4,), pg.rank + 1.0)
        dist.barrier()
        first, second, _ = average_wrongly(first, second, prepare=lambda: "next batch")
        dist.barrier()
        right = (100 * (first == 1.5).float().mean()).item()
        return f"first: {right:.0f} % right, second: {second[0].item()}"


launch(two_gradients, nprocs=2, device="cpu")

# %% [markdown]
# How much is wrong may change from run to run: that is what makes such a bug hard to find. Mend it. Two calls that wait at once
# would be right as well, and would have nothing left to hide behind `prepare()`; so keep both all_reduces asynchronous, and offer
# both before you wait for either.


# %%
def average_both(
    first: torch.Tensor, second: torch.Tensor, prepare: Callable[[], Any]
) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Average two gradients over the ranks, preparing the next batch meanwhile. On all ranks.

    Args:
        first: A gradient of this rank, of float32, the same shape everywhere. It may be changed.
        second: Another one, of another shape perhaps.
        prepare: Makes the next batch, without any communication. To be called once.

    Returns:
        The averages of the first and of the second gradient over all ranks, and what prepare()
        returned.
    """
    # BEGIN SOLUTION
    works = [dist.all_reduce(gradient, async_op=True) for gradient in (first, second)]
    batch = prepare()
    for work in works:
        work.wait()
    ranks = dist.get_world_size()
    return first / ranks, second / ranks, batch
    # END SOLUTION


# %%
check.average_both(average_both)

# %% [markdown] tags=["solution"]
# The loop gave both handles the same name, so the first was lost: nobody waited for the large gradient, and the small one was
# through long before it. Keep handles in a list, and wait for all of it.

# %% [markdown]
# ## 5.3 · Save once
#
# *Difficulty 3 of 5 · 20 minutes · goal: nobody reads too early, nobody waits for ever*
#
# One rank saves a file for all: the best weights, a cleaned table. All read it then. Three things go wrong in real programs. A rank
# reads before the file is there, or whole. Rank 0 goes on and overwrites it while another still reads. And the disk is full:
# rank 0 raises an error, and all others wait in a barrier for a rank that never comes.


# %%
def save_once(save: Callable[[], None], load: Callable[[], Any]) -> Any:
    """Save on rank 0, then load on every rank. Called on all ranks.

    Args:
        save: Writes the file. To be called on rank 0 only, once. It may raise an OSError.
        load: Reads the file and returns what is in it. To be called once on each rank, after save
            has ended. When any rank returns from here, all must have finished loading.

    Returns:
        What load returned on this rank.

    Raises:
        RuntimeError: On every rank, if save raised an error on rank 0; its text contains that of
            the error. Nobody loads then.
    """
    # BEGIN SOLUTION
    problem = [None]
    if dist.get_rank() == 0:
        try:
            save()
        except OSError as error:
            problem = [str(error)]
    dist.broadcast_object_list(problem, src=0)
    if problem[0] is not None:
        raise RuntimeError(f"rank 0 could not save: {problem[0]}")
    loaded = load()
    dist.barrier()
    return loaded
    # END SOLUTION


# %%
check.save_once(save_once)

# %% [markdown] tags=["solution"]
# The broadcast is two things in one: the barrier between writing and reading, since nobody gets through before rank 0 has come, and the
# news of how it went. Whenever one rank may fail where others wait, let it come to the meeting point all the same, and say so there.
