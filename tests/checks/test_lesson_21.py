"""Exercises of lesson 21: wrong answers are told apart, right ones written differently pass."""

from collections import Counter

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed import all_reduce
from torch.nn import functional as F

from course_lib.checks import lesson_21 as check
from course_lib.evaluation import confusion_over_ranks, sum_over_ranks

# ---- 21.1 · BatchNorm over all ranks

ALL = (0, 2, 3)  # dimensions: all but the channels


def over_ranks(*parts, dtype=torch.float64):
    """The sums of these over all ranks, by one call."""
    sums = torch.cat([torch.as_tensor(part).to(dtype).reshape(-1) for part in parts])
    dist.all_reduce(sums)
    return sums.split([torch.as_tensor(part).numel() for part in parts])


def pixels(x):
    return x.numel() / x.shape[1]


def normalised(x, mean, variance, eps):
    mean, variance = mean[:, None, None], variance[:, None, None]
    return ((x.double() - mean) / (variance + eps).sqrt()).float()


def moments(x, dtype=torch.float64):
    sums, squares, count = over_ranks(
        x.to(dtype).sum(ALL), x.to(dtype).square().sum(ALL), pixels(x), dtype=dtype
    )
    return sums / count, squares / count, count


def with_sums(x, eps=1e-5):
    mean, square, _ = moments(x)
    return normalised(x, mean, square - mean.square(), eps)


def own_batch(x, eps=1e-5):
    return F.batch_norm(x, None, None, training=True, eps=eps)


def own_sums(x, eps=1e-5):
    mean = x.double().mean(ALL)
    return normalised(x, mean, x.double().var(ALL, correction=0), eps)


def own_batch_where_there_is_one(x, eps=1e-5):
    return own_sums(x, eps) if len(x) else x


def mean_of_means(x, eps=1e-5):
    means, squares = over_ranks(x.mean(ALL), x.square().mean(ALL))
    mean, square = means / dist.get_world_size(), squares / dist.get_world_size()
    return normalised(x, mean, square - mean.square(), eps)


def mean_of_variances(x, eps=1e-5):
    sums, variances, count = over_ranks(x.sum(ALL), x.var(ALL, correction=0) * pixels(x), pixels(x))
    return normalised(x, sums / count, variances / count, eps)


def means_weighted_with_no_pictures(x, eps=1e-5):
    x_ = x.double()
    sums, squares, count = over_ranks(
        x_.mean(ALL) * pixels(x), x_.square().mean(ALL) * pixels(x), pixels(x)
    )
    mean = sums / count
    return normalised(x, mean, squares / count - mean.square(), eps)


def unbiased(x, eps=1e-5):
    mean, square, count = moments(x)
    return normalised(x, mean, (square - mean.square()) * count / (count - 1), eps)


def in_float32(x, eps=1e-5):
    mean, square, _ = moments(x, torch.float32)
    return normalised(x, mean, square - mean.square(), eps)


def adds_in_float32(x, eps=1e-5):
    sums, squares, count = over_ranks(x.sum(ALL), x.square().sum(ALL), pixels(x))
    mean = sums / count
    return normalised(x, mean, (squares / count - mean.square()).clamp(min=0), eps)


def squares_in_float32(x, eps=1e-5):
    sums, squares, count = over_ranks(x.double().sum(ALL), x.square().double().sum(ALL), pixels(x))
    mean = sums / count
    return normalised(x, mean, squares / count - mean.square(), eps)


def sends_float32(x, eps=1e-5):
    sums, squares, count = over_ranks(
        x.double().sum(ALL), x.double().square().sum(ALL), pixels(x), dtype=torch.float32
    )
    mean = sums.double() / count
    return normalised(x, mean, (squares.double() / count - mean.square()).clamp(min=0), eps)


def eps_outside(x, eps=1e-5):
    mean, square, _ = moments(x)
    root = (square - mean.square()).sqrt() + eps
    return normalised(x, mean, root.square(), 0)


def ignores_eps(x, eps=1e-5):
    return with_sums(x)


def without_eps(x, eps=1e-5):
    return with_sums(x, 0)


def without_the_root(x, eps=1e-5):
    mean, square, _ = moments(x)
    return normalised(x, mean, (square - mean.square() + eps).square(), 0)


def centres_only(x, eps=1e-5):
    mean, _, _ = moments(x)
    return normalised(x, mean, torch.ones_like(mean), 0)


def scales_only(x, eps=1e-5):
    mean, square, _ = moments(x)
    return normalised(x, mean * 0, square - mean.square(), eps)


def one_mean_for_all_channels(x, eps=1e-5):
    x_ = x.double()
    sums, squares, count = over_ranks(x_.sum(), x_.square().sum(), x.numel())
    mean = (sums / count).expand(x.shape[1])
    return normalised(x, mean, squares / count - mean.square(), eps)


def one_mean_a_pixel(x, eps=1e-5):
    x_ = x.double()
    sums, squares, count = over_ranks(x_.sum(0), x_.square().sum(0), len(x))
    mean, square = (s.reshape(x.shape[1:]) / count for s in (sums, squares))
    return ((x_ - mean) / (square - mean.square() + eps).sqrt()).float()


def counts_pictures(x, eps=1e-5):
    x_ = x.double()
    sums, squares, count = over_ranks(x_.sum(ALL), x_.square().sum(ALL), len(x))
    mean = sums / count
    return normalised(x, mean, (squares / count - mean.square()).abs(), eps)


def two_collectives(x, eps=1e-5):
    sums, count = over_ranks(x.double().sum(ALL), pixels(x))
    mean = sums / count
    (squares,) = over_ranks((x.double() - mean[:, None, None]).square().sum(ALL))
    return normalised(x, mean, squares / count, eps)


def gathers_all(x, eps=1e-5):
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, x)
    whole = torch.cat(everyone).double()
    return normalised(x, whole.mean(ALL), whole.var(ALL, correction=0), eps)


def sums_of_every_pixel(x, eps=1e-5):
    x_ = x.double()
    sums, squares, count = over_ranks(x_.sum(0), x_.square().sum(0), pixels(x))
    mean = sums.reshape(x.shape[1:]).sum((1, 2)) / count
    square = squares.reshape(x.shape[1:]).sum((1, 2)) / count
    return normalised(x, mean, square - mean.square(), eps)


def in_place(x, eps=1e-5):
    found = with_sums(x, eps)
    return x.copy_(found)


def in_float64(x, eps=1e-5):
    mean, square, _ = moments(x)
    root = (square - mean.square() + eps).sqrt()
    return (x.double() - mean[:, None, None]) / root[:, None, None]


def flat(x, eps=1e-5):
    return with_sums(x, eps).flatten(2)


def returns_nothing(x, eps=1e-5):
    with_sums(x, eps)


def with_a_reduce(x, eps=1e-5):
    x_ = x.double()
    sums = torch.cat([x_.sum(ALL), x_.square().sum(ALL), torch.tensor([pixels(x)]).double()])
    dist.reduce(sums, dst=0)
    mean, square = (sums[:-1] / sums[-1]).chunk(2)
    return normalised(x, mean, square - mean.square(), eps)


def without_the_empty_rank(x, eps=1e-5):
    return with_sums(x, eps) if len(x) else x


def rank_0_alone(x, eps=1e-5):
    return with_sums(x, eps) if dist.get_rank() == 0 else own_batch(x, eps)


def sends_its_pictures(x, eps=1e-5):
    x_ = x.double()
    sums, squares, count = over_ranks(x_, x_.square(), pixels(x))
    mean, square = (s.reshape(x.shape).sum(ALL) / count for s in (sums, squares))
    return normalised(x, mean, square - mean.square(), eps)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(own_batch, "that is this rank's batch only", id="batch_norm"),
        pytest.param(own_sums, "that is this rank's batch only", id="own batch"),
        pytest.param(own_batch_where_there_is_one, "this rank's batch only", id="own, if any"),
        pytest.param(mean_of_means, "weighs all ranks alike", id="mean of means"),
        pytest.param(mean_of_variances, "forgets that their means differ", id="variances"),
        pytest.param(means_weighted_with_no_pictures, "the mean of nothing is NaN", id="NaN"),
        pytest.param(unbiased, "by the count, not by one less", id="unbiased"),
        pytest.param(in_float32, "square and add in float64", id="float32"),
        pytest.param(adds_in_float32, "square and add in float64", id="adds in float32"),
        pytest.param(squares_in_float32, "square and add in float64", id="squares in float32"),
        pytest.param(sends_float32, "square and add in float64", id="sends float32"),
        pytest.param(eps_outside, "eps belongs under the root", id="eps outside"),
        pytest.param(ignores_eps, "eps is an argument", id="eps ignored"),
        pytest.param(without_eps, "eps is an argument", id="no eps"),
        pytest.param(without_the_root, "the root is missing", id="no root"),
        pytest.param(centres_only, "divide by the root", id="mean only"),
        pytest.param(scales_only, "subtract the mean, too", id="spread only"),
        pytest.param(one_mean_for_all_channels, "each channel has a mean", id="all channels"),
        pytest.param(one_mean_a_pixel, "a channel has one mean", id="a pixel"),
        pytest.param(counts_pictures, "add up sums, squares and counts", id="count"),
        pytest.param(two_collectives, "into one tensor", id="two collectives"),
        pytest.param(gathers_all, "that brings each rank the numbers of all", id="gathers all"),
        pytest.param(sums_of_every_pixel, "few numbers travel", id="sums of every pixel"),
        pytest.param(in_place, "x has changed", id="in place"),
        pytest.param(in_float64, "return float32, as x is", id="returns float64"),
        pytest.param(flat, "x has the shape (6, 3, 2, 3)", id="flat"),
        pytest.param(returns_nothing, "return a tensor", id="None"),
        pytest.param(with_a_reduce, "2 × 3", id="reduce"),
        pytest.param(without_the_empty_rank, "rank 1 nothing more", id="no empty rank"),
        pytest.param(rank_0_alone, "rank 1 nothing more", id="rank 0 alone"),
        pytest.param(sends_its_pictures, "rank 0 calls all_reduce of", id="sends pictures"),
    ],
)
def test_normalise_over_ranks_rejects(rejects, answer, says):
    rejects(check.normalise_over_ranks, answer, says)


def waits_for_a_message(x, eps=1e-5):
    if dist.get_rank() == 1:
        dist.recv(torch.zeros(1), src=0)
    return with_sums(x, eps)


@pytest.mark.faults
def test_normalise_over_ranks_names_the_rank_that_hangs(verdict, impatient):
    said = verdict(check.normalise_over_ranks, waits_for_a_message)
    assert "it hangs" in said
    assert "rank 1" in said
    assert "test_lesson_21.py, line" in said


def a_count_for_each_channel(x, eps=1e-5):
    """Three numbers a channel, through a name imported by itself."""
    rows = x.double().transpose(0, 1).flatten(1)
    sums = torch.stack([rows.sum(1), (rows * rows).sum(1), torch.full((len(rows),), rows.shape[1])])
    all_reduce(sums)
    mean, square = sums[:2] / sums[2]
    return normalised(x, mean, square - mean**2, eps)


def with_torchs_own(x, eps=1e-5):
    mean, square, _ = moments(x)
    return F.batch_norm(x.double(), mean, square - mean.square(), training=False, eps=eps).float()


def with_the_courses_own(x, eps=1e-5):
    x_ = x.double()
    sums = sum_over_ranks({"sum": x_.sum(ALL), "square": x_.square().sum(ALL), "count": pixels(x)})
    mean = sums["sum"] / sums["count"]
    return normalised(x, mean, sums["square"] / sums["count"] - mean.square(), eps)


def with_numpy(x, eps=1e-5):
    a = x.numpy().astype("float64")
    sums = np.concatenate([a.sum((0, 2, 3)), (a**2).sum((0, 2, 3)), [a[:, 0].size]])
    work = dist.all_reduce(torch.from_numpy(sums), async_op=True)
    work.wait()
    mean, square = np.split(sums[:-1] / sums[-1], 2)
    root = np.sqrt(square - mean**2 + eps)
    return torch.from_numpy(((a - mean[:, None, None]) / root[:, None, None]).astype("float32"))


def subtracts_in_float32(x, eps=1e-5):
    """The sums in float64, and then on with float32: near enough."""
    mean, square, _ = moments(x)
    scale = (square - mean.square() + eps).rsqrt()
    return (x - mean.float()[:, None, None]) * scale.float()[:, None, None]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(with_sums, id="sums and squares"),
        pytest.param(a_count_for_each_channel, id="3C numbers"),
        pytest.param(with_torchs_own, id="batch_norm"),
        pytest.param(with_the_courses_own, id="sum_over_ranks"),
        pytest.param(with_numpy, id="numpy"),
        pytest.param(subtracts_in_float32, id="float32 at the end"),
    ],
)
def test_normalise_over_ranks_accepts(accepts, answer):
    accepts(check.normalise_over_ranks, answer)


# ---- 21.2 · What is taken for what?


def own_counts(predicted, actual, classes):
    cells = classes * actual + predicted
    return torch.bincount(cells, minlength=classes**2).reshape(classes, classes)


def all_counts(predicted, actual, classes, dtype=torch.int64):
    counts = own_counts(predicted, actual, classes).to(dtype)
    dist.all_reduce(counts)
    return counts


def two_worst(counts, key=lambda mistake: -mistake[2]):
    classes = range(len(counts))
    mistakes = [(a, p, int(counts[a, p])) for a in classes for p in classes if a != p]
    return sorted(mistakes, key=key)[:2]


def with_a_matrix(predicted, actual, classes):
    return two_worst(all_counts(predicted, actual, classes))


def its_own_two(predicted, actual, classes):
    return two_worst(own_counts(predicted, actual, classes))


def merges_the_ranks_two(predicted, actual, classes):
    own = torch.zeros(classes, classes, dtype=torch.int64)
    for a, p, count in its_own_two(predicted, actual, classes):
        own[a, p] = count
    dist.all_reduce(own)
    return two_worst(own)


def with_the_diagonal(predicted, actual, classes):
    counts = all_counts(predicted, actual, classes)
    cells = [(a, p, int(counts[a, p])) for a in range(classes) for p in range(classes)]
    return sorted(cells, key=lambda cell: -cell[2])[:2]


def exchanged(predicted, actual, classes):
    return [(p, a, count) for a, p, count in with_a_matrix(predicted, actual, classes)]


def counted_the_other_way(predicted, actual, classes):
    return with_a_matrix(actual, predicted, classes)


def both_ways(predicted, actual, classes):
    counts = all_counts(predicted, actual, classes)
    return two_worst((counts + counts.T).triu(1))


def both_ways_twice(predicted, actual, classes):
    counts = all_counts(predicted, actual, classes)
    return two_worst(counts + counts.T)


def least_first(predicted, actual, classes):
    return with_a_matrix(predicted, actual, classes)[::-1]


def sorts_upwards(predicted, actual, classes):
    return two_worst(all_counts(predicted, actual, classes), key=lambda mistake: mistake[2])


def ties_the_other_way(predicted, actual, classes):
    counts = all_counts(predicted, actual, classes)
    return two_worst(counts, key=lambda mistake: (-mistake[2], -mistake[0], -mistake[1]))


def ties_by_predicted(predicted, actual, classes):
    counts = all_counts(predicted, actual, classes)
    return two_worst(counts, key=lambda mistake: (-mistake[2], mistake[1], mistake[0]))


def reversed_whole(predicted, actual, classes):
    counts = all_counts(predicted, actual, classes)
    mistakes = [(int(counts[a, p]), a, p) for a in range(classes) for p in range(classes) if a != p]
    return [(a, p, count) for count, a, p in sorted(mistakes, reverse=True)[:2]]


def mean_of_counts(predicted, actual, classes):
    counts = all_counts(predicted, actual, classes, torch.float64) / dist.get_world_size()
    return [(a, p, counts[a, p].item()) for a, p, _ in two_worst(counts)]


def rounded_mean_of_counts(predicted, actual, classes):
    return two_worst(all_counts(predicted, actual, classes) // dist.get_world_size())


def as_tensors(predicted, actual, classes):
    return [torch.tensor(mistake) for mistake in with_a_matrix(predicted, actual, classes)]


def with_a_tensor_inside(predicted, actual, classes):
    return [(a, p, torch.tensor(n)) for a, p, n in with_a_matrix(predicted, actual, classes)]


def as_numpy(predicted, actual, classes):
    return [(a, p, np.int64(n)) for a, p, n in with_a_matrix(predicted, actual, classes)]


def as_floats(predicted, actual, classes):
    return [(a, p, float(n)) for a, p, n in with_a_matrix(predicted, actual, classes)]


def pairs_only(predicted, actual, classes):
    return [(a, p) for a, p, _ in with_a_matrix(predicted, actual, classes)]


def only_what_happens(predicted, actual, classes):
    return [mistake for mistake in with_a_matrix(predicted, actual, classes) if mistake[2]]


def three_of_them(predicted, actual, classes):
    counts = all_counts(predicted, actual, classes)
    return [*two_worst(counts), (0, 1, int(counts[0, 1]))]


def in_bytes(predicted, actual, classes):
    return two_worst(all_counts(predicted, actual, classes, torch.uint8))


def in_float16(predicted, actual, classes):
    return two_worst(all_counts(predicted, actual, classes, torch.float16))


def gathers_all(predicted, actual, classes):
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, (predicted, actual))
    joined = (torch.cat(labels) for labels in zip(*everyone, strict=True))
    return two_worst(own_counts(*joined, classes))


def gathers_matrices(predicted, actual, classes):
    counts = own_counts(predicted, actual, classes)
    everyone = [torch.empty_like(counts) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, counts)
    return two_worst(sum(everyone))


def cell_by_cell(predicted, actual, classes):
    counts = own_counts(predicted, actual, classes)
    for row in counts:
        dist.all_reduce(row)
    return two_worst(counts)


def more_than_needed(predicted, actual, classes):
    counts = torch.zeros(classes, classes, 2, dtype=torch.int64)
    counts[..., 0] = own_counts(predicted, actual, classes)
    dist.all_reduce(counts)
    return two_worst(counts[..., 0])


def with_a_reduce(predicted, actual, classes):
    counts = own_counts(predicted, actual, classes)
    dist.reduce(counts, dst=0)
    return two_worst(counts)


def without_minlength(predicted, actual, classes):
    counts = torch.bincount(classes * actual + predicted)
    dist.all_reduce(counts)
    return two_worst(F.pad(counts, (0, classes**2 - len(counts))).reshape(classes, classes))


def without_the_empty_rank(predicted, actual, classes):
    counts = own_counts(predicted, actual, classes)
    if len(actual):
        dist.all_reduce(counts)
    return two_worst(counts)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(its_own_two, "that is this rank's part only", id="own part"),
        pytest.param(merges_the_ranks_two, "third on every rank may be first", id="merged"),
        pytest.param(with_the_diagonal, "the diagonal has the right answers", id="diagonal"),
        pytest.param(exchanged, "the two are exchanged", id="exchanged"),
        pytest.param(counted_the_other_way, "the two are exchanged", id="other way"),
        pytest.param(both_ways, "keep the two apart", id="both ways"),
        pytest.param(both_ways_twice, "keep the two apart", id="both ways, twice"),
        pytest.param(least_first, "the more frequent one comes first", id="least first"),
        pytest.param(sorts_upwards, "the two least frequent", id="sorts upwards"),
        pytest.param(ties_the_other_way, "the smaller actual class comes first", id="ties"),
        pytest.param(ties_by_predicted, "the smaller actual class comes first", id="by predicted"),
        pytest.param(reversed_whole, "the smaller actual class comes first", id="reversed"),
        pytest.param(mean_of_counts, "and no mean", id="mean"),
        pytest.param(rounded_mean_of_counts, "that is a mean of the", id="rounded mean"),
        pytest.param(as_tensors, "return two triples", id="tensors"),
        pytest.param(with_a_tensor_inside, "plain ints are asked for", id="tensor inside"),
        pytest.param(as_numpy, "plain ints are asked for", id="numpy"),
        pytest.param(as_floats, "plain ints are asked for", id="floats"),
        pytest.param(pairs_only, "return two triples", id="pairs"),
        pytest.param(only_what_happens, "return two triples, also where", id="what happens"),
        pytest.param(three_of_them, "return two triples", id="three"),
        pytest.param(in_bytes, "4 ranks, many pictures", id="uint8"),
        pytest.param(in_float16, "4 ranks, many pictures", id="float16"),
        pytest.param(gathers_all, "that brings each rank the numbers of all", id="gathers all"),
        pytest.param(gathers_matrices, "that brings each rank the numbers", id="all_gather"),
        pytest.param(cell_by_cell, "into one tensor", id="row by row"),
        pytest.param(more_than_needed, "few numbers travel", id="too many numbers"),
        pytest.param(with_a_reduce, "2 ranks, third on each rank", id="reduce"),
        pytest.param(without_minlength, "minlength=C * C", id="no minlength"),
        pytest.param(without_the_empty_rank, "rank 1 nothing more", id="no empty rank"),
    ],
)
def test_worst_confusions_rejects(rejects, answer, says):
    rejects(check.worst_confusions, answer, says)


def with_topk(predicted, actual, classes):
    """In float64 and as lists; a stable sort settles the ties."""
    counts = all_counts(predicted, actual, classes, torch.float64)
    counts.fill_diagonal_(-1)
    best = counts.flatten().sort(descending=True, stable=True).indices[:2].tolist()
    return [[*divmod(cell, classes), int(counts.flatten()[cell])] for cell in best]


def with_the_courses_own(predicted, actual, classes):
    return tuple(two_worst(confusion_over_ranks(predicted, actual, classes)))


def without_the_diagonal(predicted, actual, classes):
    pairs = [(a, p) for a in range(classes) for p in range(classes) if a != p]
    seen = Counter(zip(actual.tolist(), predicted.tolist(), strict=True))
    counts = torch.tensor([seen[pair] for pair in pairs])
    all_reduce(counts)
    found = [(*pair, count) for pair, count in zip(pairs, counts.tolist(), strict=True)]
    return sorted(found, key=lambda mistake: (-mistake[2], mistake))[:2]


def with_index_put(predicted, actual, classes):
    counts = torch.zeros(classes, classes, dtype=torch.int32)
    one = torch.ones(len(actual), dtype=torch.int32)
    counts.index_put_((actual, predicted), one, accumulate=True)
    work = dist.all_reduce(counts, async_op=True)
    work.wait()
    return two_worst(counts)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(with_a_matrix, id="bincount"),
        pytest.param(with_topk, id="a stable sort"),
        pytest.param(with_the_courses_own, id="confusion_over_ranks"),
        pytest.param(without_the_diagonal, id="no diagonal"),
        pytest.param(with_index_put, id="index_put"),
    ],
)
def test_worst_confusions_accepts(accepts, answer):
    accepts(check.worst_confusions, answer)


# ---- all


def stub(*arguments):
    raise NotImplementedError


@pytest.mark.parametrize("name", ["normalise_over_ranks", "worst_confusions"])
def test_a_stub_is_not_done_yet(verdict, name):
    assert "○ not done yet" in verdict(getattr(check, name), stub)
