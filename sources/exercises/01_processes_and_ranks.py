# %% [markdown]
# # Exercises for lesson 01: processes and ranks
#
# Complete each function, run its cell, then run the check below it. The checks use real ranks, under both start
# methods where that matters.

# %%
import torch
import torch.distributed as dist

from course_lib.checks import lesson_01 as check

# %% [markdown]
# ## 1.1 · Find your place
#
# *Difficulty 1 of 5 · 5 minutes*
#
# A cluster has several machines (**nodes**) with equally many ranks each. Ranks are numbered through: with 4 ranks
# a node, node 0 has the ranks 0 to 3 and node 1 begins with rank 4. On which node does a rank live, and which
# number does it have there? (That second number, `LOCAL_RANK`, picks its GPU.)


# %%
def find_place(rank: int, ranks_per_node: int) -> tuple[int, int]:
    """Tell a rank's place in the cluster.

    Args:
        rank: The rank, from 0.
        ranks_per_node: How many ranks each node runs, at least 1.

    Returns:
        The number of the node, from 0, and the rank's number on that node, from 0.
    """
    # BEGIN SOLUTION
    return rank // ranks_per_node, rank % ranks_per_node
    # END SOLUTION


# %%
check.find_place(find_place)

# %% [markdown]
# ## 1.2 · Meet without help
#
# *Difficulty 3 of 5 · 15 minutes · goal: one rendezvous, one `all_reduce`, nothing left open*
#
# The check starts ranks whose environment holds none of the six variables. All they get is what is passed to
# the function. Let them meet at `tcp://127.0.0.1:port` (look up `init_method` in the documentation of
# [`init_process_group`](https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.init_process_group)),
# add up `value` over all ranks with Gloo, and leave the group again.


# %%
def meet_and_add(rank: int, world_size: int, port: int, value: float) -> float:
    """Join the group by hand, add a number over all ranks, leave the group.

    Args:
        rank: This process's number.
        world_size: How many processes will come.
        port: Where rank 0 can listen, on 127.0.0.1.
        value: This rank's number.

    Returns:
        The sum of all ranks' values: the same plain float on every rank.
    """
    # BEGIN SOLUTION
    dist.init_process_group(
        backend="gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=world_size,
    )
    total = torch.tensor([value])
    dist.all_reduce(total)
    dist.destroy_process_group()
    return total.item()
    # END SOLUTION


# %%
check.meet_and_add(meet_and_add)

# %% [markdown]
# ## 1.3 · The same under every launcher
#
# *Difficulty 2 of 5 · 10 minutes · goal: bit for bit the same under `spawn` and `forkserver`*
#
# Each rank draws 1,000 random numbers, and all of them are to be averaged over all ranks. The result must depend on
# `seed` and on the world size, on nothing else: not on the start method, the time, or what ran before. Rank `r`
# is to draw from a generator of its own, `torch.Generator().manual_seed(seed + r)`. The group is joined already when
# your function runs.


# %%
def mean_of_noise(seed: int) -> float:
    """Average random numbers over all ranks. Called inside a process group.

    Args:
        seed: Rank r draws `torch.randn(1000, …)` with a generator seeded `seed + r`.

    Returns:
        The mean over all numbers of all ranks, the same on every rank.
    """
    # BEGIN SOLUTION
    generator = torch.Generator().manual_seed(seed + dist.get_rank())
    total = torch.randn(1000, generator=generator).sum()
    dist.all_reduce(total)
    return total.item() / (1000 * dist.get_world_size())
    # END SOLUTION


# %%
check.mean_of_noise(mean_of_noise)

# %% [markdown] tags=["solution"]
# A generator of one's own is the point: `torch.manual_seed` would do as well here, but it changes the state that
# every later random number of the process comes from. And seeding all ranks alike would give each the same
# numbers: the mean would be that of 1,000 numbers, not of 1,000 a rank.
