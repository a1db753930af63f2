# %% [markdown]
# # Exercises for lesson 53: several nodes
#
# Complete each function, run its cell, then run the check below it. The first check really starts two agents, and needs about ten seconds for it.

# %%
from torch.distributed.run import get_args_parser

from course_lib.checks import lesson_53 as check

# %% [markdown]
# ## 53.1 · Complete the launch of node 1
#
# *Difficulty 2 of 5 · 15 minutes · goal: all nodes meet, and their ranks count from 0 to the world size − 1*
#
# On node 0 somebody has typed, for instance:
#
# ```sh
# torchrun --nnodes=2 --nproc-per-node=4 --node-rank=0 --master-addr=10.0.0.1 --master-port=29500 train.py --epochs=3
# ```
#
# Now you sit at node 1, whose own address is 10.0.0.2. **Which of these words do you type as they are, which one must differ, and which of them would differ if a node's address meant its own?** The other way to meet is `--rdzv-backend=c10d`, with an `--rdzv-endpoint` and an `--rdzv-id`: **what differs there?**
#
# Write a function that does it for any node and any such command. The words come as a list, as a program would start them (`["torchrun", "--nnodes=2", …]`). A flag and its value may be one word or two, `--node-rank` or `--node_rank`; of a flag that is there twice torchrun takes the last. What belongs to the program stands behind it, and begins where torchrun stops to read.
# You may ask torchrun's own parser where that is: `get_args_parser().parse_args(command[1:])` has `training_script` and the list `training_script_args`. It is not necessary.


# %%
def launch_of(node: int, command: list[str], address: str) -> list[str]:
    """Return what is typed on another node of a job.

    Args:
        node: The number of that node: 1 or more.
        command: The words that node 0 was started with, by the static rendezvous or by c10d.
            They name node 0's address where all meet. They need not name node 0's number, since
            it is 0 where none is named. The list must not be changed.
        address: That node's own address.

    Returns:
        The words for that node, a new list or the same. All nodes meet in one place, and have the
        same number of ranks, program and flags. Where node 0 names an address of its own for the
        others to find it (``--local-addr``), that node names ``address``.
    """
    # BEGIN SOLUTION
    theirs = get_args_parser().parse_args(command[1:])
    program = len(command) - len(theirs.training_script_args) - 1  # where the program stands
    own = [f"--node-rank={node}", f"--local-addr={address}"]
    return [*command[:program], *own, *command[program:]]
    # END SOLUTION


# %%
check.launch_of(launch_of)

# %% [markdown] tags=["solution"]
# One word differs in a static launch, the number of the node. With c10d not even that: the agents agree on the numbers when they have met, and `--node-rank` is read by nobody (torchrun says so in a warning). That is why Slurm can start the same words on every node.
#
# The address of the meeting is node 0's on all nodes, and never one's own; `127.0.0.1` is one's own on every machine. A node's own address has a flag to itself, `--local-addr`. It matters where a machine has several, or a name that the others do not know: rank 0's node gives it to the others, and c10d numbers the nodes in the order of their addresses.

# %% [markdown]
# ## 53.2 · Read an sbatch file
#
# *Difficulty 2 of 5 · 15 minutes · goal: one agent on each of 3 nodes, 12 ranks that meet, each with a GPU and 6 cores, for 10 hours*
#
# Somebody's job is to run `train.py --epochs=90` on 3 nodes with 4 GPUs each, with a rank a GPU, 6 cores a rank, for at most 10 hours. At first Slurm started every rank by itself. Later torchrun came in, and then some quotes.


# %%
JOB = r"""#!/bin/bash
#SBATCH --job-name=train
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=6
#SBATCH --output=train.out
set -euo pipefail
#SBATCH --time=10:00:00

srun bash -c 'torchrun --nnodes=4 --nproc-per-node=4 --rdzv-backend=c10d \
    --rdzv-id=$RANDOM --rdzv-endpoint=$(hostname):29500 train.py --epochs=90'
"""

# %% [markdown]
# Read it line by line before you change any. **How many agents does it start, and how many ranks? How many nodes does each agent wait for, and where? How long may it run?** Every one of these costs a night: the job starts, holds twelve GPUs, and nothing happens.
#
# Then return the text of a file that does what was wanted. It should run whatever three nodes Slurm gives. The check needs no Slurm: it reads the `#SBATCH` lines, and runs the file with stand-ins for `srun`, `scontrol`, `hostname` and `torchrun`, to see which words each node is given.


# %%
def mended_job() -> str:
    """Return the text of a batch file that runs the program on all nodes.

    Slurm is asked for 3 nodes, for 10 hours, and for what the ranks need. One agent is started on
    each node, with 4 ranks; a task of srun has as many GPUs and cores as its agent's ranks need.
    (Since Slurm 22.05 srun does not take ``--cpus-per-task`` over from the job, and has to be told
    again.) All agents meet on the first node of the job. What two jobs write goes into different
    files. If the agents fail, the job fails.
    """
    # BEGIN SOLUTION
    mends = {
        "--ntasks-per-node=4": "--ntasks-per-node=1",  # a task a node: its agent
        "--gpus-per-task=1": "--gpus-per-task=4",  # for all ranks of the agent
        "--cpus-per-task=6": "--cpus-per-task=24",
        "--output=train.out": "--output=%x-%j.out\n#SBATCH --time=10:00:00",
        "set -euo pipefail\n#SBATCH --time=10:00:00": "set -euo pipefail",
        "--nnodes=4": '--nnodes="$SLURM_JOB_NUM_NODES"',
        "--rdzv-id=$RANDOM": '--rdzv-id="$SLURM_JOB_ID"',
        # Without quotes, $(hostname) is computed once. And srun is told the cores again.
        "bash -c 'torchrun": '--cpus-per-task="$SLURM_CPUS_PER_TASK" torchrun \\\n   ',
        "--epochs=90'": "--epochs=90",
    }
    text = JOB
    for wrong, right in mends.items():
        text = text.replace(wrong, right)
    return text
    # END SOLUTION


# %%
check.mended_job(mended_job)

# %% [markdown] tags=["solution"]
# It asked for twelve tasks, and so it started twelve agents of four ranks each: 48 ranks on 12 GPUs. Each agent waited for four nodes, on its own machine and under a number it had drawn for itself: in single quotes nothing is computed before it is there. Without the quotes the file itself computes
# `$(hostname)`, and the file runs once, on the first node of the job. The drawn number would do then, too; the job's number can be found again.
#
# Its time limit stood behind the first command, where Slurm does not read. And each count in the file is for a *task*. When the four tasks of a node become one, that one needs the GPUs and the cores of all four. The GPUs `srun` takes over from the `#SBATCH` lines, the cores it does not, since Slurm 22.05: without `--cpus-per-task` of its own a task has one, and four ranks crowd on it. (Or the file exports `SRUN_CPUS_PER_TASK`; or it asks for `--cpus-per-gpu=6` in place of `--cpus-per-task`, which is taken over.)
#
# Such a file is what `write_slurm` writes, which adds two things: `--kill-on-bad-exit=1`, so that a lost agent ends the job rather than leaves the others waiting, and a port that is made from the job's number, so that two jobs may share a node.

# %% tags=["solution-only"]
print(mended_job())
