# %% [markdown]
# # Exercises for lesson 51: an anomaly detector
#
# Complete each function, run its cell, then run the check below it.

# %%
import math

import pandas as pd
import torch
import torch.distributed as dist
from sklearn.covariance import EmpiricalCovariance

from course_lib import launch, process_group, shard_indices
from course_lib.checks import lesson_51 as check
from course_lib.data import unsw_nb15

# %% [markdown]
# ## 51.1 · A threshold in four calls
#
# *Difficulty 3 of 5 · 25 minutes · goal: the float of one process, to the last bit, in at most 5 calls of at most 1,100 numbers each*
#
# The lesson's `global_quantile` asks 31 times, and each time it learns one bit: is it higher, or lower? On a real network a call takes about as long with 256 numbers as with one. **How many bits can one call find, if each rank answers 256 questions at once?** And who already knows the number of all scores then?
#
# The order of floats that are not negative is that of their bits. `scores.view(torch.int32)` shows them without a copy. (Shift no int32 by 32 places: what comes out is not defined.)


# %%
def global_threshold(scores: torch.Tensor, share: float) -> float:
    """The smallest score such that a share of all lies at or below it. Called on all ranks.

    At most five collectives are called, in each of which at most 1,100 numbers reach a rank,
    however many scores there are.

    Args:
        scores: This rank's scores, float32 of shape (scores,): 0 or more, finite. Many may be
            equal, and a rank may have none; there is at least one in all. Not to be changed.
        share: Above 0, at most 1, the same on all ranks.

    Returns:
        A plain float, the same on every rank: of the n scores of all ranks in ascending order the
        one with the number ceil(share × n), counted from 1. That is what NumPy's
        ``quantile(…, method="inverted_cdf")`` finds in all of them.
    """
    # BEGIN SOLUTION
    bits, known, number = scores.view(torch.int32).long(), 0, None
    for shift in (24, 16, 8, 0):
        counts = torch.bincount(bits >> shift & 255, minlength=256)
        dist.all_reduce(counts)
        if number is None:  # the first call also says how many there are
            number = math.ceil(share * counts.sum().item())
        up_to = counts.cumsum(dim=0)
        byte = (up_to < number).sum().item()
        number -= (up_to - counts)[byte].item()  # from here on among those that begin alike
        known = known << 8 | byte
        bits = bits[bits >> shift == known]
    return torch.tensor(known, dtype=torch.int32).view(torch.float32).item()
    # END SOLUTION


# %%
check.global_threshold(global_threshold)

# %% [markdown] tags=["solution"]
# A call finds a byte. Each rank counts its scores by their first byte; the sums over ranks say in which of 256 groups the wanted score lies, and which number it has there. Only the scores of that group are looked at in the next round. It is the sort by digits that punched cards were sorted with, but only ever one box of 256 is opened.
#
# A rank without scores sends 256 zeros. Since all ranks decide by the same sums, they need not tell each other what they have decided.

# %% [markdown]
# ## 51.2 · Precision or recall
#
# *Difficulty 2 of 5 · 20 minutes · goal: one `all_reduce` of counts, and nine digits*
#
# A quantile of normal scores says how many normal flows raise an alarm. Those who answer alarms ask something else: of ten alarms, how many are attacks? That is the **precision**, and it takes labelled flows. Lower the threshold, and more attacks are found (the **recall** grows), but more alarms are false.
#
# So choose a threshold on *validation* flows, never on those of the test: as much recall as a wanted precision allows. **Does precision always fall when the threshold does? And what is it where nobody raises an alarm?**


# %%
def best_threshold(
    scores: torch.Tensor, attack: torch.Tensor, candidates: torch.Tensor, precision: float
) -> tuple[float, float, float] | None:
    """Choose the threshold with the highest recall that is precise enough. Called on all ranks.

    A score *above* the threshold is an alarm, and an attack among the alarms is a hit. The ranks
    call one all_reduce of four numbers for each candidate at most, and nothing else.

    Args:
        scores: Of this rank's validation flows, perhaps none: float32 of shape (flows,).
        attack: 1 for an attack, 0 for a normal flow: int64 of shape (flows,).
        candidates: Thresholds to choose from, float32 of shape (candidates,), in any order, the
            same on all ranks.
        precision: Above 0, at most 1: the least share of hits among the alarms of all ranks.

    Returns:
        The threshold, its precision (hits ÷ alarms) and its recall (hits ÷ attacks), over all
        ranks: plain floats, the same on every rank. Among the candidates that reach
        ``precision``, it is that with the highest recall, and of equal recall the highest
        threshold. A candidate without any alarm reaches none. If no candidate does: None.
    """
    # BEGIN SOLUTION
    alarms = scores > candidates[:, None]
    hits = alarms & (attack == 1)
    counts = torch.cat([alarms.sum(dim=1), hits.sum(dim=1), attack.sum()[None]])
    dist.all_reduce(counts)
    *both, attacks = counts.tolist()
    alarms, hits = both[: len(candidates)], both[len(candidates) :]
    good = [
        (hit / attacks, threshold, hit / alarm)
        for threshold, alarm, hit in zip(candidates.tolist(), alarms, hits, strict=True)
        if alarm and hit / alarm >= precision
    ]
    recall, threshold, reached = max(good, default=(None, None, None))
    return None if threshold is None else (threshold, reached, recall)
    # END SOLUTION


# %%
check.best_threshold(best_threshold)

# %% [markdown] tags=["solution"]
# Recall never falls when the threshold does: no alarm is lost. Precision may fall and rise again, if a few normal flows lie above many attacks; so no candidate may be left out because the one before it was not precise enough.
#
# Below: a Mahalanobis distance, which knows only normal flows, on validation flows of both kinds. Candidates come from 51.1. Such a table holds for this mixture of flows: where one flow in a thousand is an attack, the same threshold has a far lower precision, and the same recall.


# %% tags=["solution-only"]
def trade(scores, attack, wanted):
    with process_group() as pg:
        mine = shard_indices(len(scores), pg.rank, pg.world_size)
        scores, attack = scores[mine], attack[mine]
        shares = (k / 100 for k in range(1, 101))
        candidates = torch.tensor([global_threshold(scores, share) for share in shares])
        return {least: best_threshold(scores, attack, candidates, least) for least in wanted}


train = unsw_nb15.load().train.drop(columns=["sttl", "dttl", "ct_state_ttl"])  # as in the lesson
fit = train[train["label"] == 0].sample(frac=0.8, random_state=42)
validation = train.drop(index=fit.index)
encoder = unsw_nb15.Encoder.fit(fit)
detector = EmpiricalCovariance().fit(encoder.transform(fit).to_numpy())
scores = torch.tensor(detector.mahalanobis(encoder.transform(validation).to_numpy())).float()
attack = torch.tensor(validation["label"].to_numpy())
chosen = launch(trade, scores, attack, (0.8, 0.9, 0.95, 0.99), nprocs=3)[0]
names = ["threshold", "precision", "recall"]
rows = {f"at least {k}": v or [float("nan")] * 3 for k, v in chosen.items()}
pd.DataFrame(rows, names).T.round(3)
