"""Exercises of lesson 50: wrong answers are told apart, right ones written differently pass."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from sklearn.model_selection import train_test_split
from torch.distributed import all_reduce

from course_lib.checks import lesson_50 as check
from course_lib.checks._covariances import CASES, exact
from course_lib.checks._twins import CASES as TWINS
from course_lib.checks._twins import USUAL, what_is_wrong
from course_lib.evaluation import sum_over_ranks

# ---- 50.1 · Mean and covariance over ranks


def add(*parts):
    """Sums over ranks, in one call, in the shapes of the parts."""
    flat = torch.cat([part.flatten() for part in parts])
    dist.all_reduce(flat)
    pieces = flat.split([part.numel() for part in parts])
    return [piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)]


def count(x):
    return x.new_tensor([len(x)])


def two_calls(x):
    x = x.double()
    n, total = add(count(x), x.sum(0))
    away = x - total / n
    (products,) = add(away.T @ away)
    return total / n, products / (n - 1)


def about(x, shift):
    """From sums about a value, which is taken to be the same on all ranks."""
    x = x - shift
    n, total, products = add(count(x), x.sum(0), x.T @ x)
    mean = total / n
    return shift + mean, (products - n * torch.outer(mean, mean)) / (n - 1)


def no_shift(x):
    return about(x.double(), torch.zeros(x.shape[1], dtype=torch.float64))


def whole_in_float32(x):
    mean, covariance = about(x.float(), torch.zeros(x.shape[1]))
    return mean.double(), covariance.double()


def products_in_float32(x):
    n, total = add(count(x.double()), x.double().sum(0))
    away = (x - total / n).float()
    (products,) = add(away.T @ away)
    return total / n, products.double() / (n - 1)


def sums_in_float32(x):
    n, total = add(count(x.float()), x.float().sum(0))
    away = x.double() - total / n
    (products,) = add(away.T @ away)
    return (total / n).double(), products / (n - 1)


def returns_float32(x):
    return tuple(one.float() for one in two_calls(x))


def returns_x_s_type(x):
    return tuple(one.to(x.dtype) for one in two_calls(x))


def mean_of_means(x):
    _, covariance = two_calls(x)
    (mean,) = add(x.double().mean(0).nan_to_num(0.0))
    return mean / dist.get_world_size(), covariance


def means_with_nan(x):
    mean = x.double().mean(0)
    dist.all_reduce(mean)
    mean /= dist.get_world_size()
    away = x.double() - mean
    n, products = add(count(away), away.T @ away)
    return mean, products / (n - 1)


def own_covariance(x):
    away = x.double() - x.double().mean(0) if len(x) else x.double()
    return away.T @ away / max(len(x) - 1, 1)


def averaged_covariances(x):
    (total,) = add(own_covariance(x))
    return two_calls(x)[0], total / dist.get_world_size()


def weighed_covariances(x):
    mean, _ = two_calls(x)
    n, total = add(count(x.double()), len(x) * own_covariance(x))
    return mean, total / n


def within_ranks(x):
    x = x.double()
    own = x.mean(0) if len(x) else torch.zeros(x.shape[1], dtype=torch.float64)
    n, total, products = add(count(x), x.sum(0), (x - own).T @ (x - own))
    return total / n, products / (n - 1)


def own_rows_only(x):
    x = x.double()
    two_calls(x)
    return (x.mean(0), own_covariance(x))


def own_covariance_only(x):
    return two_calls(x)[0], own_covariance(x)


def divided_by_n(x):
    x = x.double()
    n, total = add(count(x), x.sum(0))
    away = x - total / n
    (products,) = add(away.T @ away)
    return total / n, products / n


def not_divided(x):
    x = x.double()
    n, total = add(count(x), x.sum(0))
    away = x - total / n
    return total / n, add(away.T @ away)[0]


def mixed_denominators(x):
    x = x.double()
    n, total, products = add(count(x), x.sum(0), x.T @ x)
    mean = total / n
    return mean, products / (n - 1) - torch.outer(mean, mean)


def second_moment(x):
    x = x.double()
    n, total, products = add(count(x), x.sum(0), x.T @ x)
    return total / n, products / (n - 1)


def correlation(x):
    mean, covariance = two_calls(x)
    root = covariance.diag().sqrt()
    return mean, covariance / root.outer(root)


def own_first_row(x):
    x = x.double()
    return about(x, x[0] if len(x) else torch.zeros(x.shape[1], dtype=torch.float64))


def own_largest(x):
    x = x.double()
    return about(x, x.amax(0) if len(x) else torch.zeros(x.shape[1], dtype=torch.float64))


def own_mean(x):
    x = x.double()
    return about(x, x.mean(0) if len(x) else torch.zeros(x.shape[1], dtype=torch.float64))


def from_rank_0(x):
    """Rank 0 may have no rows: then nothing is subtracted."""
    x = x.double()
    shift = x[0].clone() if len(x) else torch.zeros(x.shape[1], dtype=torch.float64)
    dist.broadcast(shift, src=0)
    return about(x, shift)


def first_row_of_rank_0(x):
    x = x.double()
    shift = x[0].clone() if dist.get_rank() == 0 else torch.empty_like(x.sum(0))
    dist.broadcast(shift, src=0)
    return about(x, shift)


def mean_of_rank_0(x):
    x = x.double()
    shift = x.mean(0)
    dist.broadcast(shift, src=0)
    return about(x, shift)


def one_shift_for_all_columns(x):
    x = x.double()
    shift = x.max() if x.numel() else torch.tensor(-torch.inf, dtype=torch.float64)
    dist.all_reduce(shift, dist.ReduceOp.MAX)
    return about(x, shift)


def largest(x):
    return torch.cat([torch.full((1, x.shape[1]), -torch.inf, dtype=x.dtype), x]).amax(0)


def forgets_the_shift(x):
    x = x.double()
    shift = largest(x)
    dist.all_reduce(shift, dist.ReduceOp.MAX)
    mean, covariance = about(x, shift)
    return mean - shift, covariance


def mean_of_what_is_left(x):
    mean, covariance = two_calls(x)
    return torch.zeros_like(mean), covariance


def in_place(x):
    x = x.double()
    n, total = add(count(x), x.sum(0))
    x -= total / n
    (products,) = add(x.T @ x)
    return total / n, products / (n - 1)


def every_number_in_a_call(x):
    x = x.double()
    n, total = count(x), x.sum(0)
    dist.all_reduce(n)
    dist.all_reduce(total)
    away = x - total / n
    for row in (products := away.T @ away):
        dist.all_reduce(row)
    return total / n, products / (n - 1)


def gathers_objects(x):
    every = [None] * dist.get_world_size()
    dist.all_gather_object(every, x.double())
    x = torch.cat(every)
    return x.mean(0), own_covariance(x)


def gathers_padded_rows(x):
    longest = torch.tensor(len(x))
    dist.all_reduce(longest, dist.ReduceOp.MAX)
    padded = torch.full((int(longest), x.shape[1]), torch.nan, dtype=torch.float64)
    padded[: len(x)] = x
    every = [torch.empty_like(padded) for _ in range(dist.get_world_size())]
    dist.all_gather(every, padded)
    x = torch.cat(every)
    x = x[~x[:, 0].isnan()]
    return x.mean(0), own_covariance(x)


def gathers_rows(x):
    every = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(every, x)
    x = torch.cat(every).double()
    return x.mean(0), own_covariance(x)


def merges_moments_of_all(x):
    x = x.double()
    d = x.shape[1]
    mean = x.mean(0) if len(x) else x.sum(0)
    mine = torch.cat([count(x), mean, (max(len(x) - 1, 1) * own_covariance(x)).flatten()])
    every = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(every, mine)
    n = sum(one[0] for one in every)
    mean = sum(one[0] * one[1 : d + 1] for one in every) / n
    products = sum(one[d + 1 :].view(d, d) for one in every)
    products += sum(one[0] * torch.outer(*[one[1 : d + 1] - mean] * 2) for one in every)
    return mean, products / (n - 1)


def stays_away_without_rows(x):
    if not len(x):
        d = x.shape[1]
        return torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
    return two_calls(x)


def on_rank_0_only(x):
    got = two_calls(x)
    return got if dist.get_rank() == 0 else None


def by_messages(x):
    got = two_calls(x)
    if dist.get_world_size() > 1 and dist.get_rank() < 2:
        if dist.get_rank():
            dist.recv(torch.empty(1), src=0)
        else:
            dist.send(torch.empty(1), dst=1)
    return got


def throws_a_handle_away(x):
    got = two_calls(x)
    dist.all_reduce(torch.zeros(1), async_op=True)
    return got


def of_torch_cov(x):
    mean, covariance = two_calls(x)
    return mean, covariance.squeeze()


def only_covariance(x):
    return two_calls(x)[1]


def a_row_of_means(x):
    mean, covariance = two_calls(x)
    return mean[None], covariance


def in_numpy(x):
    return tuple(one.numpy() for one in two_calls(x))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(no_shift, "subtract a value near the rows first", id="cancels"),
        pytest.param(whole_in_float32, "begin with x.double()", id="all in float32"),
        pytest.param(products_in_float32, "covariance of all rows", id="products in float32"),
        pytest.param(sums_in_float32, "mean of all rows", id="sums in float32"),
        pytest.param(returns_float32, "is torch.float32, not torch.float64", id="float32"),
        pytest.param(returns_x_s_type, "is torch.float32, not torch.float64", id="x's type"),
        pytest.param(mean_of_means, "few rows weigh as much as many", id="mean of means"),
        pytest.param(means_with_nan, "few rows weigh as much as many", id="and NaN"),
        pytest.param(averaged_covariances, "of ranks cannot be averaged", id="averaged"),
        pytest.param(weighed_covariances, "of ranks cannot be averaged", id="weighed"),
        pytest.param(within_ranks, "every rank has subtracted a value of its own", id="within"),
        pytest.param(own_rows_only, "of its own rows only", id="own rows"),
        pytest.param(own_covariance_only, "of its own rows only", id="own covariance"),
        pytest.param(divided_by_n, "divide by n − 1, not by n", id="n"),
        pytest.param(not_divided, "the sum of products: divide", id="not divided"),
        pytest.param(mixed_denominators, "then divide the difference by n − 1", id="mixed"),
        pytest.param(second_moment, "that forgets the mean", id="second moment"),
        pytest.param(correlation, "that is the correlation", id="correlation"),
        pytest.param(own_first_row, "value of its own", id="own first row"),
        pytest.param(own_largest, "value of its own", id="own largest"),
        pytest.param(own_mean, "value of its own", id="own mean"),
        pytest.param(from_rank_0, "rank 0 has no rows, and so knows none", id="from rank 0"),
        pytest.param(first_row_of_rank_0, "IndexError", id="first row of rank 0"),
        pytest.param(mean_of_rank_0, "a rank without rows has no mean", id="mean of rank 0"),
        pytest.param(one_shift_for_all_columns, "one for each column", id="one for all"),
        pytest.param(forgets_the_shift, "add to the mean what you have", id="forgets shift"),
        pytest.param(mean_of_what_is_left, "add to the mean what you have", id="mean is 0"),
        pytest.param(in_place, "x is as before", id="in place"),
        pytest.param(every_number_in_a_call, "fits into one tensor", id="many calls"),
        pytest.param(gathers_objects, "all_gather_object is not needed", id="objects"),
        pytest.param(gathers_padded_rows, "rows stay where they are", id="padded rows"),
        pytest.param(gathers_rows, "rank 0 calls all_gather of 15 numbers", id="gathers rows"),
        pytest.param(merges_moments_of_all, "numbers at most reach a rank", id="all moments"),
        pytest.param(stays_away_without_rows, "also one without rows", id="stays away"),
        pytest.param(on_rank_0_only, "rank 1: return a pair", id="rank 0 only"),
        pytest.param(by_messages, "no messages", id="messages"),
        pytest.param(throws_a_handle_away, "nobody waits for the all_reduce", id="no wait"),
        pytest.param(of_torch_cov, "torch.cov of one feature", id="torch.cov"),
        pytest.param(only_covariance, "return a pair of tensors", id="one of two"),
        pytest.param(a_row_of_means, "the mean has the shape [1, 3]", id="shape"),
        pytest.param(in_numpy, "the mean is no tensor", id="numpy"),
    ],
)
def test_mean_and_covariance_rejects(impatient, rejects, answer, says):
    rejects(check.mean_and_covariance, answer, says)


def about_the_largest(x):
    x = x.double()
    shift = largest(x)
    all_reduce(shift, dist.ReduceOp.MAX)
    return about(x, shift)


def about_the_middle(x):
    x = x.double()
    both = torch.cat([largest(x), largest(-x)])
    dist.all_reduce(both, op=dist.ReduceOp.MAX)
    high, low = both.chunk(2)
    return about(x, (high - low) / 2)


def about_a_row_of_whoever_has_some(x):
    x = x.double()
    who = torch.tensor(dist.get_rank() if len(x) else dist.get_world_size())
    dist.all_reduce(who, dist.ReduceOp.MIN)
    shift = x[0].clone() if who == dist.get_rank() else x.new_empty(x.shape[1])
    dist.broadcast(shift, src=int(who))
    return about(x, shift)


def counts_are_gathered(x):
    x, n = x.double(), [torch.zeros(1) for _ in range(dist.get_world_size())]
    dist.all_gather(n, torch.tensor([float(len(x))]))
    who = int(torch.cat(n).argmax())
    shift = x[-1:].clone().flatten() if who == dist.get_rank() else x.new_empty(x.shape[1])
    dist.broadcast(shift, src=who)
    return about(x, shift)


def with_the_courses_own(x):
    x = x.double()
    sums = sum_over_ranks({"n": len(x), "total": x.sum(0)})
    mean = sums["total"] / sums["n"]
    away = x - mean
    return mean, sum_over_ranks(away.T @ away) / (sums["n"] - 1)


def upper_half_only(x):
    x = x.double()
    n, total = add(count(x), x.sum(0))
    away = x - total / n
    i, j = torch.triu_indices(x.shape[1], x.shape[1])
    (half,) = add((away[:, i] * away[:, j]).sum(0))
    covariance = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    covariance[i, j] = covariance[j, i] = half / (n - 1)
    return [total / n, covariance]


def own_products_and_means_apart(x):
    """As Chan, Golub and LeVeque: within ranks, and between them."""
    x = x.double()
    n, total = add(count(x), x.sum(0))
    mean = total / n
    own = x.mean(0) if len(x) else mean
    inside = (x - own).T @ (x - own)
    (products,) = add(inside + len(x) * torch.outer(own - mean, own - mean))
    return mean, products / (n - 1)


def later(x):
    x = x.double()
    n, total = count(x), x.sum(0)
    for work in [dist.all_reduce(one, async_op=True) for one in (n, total)]:
        work.wait()
    away = (x - total / n).numpy()
    products = torch.from_numpy(away.T @ away)
    dist.all_reduce(products, async_op=True).wait()
    return total / n, products / (n - 1)


@pytest.mark.parametrize(
    "answer",
    [
        two_calls,
        about_the_largest,
        about_the_middle,
        about_a_row_of_whoever_has_some,
        counts_are_gathered,
        with_the_courses_own,
        upper_half_only,
        own_products_and_means_apart,
        later,
    ],
)
def test_mean_and_covariance_accepts(accepts, answer):
    accepts(check.mean_and_covariance, answer)


@pytest.mark.parametrize("case", CASES[:-1], ids=lambda case: case.says)
def test_what_is_expected_is_right_to_the_last_digits(case):
    x = torch.cat(case.of_ranks()).double()
    n, (mean, covariance) = len(x), exact(case)
    columns = [[Fraction(number) for number in column] for column in x.T.tolist()]
    means = [sum(column) / n for column in columns]
    for i, a in enumerate(columns):
        assert float(means[i]) == pytest.approx(mean[i].item(), rel=1e-15, abs=1e-15)
        for j, b in enumerate(columns):
            pairs = zip(a, b, strict=True)
            true = sum((p - means[i]) * (q - means[j]) for p, q in pairs) / (n - 1)
            spread = (covariance[i, i] * covariance[j, j]).sqrt().item()
            assert float(true) == pytest.approx(covariance[i, j].item(), rel=0, abs=1e-12 * spread)
    of_numpy = np.atleast_2d(np.cov(x.numpy(), rowvar=False))
    np.testing.assert_allclose(covariance, of_numpy, rtol=0, atol=1e-9 * covariance.max().item())


# ---- 50.2 · A split that shares no flow


def halves(rows, kind, rng, of_odd=0):
    """Positions to train and to test: half of each kind."""
    kinds = np.asarray(kind, dtype=str)[rows]
    train, test = [], []
    for one in sorted(set(kinds)):
        mine = rng.permutation(rows[kinds == one])
        cut = len(mine) // 2 if len(mine) > 1 else 1
        cut += len(mine) % 2 if len(mine) > 1 and not of_odd else 0
        train.append(mine[:cut])
        test.append(mine[cut:])
    none = np.array([], dtype=int)
    return np.concatenate([none, *train]), np.concatenate([none, *test])


def right(features, kind, seed):
    return halves(np.flatnonzero(~features.duplicated()), kind, np.random.default_rng(seed))


def repeats_stay(features, kind, seed):
    return halves(np.arange(len(features)), kind, np.random.default_rng(seed))


def each_part_for_itself(features, kind, seed):
    parts = repeats_stay(features, kind, seed)
    return tuple(part[~features.iloc[part].duplicated().to_numpy()] for part in parts)


def test_rows_that_are_known_go(features, kind, seed):
    """Deals half of each kind first, and throws repeats away then."""
    train, test = repeats_stay(features, kind, seed)
    order = np.concatenate([train, test]).astype(int)
    again = features.iloc[order].duplicated().to_numpy()
    return order[~again & (np.arange(len(order)) < len(train))], order[
        ~again & (np.arange(len(order)) >= len(train))
    ]


test_rows_that_are_known_go.__test__ = False


def halves_before_repeats_go(features, kind, seed):
    stays = ~features.duplicated().to_numpy()
    return tuple(part[stays[part]] for part in repeats_stay(features, kind, seed))


def with_the_kind(features, kind, seed):
    rows = np.flatnonzero(~features.assign(kind=kind).duplicated())
    return halves(rows, kind, np.random.default_rng(seed))


def none_of_the_twins(features, kind, seed):
    rows = np.flatnonzero(~features.duplicated(keep=False))
    return halves(rows, kind, np.random.default_rng(seed))


def the_last_of_the_twins(features, kind, seed):
    rows = np.flatnonzero(~features.duplicated(keep="last"))
    return halves(rows, kind, np.random.default_rng(seed))


def numbers_only(features, kind, seed):
    rows = np.flatnonzero(~features[["sbytes", "dur"]].duplicated())
    return halves(rows, kind, np.random.default_rng(seed))


def joined_texts(features, kind, seed):
    joined = features.astype(str).agg("".join, axis=1) if len(features) else pd.Series(dtype=str)
    return halves(np.flatnonzero(~joined.duplicated()), kind, np.random.default_rng(seed))


def rounded(features, kind, seed):
    rows = np.flatnonzero(~features.round(3).duplicated())
    return halves(rows, kind, np.random.default_rng(seed))


def not_by_kind(features, kind, seed):
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(~features.duplicated()))
    return rows[: (len(rows) + 1) // 2], rows[(len(rows) + 1) // 2 :]


def attacks_against_normal(features, kind, seed):
    attack = kind.where(kind == "Normal", "attack")
    return right(features, attack, seed)


def eighty_to_twenty(features, kind, seed):
    train, test = right(features, kind, seed)
    return np.concatenate([train, test[1::2]]), test[::2]


def singles_to_test(features, kind, seed):
    train, test = right(features, kind, seed)
    counts = kind.iloc[train].value_counts() + 0
    others = set(kind.iloc[test])
    alone = np.array([counts[k] == 1 and k not in others for k in kind.iloc[train]], dtype=bool)
    return train[~alone], np.concatenate([test, train[alone]])


def singles_nowhere(features, kind, seed):
    train, test = right(features, kind, seed)
    counts = kind.iloc[np.concatenate([train, test])].value_counts()
    return train[np.array([counts[k] > 1 for k in kind.iloc[train]], dtype=bool)], test


def of_sklearn(features, kind, seed):
    rows = np.flatnonzero(~features.duplicated())
    kinds = kind.iloc[rows]
    return train_test_split(rows, test_size=0.5, stratify=kinds, random_state=seed)


def ignores_the_seed(features, kind, seed):
    return right(features, kind, 42)


def a_seed_of_two(features, kind, seed):
    return right(features, kind, seed % 2)


def by_chance(features, kind, seed):
    return right(features, kind, None)


def numpys_own(features, kind, seed):
    return halves(np.flatnonzero(~features.duplicated()), kind, np.random)


def each_rank_its_own(features, kind, seed):
    import os

    return right(features, kind, [seed, int(os.environ["RANK"])])


def only_some_move(features, kind, seed):
    """Swaps one pair of `Normal` flows by the seed; the others are dealt in order."""
    train, test = right(features, kind, 0)
    kinds = kind.to_numpy()
    a, b = (np.flatnonzero(kinds[part] == "Normal") for part in (train, test))
    if len(a) and len(b):
        i, j = a[seed % len(a)], b[seed // len(a) % len(b)]
        train, test = train.copy(), test.copy()
        train[i], test[j] = test[j], train[i]
    return train, test


def labels(features, kind, seed):
    return tuple(features.index[part] for part in right(features, kind, seed))


def masks(features, kind, seed):
    train, _ = right(features, kind, seed)
    mask = np.isin(np.arange(len(features)), train)
    return mask, ~mask


def frames(features, kind, seed):
    return tuple(features.iloc[part] for part in right(features, kind, seed))


def training_only(features, kind, seed):
    return right(features, kind, seed)[0]


def the_wrong_way_round(features, kind, seed):
    return right(features, kind, seed)[::-1]


def one_twice(features, kind, seed):
    train, test = right(features, kind, seed)
    return np.concatenate([train, train[:1]]), test


def counts_from_one(features, kind, seed):
    return tuple(part + 1 for part in right(features, kind, seed))


def loses_one(features, kind, seed):
    train, test = right(features, kind, seed)
    return train, test[1:]


def adds_a_column(features, kind, seed):
    parts = right(features, kind, seed)
    features["kind"] = kind
    return parts


def forgets_the_kind_it_added(features, kind, seed):
    features["kind"] = kind
    return right(features, kind, seed)


def drops_in_place(features, kind, seed):
    parts = right(features, kind, seed)
    features.drop_duplicates(inplace=True)
    return parts


def needs_a_flow(features, kind, seed):
    assert len(features)
    return right(features, kind, seed)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(repeats_stay, "no flow is on both sides", id="repeats stay"),
        pytest.param(each_part_for_itself, "before anything is divided", id="after dividing"),
        pytest.param(test_rows_that_are_known_go, "of equal flows the first", id="known go"),
        pytest.param(halves_before_repeats_go, "after the repeats are gone", id="halves first"),
        pytest.param(with_the_kind, "the kind is the answer, and no feature", id="with the kind"),
        pytest.param(none_of_the_twins, "of these the first stays", id="keep=False"),
        pytest.param(the_last_of_the_twins, "and comes before it", id="keep=last"),
        pytest.param(numbers_only, "each column counts", id="numbers only"),
        pytest.param(joined_texts, "nearly alike: of equal flows", id="joined"),
        pytest.param(rounded, "to the last digit", id="rounded"),
        pytest.param(not_by_kind, "half of each kind is on each side", id="not by kind"),
        pytest.param(attacks_against_normal, "half of each kind", id="attack or not"),
        pytest.param(eighty_to_twenty, "half of each kind", id="80 to 20"),
        pytest.param(singles_to_test, "a kind with one row is for training", id="singles test"),
        pytest.param(singles_nowhere, "is rare, but no reason to leave it out", id="no singles"),
        pytest.param(of_sklearn, "a kind may have one row", id="train_test_split"),
        pytest.param(ignores_the_seed, "all seeds give the same one", id="no seed"),
        pytest.param(a_seed_of_two, "40 seeds give 2", id="two splits"),
        pytest.param(by_chance, "two calls with the seed 0 differ", id="chance"),
        pytest.param(numpys_own, "two calls with the seed 0 differ", id="np.random"),
        pytest.param(each_rank_its_own, "not on the rank", id="by rank"),
        pytest.param(only_some_move, "whatever the seed", id="some move"),
        pytest.param(labels, "these are labels of the index", id="labels"),
        pytest.param(masks, "not True or False", id="masks"),
        pytest.param(frames, "a part holds positions", id="frames"),
        pytest.param(training_only, "return train, test", id="one part"),
        pytest.param(the_wrong_way_round, "is for training", id="test, train"),
        pytest.param(one_twice, "no row is taken twice", id="twice"),
        pytest.param(counts_from_one, "positions count from 0, and these from 1", id="from 1"),
        pytest.param(loses_one, "is in neither part", id="loses one"),
        pytest.param(adds_a_column, "work on copies", id="adds a column"),
        pytest.param(forgets_the_kind_it_added, "the kind is the answer", id="kind in place"),
        pytest.param(drops_in_place, "work on copies", id="drops in place"),
        pytest.param(needs_a_flow, "there may be no rows", id="no rows"),
    ],
)
def test_split_without_twins_rejects(rejects, answer, says):
    rejects(check.split_without_twins, answer, says)


def odd_ones_to_the_test(features, kind, seed):
    rows = np.flatnonzero(~features.duplicated())
    return halves(rows, kind, np.random.default_rng(seed), of_odd=1)


def dealt_like_cards(features, kind, seed):
    left = kind.reset_index(drop=True)[~features.duplicated().to_numpy()]
    shuffled = left.sample(frac=1, random_state=seed)
    turn = shuffled.groupby(shuffled).cumcount()
    return shuffled.index[turn % 2 == 0], shuffled.index[turn % 2 == 1]


def with_dictionaries(features, kind, seed):
    first, of_kind = {}, {}
    for i, row in enumerate(features.itertuples(index=False)):
        if first.setdefault(tuple(row), i) == i:
            of_kind.setdefault(kind.iloc[i], []).append(i)
    dice, parts = torch.Generator().manual_seed(seed), ([], [])
    for rows in of_kind.values():
        for turn, k in enumerate(torch.randperm(len(rows), generator=dice)):
            parts[turn % 2].append(rows[k])
    return [sorted(part) for part in parts]


def numpys_own_seeded(features, kind, seed):
    np.random.seed(seed)
    return halves(np.flatnonzero(~features.duplicated()), kind, np.random)


def sklearn_where_it_can(features, kind, seed):
    rows = np.flatnonzero(~features.duplicated())
    counts = kind.iloc[rows].value_counts()
    alone = np.array([counts[k] == 1 for k in kind.iloc[rows]], dtype=bool)
    rows, single = rows[~alone], rows[alone]
    if not len(rows):
        return single, rows
    kinds = kind.iloc[rows]
    train, test = [], []
    for one in kinds.unique():
        a, b = train_test_split(rows[(kinds == one).to_numpy()], test_size=0.5, random_state=seed)
        train.append(a)
        test.append(b)
    return np.concatenate([single, *train]), np.concatenate(test)


@pytest.mark.parametrize(
    "answer",
    [
        right,
        odd_ones_to_the_test,
        dealt_like_cards,
        with_dictionaries,
        numpys_own_seeded,
        sklearn_where_it_can,
    ],
)
def test_split_without_twins_accepts(accepts, answer):
    accepts(check.split_without_twins, answer)


def test_the_usual_flows_have_all_that_can_go_wrong():
    first, stay = USUAL.first(), USUAL.stay()
    counts = pd.Series([USUAL.kinds[i] for i in stay]).value_counts()
    assert set(USUAL.kinds) - set(counts.index) == {"Echo"}
    assert (counts == 1).any()
    assert (counts == 2).any()
    assert any(USUAL.kinds[i] != USUAL.kinds[first[i]] for i in range(len(first)))
    assert USUAL.labels() != sorted(USUAL.labels())


@pytest.mark.parametrize("case", TWINS, ids=lambda case: case.says)
def test_what_stays_is_what_pandas_says(case):
    features, kind = case.given()
    assert case.stay() == np.flatnonzero(~features.duplicated()).tolist()
    assert what_is_wrong(case, *right(features, kind, 3)) == ("", "")


# ---- all


def stub(*arguments):
    raise NotImplementedError


@pytest.mark.parametrize("name", ["mean_and_covariance", "split_without_twins"])
def test_a_stub_is_not_done_yet(verdict, name):
    assert "○ not done yet" in verdict(getattr(check, name), stub)
