# %% [markdown]
# # Exercises for lesson 22: fine-tune a pretrained network
#
# Complete each function, run its cell, then run the check below it.

# %%
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from course_lib.checks import lesson_22 as check

# %% [markdown]
# ## 22.1 · Which gradients travel?
#
# *Difficulty 2 of 5 · 10 minutes · goal: the number of bytes, exactly*
#
# A model is about to be wrapped by DDP. Which of its parameters will have their gradients sent in every step, and how many bytes is that? The models of
# the check have frozen parts, a BatchNorm, numbers of 8 bytes, a weight that two layers share, and a layer that `forward` does not use (DDP is
# told to `find_unused_parameters`). The check then wraps them and counts.


# %%
def gradient_bytes(model: nn.Module) -> int:
    """Predict the bytes of gradients that a rank puts into DDP's all_reduces in a step.

    Args:
        model: What will be wrapped. It has not been wrapped yet, and has no gradients yet.

    Returns:
        The number of bytes.
    """
    # BEGIN SOLUTION
    return sum(p.nbytes for p in model.parameters() if p.requires_grad)
    # END SOLUTION


# %%
check.gradient_bytes(gradient_bytes)

# %% [markdown] tags=["solution"]
# `parameters()` names a shared weight once, and DDP sends it once. Buffers are no parameters. The unused layer counts: DDP has promised its gradient, and sends zeros.

# %% [markdown]
# ## 22.2 · Only the head travels
#
# *Difficulty 3 of 5 · 20 minutes · goal: the head's bytes in each step, not one more*
#
# Prepare a model for fine-tuning its head on several ranks. The head learns, even if somebody froze it before; the rest stays as it is, to the last bit: its weights, its running
# statistics, and without dropout. The head itself may have a BatchNorm or a dropout, and trains with them. Mind the order. (`model.get_submodule("fc")` finds a part by its name, also by one like
# `"classifier.2"`.)


# %%
def wrap_for_head(model: nn.Module, head: str) -> DistributedDataParallel:
    """Freeze all but the head, and wrap. Called inside a process group.

    Args:
        model: The whole network; parts of it may be frozen, or in whatever mode.
        head: The name of the part that is to learn, as ``named_modules`` has it.

    Returns:
        The model in DDP, ready for the first step: nobody will call ``train()`` on it.
    """
    # BEGIN SOLUTION
    model.requires_grad_(False)
    model.eval()
    part = model.get_submodule(head)
    part.requires_grad_(True)
    part.train()
    return DistributedDataParallel(model)
    # END SOLUTION


# %%
check.wrap_for_head(wrap_for_head)

# %% [markdown]
# ## 22.3 · A rate for each depth
#
# *Difficulty 2 of 5 · 15 minutes*
#
# The lesson gave the head one rate and the backbone another. One can go on ([Howard and Ruder, 2018](https://arxiv.org/abs/1801.06146)): the first layers hold what is most general and
# should move least. The last child of the model gets the full rate, the child before it `decay` times that, the one before `decay` times that again, and so on. Children in which
# nothing is to be trained (a ReLU, a frozen layer) are left out and do not count. Return what an optimizer of torch takes as its **parameter groups**.


# %%
def rate_groups(model: nn.Module, rate: float, decay: float) -> list[dict]:
    """Make parameter groups whose rates fall from the last child of a model to the first.

    Args:
        model: Its children, in the order of ``model.children()``, go from input to output.
        rate: The rate of the last child that has something to train.
        decay: The factor from a child to the one before it, between 0 and 1.

    Returns:
        Groups ``{"params": …, "lr": …}``: each parameter that requires a gradient in one of them.
    """
    # BEGIN SOLUTION
    groups = []
    for child in reversed(list(model.children())):
        trained = [p for p in child.parameters() if p.requires_grad]
        if trained:
            groups.append({"params": trained, "lr": rate * decay ** len(groups)})
    return groups
    # END SOLUTION


# %%
check.rate_groups(rate_groups)
