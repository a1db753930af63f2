# %% [markdown]
# # Exercises for lesson 52: anomalies over time
#
# Complete each function, run its cell, then run the check below it.

# %%
import zlib

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from sklearn.covariance import EmpiricalCovariance

from course_lib import launch, process_group
from course_lib.checks import lesson_52 as check
from course_lib.data import unsw_nb15
from course_lib.plots import COLOURS, figure, show

# %% [markdown]
# ## 52.1 · At most k false alarms an hour
#
# *Difficulty 2 of 5 · 20 minutes · goal: the one lowest score that keeps the promise, on every rank, and what a rank hands in does not grow with its scores*
#
# In the lesson, whoever set the threshold counted by hand: 10 a minute make 30 in three minutes, so it is the 31st largest score. Whoever is on duty says it like this: *at most k false alarms an hour, whatever the number of ranks*. Write that rule. It gets the scores of normal flows, as many minutes of them as there happen to be.
#
# Three questions to decide first. **20 an hour are allowed, and you have seen two minutes: how many alarms are that? Several flows have exactly the score at the edge: are they alarms? And what does a rank hand in that has fewer scores than there may be alarms?**


# %%
def alarm_threshold(scores: torch.Tensor, minutes: int, per_hour: int) -> float:
    """The lowest score that keeps a promise of few false alarms. Called on all ranks.

    A score *above* the threshold raises an alarm. In these minutes there may be as many alarms as
    ``per_hour`` allows, rounded down to a whole number, ``allowed``: on all ranks together.

    At most 64 collectives are called, and only collectives of tensors: no barrier, no objects. In
    all of them together a rank hands in at most ``allowed`` + 1 numbers, or 1,100 if that is more.

    Args:
        scores: This rank's normal flows, float32 of shape (scores,): 0 or more, finite. Many may
            be equal, and a rank may have none. Not to be changed.
        minutes: How long all ranks have watched, at the same time; a whole number, 1 or more.
        per_hour: False alarms allowed an hour; a whole number, 1 or more.

    Returns:
        A plain float, the same on every rank: of the scores of all ranks the lowest above which
        no more than ``allowed`` lie. If there are no more than ``allowed`` scores on all ranks
        together, all of them may raise an alarm, and it is −1.0, which lies below any score.
    """
    # BEGIN SOLUTION
    count = per_hour * minutes // 60 + 1
    top = scores.topk(min(count, len(scores))).values
    mine = torch.full((count,), -1.0)
    mine[: len(top)] = top
    everybody = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everybody, mine)
    return torch.cat(everybody).topk(count).values[-1].item()
    # END SOLUTION


# %%
check.alarm_threshold(alarm_threshold)

# %% [markdown] tags=["solution"]
# A score that is among the `allowed` + 1 loudest of all is among the `allowed` + 1 loudest of its rank: nothing else needs to travel. Multiply before you divide, and whole numbers stay whole. Of equal scores at the edge none raises an alarm, so the promise holds; there may then be fewer alarms than are allowed, never more.
#
# If the budget is large (a day's, of a large network), count instead of sending: lesson 51's search by bytes hands in four times 256 numbers, however large the budget is.
#
# Below: a Mahalanobis distance on the raw flows, the sensors on three ranks, thresholds from three minutes, and what came in the minutes after them. Three minutes can promise nothing rarer than one alarm in three minutes: for 10 an hour the rule allows none, and the threshold is the loudest score of all. And a promise is made on the past: with the real flows each of these is broken, the smallest by the largest factor.


# %% tags=["solution-only"]
def promise(scores, rank_of, minutes, budgets):
    with process_group() as pg:
        mine = scores[rank_of == pg.rank]
        return [alarm_threshold(mine, minutes, per_hour) for per_hour in budgets]


raw = unsw_nb15.load_raw(rows=20_000)
look_ahead = [f"ct_{name}_ltm" for name in ("dst", "src", "src_dport", "dst_sport", "dst_src")]
look_ahead += ["ct_srv_src", "ct_srv_dst"]
flows = raw.frame.drop(columns=["sttl", "dttl", "ct_state_ttl"])  # all this as in the lesson
flows = flows.assign(**{t: 1e6 * flows[t] for t in ("dur", "tcprtt", "synack", "ackdat")})
flows = flows.sort_values("ltime", kind="stable")
flows = flows[~flows.duplicated()].drop(columns=look_ahead).reset_index(drop=True)
end = (flows["ltime"] - flows["ltime"].iloc[0]).dt.total_seconds().astype(int).to_numpy()
bad = flows["label"].to_numpy() == 1
rank_of = np.array([zlib.crc32(address.encode()) % 3 for address in flows["dstip"]])
normals = flows[(end < 240) & ~bad]
normals = normals[~unsw_nb15.repeats(normals)]
encoder = unsw_nb15.Encoder.fit(normals)
detector = EmpiricalCovariance().fit(encoder.transform(normals).to_numpy())
scores = torch.tensor(detector.mahalanobis(encoder.transform(flows).to_numpy())).float()
scores = scores.clamp(min=0)  # a square, up to rounding
held, watched = (end >= 240) & (end < 420) & ~bad, end >= 420
budgets = (10, 60, 600, 3000, 6000)
limits = launch(promise, scores[held], rank_of[held], 3, budgets, nprocs=3)[0]
hours, rows = (end[-1] + 1 - 420) / 3600, {}
for per_hour, limit in zip(budgets, limits, strict=True):
    alarm = scores.numpy() > limit
    came = (alarm & watched & ~bad).sum() / hours
    rows[per_hour] = {"threshold": limit, "came": came, "recall": alarm[watched & bad].mean()}
pd.DataFrame(rows).T.rename_axis("false alarms an hour promised").round(2)

# %% [markdown]
# ## 52.2 · When is a second complete?
#
# *Difficulty 2 of 5 · 15 minutes · goal: each second once, in at most 2 calls, of as many numbers as there are new seconds*
#
# The lesson added up all seconds when the recording was over. A real picture grows. Once in a while (a **tick**) the ranks meet and tell what is new. But a rank that is busy is behind: it has not scored all flows that ended a minute ago. A second whose alarms are still coming in must not be told, since it could not be taken back.
#
# So each rank says up to which second it is done, and `told` says how many seconds were told at earlier ticks. **Rank 0 is done with 7 seconds, rank 1 with 5, rank 2 with 6: how many can be told? What does each rank slice, and what happens if they slice differently?** And a rank may go back: it crashed, and counts again from its last checkpoint. What has been told stays told.


# %%
def complete(counts: torch.Tensor, seen_until: int, told: int) -> tuple[int, torch.Tensor]:
    """Tell the alarms of those seconds with which all ranks are done. Called on all ranks.

    At most two collectives are called, and only collectives of tensors: no barrier, no objects.
    Together a rank hands in one number for each new second, and one more.

    Args:
        counts: Alarms that this rank has counted in each second so far, int64 of shape (seconds,),
            as long on all ranks. Not to be changed.
        seen_until: This rank is done with the seconds 0 … seen_until − 1, and with no later one;
            0 to len(counts).
        told: The seconds 0 … told − 1 have been told before; the same on all ranks.

    Returns:
        Both the same on every rank:

        - ``new_told``, a plain int: all ranks are done with the seconds 0 … new_told − 1, or they
          have been told before. It is the largest such number, and never below ``told``.
        - the alarms of all ranks in each of the seconds told … new_told − 1, int64 of shape
          (new_told − told,); perhaps empty.
    """
    # BEGIN SOLUTION
    slowest = torch.tensor(seen_until)
    dist.all_reduce(slowest, op=dist.ReduceOp.MIN)
    new_told = max(told, slowest.item())
    totals = counts[told:new_told].clone()  # a slice shares its numbers with counts
    dist.all_reduce(totals)
    return new_told, totals
    # END SOLUTION


# %%
check.complete(complete)

# %% [markdown] tags=["solution"]
# The least of what all ranks have seen is called the **watermark**. Every rank cuts by it, so all hand in equally many numbers; whoever cut by its own `seen_until` would add up seconds that do not belong together, or hang.
#
# The price is to be seen below. Three ranks watch their sensors and meet every second. A rank can score so many flows a second, a tenth more than the busiest one has to on average; when more come, they wait. **The picture is as late as the latest rank**, also where the other two are done: nobody can know that a second was quiet until everyone has said so.


# %% tags=["solution-only"]
def follow(second, alarm, rank_of, speed):
    with process_group() as pg:
        mine, seconds = rank_of == pg.rank, int(second[-1]) + 1
        second, alarm = second[mine], alarm[mine]
        counts, totals = torch.zeros(seconds, dtype=torch.int64), []
        done, told, late = 0, 0, []
        for now in range(1, seconds + 1):
            here = int(np.searchsorted(second, now))  # flows that have ended by now
            new = slice(done, min(here, done + speed))
            counts += torch.bincount(torch.tensor(second[new][alarm[new]]), minlength=seconds)
            done = new.stop
            seen = int(second[done]) if done < here else now  # the next flow is still to come
            told, more = complete(counts, seen, told)
            totals.extend(more.tolist())
            late.append((now - seen, now - told))
        return np.array(late), totals


alarm = scores.numpy() > limits[-1]
speed = int(np.ceil(1.1 * np.bincount(rank_of).max() / (end[-1] + 1)))
ranks = launch(follow, end, alarm, rank_of, speed, nprocs=3)
(late, totals), seconds = ranks[0], np.arange(end[-1] + 1)
assert totals == np.bincount(end[alarm], minlength=len(seconds))[: len(totals)].tolist()

# %% tags=["solution-only"]
worst = [own[:, 0].max() for own, _ in ranks]
title = f"At worst the picture is {late[:, 1].max()} s behind, as the latest rank; "
title += f"the earliest never more than {min(worst)} s"
fig, ax = figure(title, xlabel="time (minutes)", ylabel="behind (s)", origin=raw.origin)
ax.plot(seconds / 60, late[:, 1], color="#c3ccd6", linewidth=6, label="the picture")
for rank, (own, _) in enumerate(ranks):
    style = ("-", "--", ":")[rank]
    ax.plot(seconds / 60, own[:, 0], style, color=COLOURS[rank], label=f"rank {rank}")
ax.legend()
show(fig, alt=f"How far each of three ranks is behind, and how far the picture is. {title}.")
print(f"{len(totals)} of {len(seconds)} seconds told, {sum(totals):,} of {alarm.sum():,} alarms")
