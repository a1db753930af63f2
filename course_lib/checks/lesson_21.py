"""Questions for the exercises of lesson 21: of all ranks' pictures, by one all_reduce."""

from collections.abc import Sequence

import torch
import torch.distributed as dist

from course_lib.checks._batch_norms import BATCHES, Batch, why_other
from course_lib.checks._confusions import MATRICES, Matrix, counted, same, which_mistake, worst
from course_lib.checks._engine import Ask, exercise
from course_lib.checks._one_sum import answered, one_all_reduce
from course_lib.checks._patterns import WHO_IS_DONE, same_tensor
from course_lib.group import process_group


@exercise("21.1 · BatchNorm over all ranks")
def normalise_over_ranks(ask: Ask, answer) -> None:
    """``answer(x, eps) -> tensor``: batch_norm of the joined batch, by one all_reduce."""
    hint = "all ranks make the same calls with as many numbers, also one without pictures"
    for n in (1, 2, 3, 4):
        batches = [batch for batch in BATCHES if len(batch.pictures) == n]
        answers = ask.run(_normalised, answer, batches, nprocs=n, hint=hint + WHO_IS_DONE)
        for batch, ranks in zip(batches, zip(*answers, strict=True), strict=True):
            says = f"{batch}: as batch_norm of all pictures together"
            for rank, one in enumerate(ranks):
                if one.got:
                    ask.that(False, says, f"rank {rank}: {one.got}")
            numbers = 3 * batch.shape[0]
            aim = "for each channel a sum and a sum of squares, and once the count"
            one_all_reduce(ask, [*ranks], numbers, str(batch), aim)
            print(f"✓ {says}")
    print("✓ with one all_reduce, of at most three numbers a channel")


def _normalised(answer, batches: Sequence[Batch]):
    with process_group() as pg:
        results = []
        for batch in batches:
            x = batch.of_ranks()[pg.rank]
            given = x.clone()
            options = () if batch.eps is None else (batch.eps,)
            one = answered(answer, given, *options, case=str(batch))
            changed = "" if same_tensor(given, x) else "x has changed: compute with a copy of it"
            results.append(one._replace(got=changed or why_other(one.got, batch, pg.rank)))
            dist.barrier()
        return results


@exercise("21.2 · What is taken for what?")
def worst_confusions(ask: Ask, answer) -> None:
    """``answer(predicted, actual, classes) -> two triples``, by one all_reduce."""
    hint = "all ranks make the same calls with C × C numbers, also one without pictures: "
    hint += "bincount(…, minlength=C * C)" + WHO_IS_DONE
    for n in (1, 2, 3, 4):
        matrices = [matrix for matrix in MATRICES if len(matrix.ranks) == n]
        answers = ask.run(_confused, answer, matrices, nprocs=n, hint=hint)
        for matrix, ranks in zip(matrices, zip(*answers, strict=True), strict=True):
            case = f"{n} rank{'s' * (n > 1)}, {matrix.says}"
            expected = worst(counted(matrix.ranks, matrix.classes))
            for rank, one in enumerate(ranks):
                if not same(one.got, expected):
                    hint = which_mistake(one.got, matrix, rank)
                    says = f"{case}: {expected} (rank {rank}: {one.got!r:.90})"
                    ask.that(False, says, hint)
            one_all_reduce(ask, [*ranks], matrix.classes**2, case, "C × C counts")
            print(f"✓ {case}: {expected}")
    print("✓ with one all_reduce, of C × C numbers")


def _confused(answer, matrices: Sequence[Matrix]):
    with process_group() as pg:
        results = []
        for matrix in matrices:
            mine = [pair for pair, count in matrix.ranks[pg.rank].items() for _ in range(count)]
            pairs = torch.tensor(mine, dtype=torch.int64).reshape(-1, 2)
            pairs = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(1))]
            actual, predicted = pairs.T.contiguous()
            results.append(answered(answer, predicted, actual, matrix.classes, case=matrix.says))
            dist.barrier()
        return results
