"""Exercises of lesson 30: wrong answers are told apart, right ones written differently pass."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.distributed as dist
from sklearn.metrics import f1_score
from torch.distributed import all_reduce
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from course_lib.checks import lesson_30 as check
from course_lib.checks._f1s import PARTS
from course_lib.checks._readings import REVIEWS, near, vectors_of, words_of
from course_lib.evaluation import confusion_over_ranks, sum_over_ranks

# ---- 30.1 · Pad and mask right: the table


def right_collate(reviews):
    longest = max(map(len, reviews), default=0)
    ids = torch.zeros(len(reviews), longest, dtype=torch.int64)
    for row, review in zip(ids, reviews, strict=True):
        row[: len(review)] = torch.tensor(review)
    return ids, ids != 0


def empty_list_fails(reviews):
    ids = pad_sequence([torch.tensor(r, dtype=torch.int64) for r in reviews], batch_first=True)
    return ids, ids != 0


def fills_up_in_place(reviews):
    longest = max(map(len, reviews), default=0)
    for review in reviews:
        review.extend([0] * (longest - len(review)))
    ids = torch.tensor(reviews, dtype=torch.int64).reshape(len(reviews), longest)
    return ids, ids != 0


def pads_on_the_left(reviews):
    ids, _ = right_collate(reviews)
    for row, review in zip(ids, reviews, strict=True):
        row.copy_(row.roll(len(row) - len(review)))
    return ids, ids != 0


def pads_with_minus_one(reviews):
    ids, real = right_collate(reviews)
    return ids.masked_fill(~real, -1), real


def pads_to_twelve(reviews):
    ids, _ = right_collate(reviews)
    ids = F.pad(ids, (0, 12 - ids.shape[1]))
    return ids, ids != 0


def cuts_to_the_shortest(reviews):
    ids, real = right_collate(reviews)
    shortest = min(map(len, reviews), default=0)
    return ids[:, :shortest], real[:, :shortest]


def drops_empty_reviews(reviews):
    return right_collate([review for review in reviews if review])


def sorts_by_length(reviews):
    return right_collate(sorted(reviews, key=len))


def tokens_in_rows(reviews):
    ids, real = right_collate(reviews)
    return ids.T, real.T


def as_floats(reviews):
    ids, real = right_collate(reviews)
    return ids.float(), real


def as_int32(reviews):
    ids, real = right_collate(reviews)
    return ids.int(), real


def real_as_numbers(reviews):
    ids, real = right_collate(reviews)
    return ids, real.long()


def real_is_padding(reviews):
    ids, real = right_collate(reviews)
    return ids, ~real


def real_everywhere(reviews):
    ids, real = right_collate(reviews)
    return ids, torch.ones_like(real)


def last_token_is_missed(reviews):
    ids, _ = right_collate(reviews)
    lengths = torch.tensor([len(review) for review in reviews])
    return ids, torch.arange(ids.shape[1]) < lengths[:, None] - 1


def only_ids(reviews):
    return right_collate(reviews)[0]


def lists(reviews):
    ids, real = right_collate(reviews)
    return ids.tolist(), real.tolist()


def as_wide_as_on_any_rank(reviews):
    ids, _ = right_collate(reviews)
    longest = torch.tensor(ids.shape[1])
    dist.all_reduce(longest, dist.ReduceOp.MAX)
    ids = F.pad(ids, (0, int(longest) - ids.shape[1]))
    return ids, ids != 0


def asks_the_others_for_nothing(reviews):
    dist.barrier()
    return right_collate(reviews)


def rank_0_asks_for_more(reviews):
    if dist.get_rank() == 0:
        dist.barrier()
    return right_collate(reviews)


# ---- and attention

NOTHING = float("-inf")


def scores_of(query, key):
    return query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5


def keys_of(real):
    return real[:, None, None, :]


def right_attention(query, key, value, real):
    scores = scores_of(query, key).masked_fill(~keys_of(real), NOTHING)
    return scores.softmax(dim=-1).masked_fill(~keys_of(real), 0.0) @ value


def no_mask(query, key, value, real):
    return scores_of(query, key).softmax(-1) @ value


def as_in_the_lesson(query, key, value, real):
    return scores_of(query, key).masked_fill(~keys_of(real), NOTHING).softmax(-1) @ value


def masks_after_softmax(query, key, value, real):
    return (scores_of(query, key).softmax(-1) * keys_of(real)) @ value


def masks_values(query, key, value, real):
    return scores_of(query, key).softmax(-1) @ (value * real[:, None, :, None])


def scores_of_zero(query, key, value, real):
    return (scores_of(query, key) * keys_of(real)).softmax(-1) @ value


def not_scaled(query, key, value, real):
    return right_attention(query * query.shape[-1] ** 0.5, key, value, real)


def scaled_by_size(query, key, value, real):
    return right_attention(query / query.shape[-1] ** 0.5, key, value, real)


def scaled_by_heads(query, key, value, real):
    return right_attention(query * (query.shape[-1] / query.shape[1]) ** 0.5, key, value, real)


def inverted(query, key, value, real):
    scores = scores_of(query, key).masked_fill(keys_of(real), NOTHING)
    return scores.softmax(-1).nan_to_num() @ value


def hides_queries(query, key, value, real):
    scores = scores_of(query, key).masked_fill(~real[:, None, :, None], NOTHING)
    return scores.softmax(-1).nan_to_num() @ value


def softmax_over_queries(query, key, value, real):
    scores = scores_of(query, key).masked_fill(~keys_of(real), NOTHING)
    return scores.softmax(-2).nan_to_num() @ value


def keys_ask(query, key, value, real):
    return right_attention(key, query, value, real)


def mask_without_heads(query, key, value, real):
    return scores_of(query, key).masked_fill(~real[:, None, :], -1e9).softmax(-1) @ value


def large_but_finite(query, key, value, real):
    return scores_of(query, key).masked_fill(~keys_of(real), -1e9).softmax(-1) @ value


def small_shares(query, key, value, real):
    scores = scores_of(query, key).masked_fill(~keys_of(real), -18.0)
    return scores.softmax(-1) @ value * real.any(1)[:, None, None, None]


def adds_a_large_number(query, key, value, real):
    scores = scores_of(query, key) - 1e3 * ~keys_of(real)
    return scores.softmax(-1) @ value * real.any(1)[:, None, None, None]


def exp_then_mask(query, key, value, real):
    shares = scores_of(query, key).exp() * keys_of(real)
    return shares / shares.sum(-1, keepdim=True).clamp(min=1e-30) @ value


def hides_queries_too(query, key, value, real):
    both = keys_of(real) & real[:, None, :, None]
    return scores_of(query, key).masked_fill(~both, NOTHING).softmax(-1) @ value


def nan_to_num_at_the_end(query, key, value, real):
    return as_in_the_lesson(query, key, value, real).nan_to_num()


def adds_minus_infinity(query, key, value, real):
    """Forward it is right; backward the way through the sum is open to NaN."""
    scores = scores_of(query, key) + torch.where(keys_of(real), 0.0, NOTHING)
    return torch.nan_to_num(scores.softmax(-1), 0.0) @ value


def where_at_the_end(query, key, value, real):
    got = as_in_the_lesson(query, key, value, real)
    return torch.where(real.any(1)[:, None, None, None], got, 0.0)


def listens_to_the_first(query, key, value, real):
    some = real.clone()
    some[:, 0] = True
    return as_in_the_lesson(query, key, value, some)


def writes_into_values(query, key, value, real):
    value.masked_fill_(~real[:, None, :, None], 0.0)
    return right_attention(query, key, value, real)


def turns_real_around(query, key, value, real):
    torch.logical_not(real, out=real)
    return right_attention(query, key, value, ~real)


def detached(query, key, value, real):
    return right_attention(query, key, value, real).detach()


def shares_without_gradients(query, key, value, real):
    with torch.no_grad():
        scores = scores_of(query, key).masked_fill(~keys_of(real), NOTHING)
        shares = scores.softmax(-1).masked_fill(~keys_of(real), 0.0)
    return shares @ value


def leaks_a_gradient(query, key, value, real):
    got = right_attention(query, key, value, real)
    extra = value.mean(2, keepdim=True)
    return got + (extra - extra.detach())


def stops_at_the_scores(query, key, value, real):
    return right_attention(query, key.detach(), value, real)


def rounded(query, key, value, real):
    scores = scores_of(query, key)
    scores = scores + (scores.round(decimals=7) - scores).detach() - 0.5 * scores
    scores = scores + 0.5 * scores_of(query, key).detach()
    scores = scores.masked_fill(~keys_of(real), NOTHING)
    return scores.softmax(-1).masked_fill(~keys_of(real), 0.0) @ value


def in_float64(query, key, value, real):
    return right_attention(query.double(), key.double(), value.double(), real)


def in_bfloat16(query, key, value, real):
    got = right_attention(query.bfloat16(), key.bfloat16(), value.bfloat16(), real)
    return got.float()


def heads_in_a_row(query, key, value, real):
    return right_attention(query, key, value, real).transpose(1, 2).flatten(2)


def drops_what_is_padded(query, key, value, real):
    return right_attention(query, key, value, real)[:, :, real.any(0)][real.any(1)]


def returns_a_pair(query, key, value, real):
    return right_attention(query, key, value, real), real


COLLATES = [
    pytest.param(empty_list_fails, "a rank's list of reviews, too", id="empty list"),
    pytest.param(fills_up_in_place, "the reviews have changed", id="in place"),
    pytest.param(pads_on_the_left, "the review, then 0s", id="left"),
    pytest.param(pads_with_minus_one, "the review, then 0s", id="-1"),
    pytest.param(pads_to_twelve, "ids has the shape (5, 12)", id="too wide"),
    pytest.param(cuts_to_the_shortest, "ids has the shape (5, 0)", id="shortest"),
    pytest.param(drops_empty_reviews, "ids has the shape (4, 6)", id="no empty ones"),
    pytest.param(sorts_by_length, "row 0 of ids: the review", id="sorted"),
    pytest.param(tokens_in_rows, "and the longest of 5 reviews has 6 tokens", id="transposed"),
    pytest.param(as_floats, "ids has to be of torch.int64", id="floats"),
    pytest.param(as_int32, "ids has to be of torch.int64", id="int32"),
    pytest.param(real_as_numbers, "real has to be of torch.bool", id="real as numbers"),
    pytest.param(real_is_padding, "real is True where there is a token", id="real inverted"),
    pytest.param(real_everywhere, "of real: True for 0 tokens", id="all real"),
    pytest.param(last_token_is_missed, "of real: True for 6 tokens", id="off by one"),
    pytest.param(only_ids, "return two tensors", id="only ids"),
    pytest.param(lists, "ids has to be a tensor", id="lists"),
    pytest.param(as_wide_as_on_any_rank, "ids has the shape (5, 12)", id="all ranks' width"),
    pytest.param(asks_the_others_for_nothing, "called barrier", id="barrier"),
    pytest.param(rank_0_asks_for_more, "rank 1 nothing more", id="rank 0 alone"),
]

ATTENTIONS = [
    pytest.param(no_mask, "padding is listened to", id="no mask"),
    pytest.param(as_in_the_lesson, "softmax is 0 / 0", id="the lesson's"),
    pytest.param(masks_after_softmax, "mask before the softmax", id="after softmax"),
    pytest.param(masks_values, "mask before the softmax", id="values"),
    pytest.param(scores_of_zero, "exp(0) = 1", id="score 0"),
    pytest.param(not_scaled, "divide by sqrt(size)", id="not scaled"),
    pytest.param(scaled_by_size, "sqrt(size), not by size", id="by size"),
    pytest.param(scaled_by_heads, "each review gets the vectors it has alone", id="by heads"),
    pytest.param(inverted, "listens to padding only", id="inverted"),
    pytest.param(hides_queries, "hide its keys, real[:, None, None, :]", id="queries"),
    pytest.param(softmax_over_queries, "softmax(dim=-1)", id="dim=-2"),
    pytest.param(keys_ask, "each query listens to the keys", id="exchanged"),
    pytest.param(mask_without_heads, "rank 0 raised RuntimeError", id="mask of 3 dimensions"),
    pytest.param(large_but_finite, "without real tokens, make it 0", id="-1e9"),
    pytest.param(small_shares, "what stands in padded places", id="-18"),
    pytest.param(adds_a_large_number, "has to be exactly 0, not small", id="- 1e3"),
    pytest.param(exp_then_mask, "mask before exp", id="exp"),
    pytest.param(hides_queries_too, "nothing is NaN", id="queries, too"),
    pytest.param(nan_to_num_at_the_end, "before they meet the values", id="nan_to_num at the end"),
    pytest.param(where_at_the_end, "before they meet the values", id="where at the end"),
    pytest.param(adds_minus_infinity, "adding minus infinity does not", id="+ -inf"),
    pytest.param(listens_to_the_first, "without real tokens, make it 0", id="first token"),
    pytest.param(writes_into_values, "work on copies", id="in place"),
    pytest.param(turns_real_around, "work on copies", id="real in place"),
    pytest.param(detached, "gradients have to flow back", id="detached"),
    pytest.param(shares_without_gradients, "no gradient reaches query", id="no_grad"),
    pytest.param(stops_at_the_scores, "no gradient reaches key", id="key detached"),
    pytest.param(leaks_a_gradient, "value is not 0 in padded places", id="leak"),
    pytest.param(rounded, "the gradient of query is another one", id="half a gradient"),
    pytest.param(in_float64, "return float32", id="float64"),
    pytest.param(in_bfloat16, "it has alone", id="bfloat16"),
    pytest.param(heads_in_a_row, "what came back (5, 6, 16)", id="heads in a row"),
    pytest.param(drops_what_is_padded, "what came back (4, 2, 6, 8)", id="dropped"),
    pytest.param(returns_a_pair, "attention returns a tensor", id="a pair"),
]


@pytest.mark.parametrize(("collate", "says"), COLLATES)
def test_pad_and_mask_rejects_tables(rejects, collate, says):
    rejects(lambda collate: check.pad_and_mask(collate, right_attention), collate, says)


@pytest.mark.parametrize(("attention", "says"), ATTENTIONS)
def test_pad_and_mask_rejects_attention(rejects, attention, says):
    rejects(partial(check.pad_and_mask, right_collate), attention, says)


def collate_by_lists(reviews):
    longest = max([len(review) for review in reviews] or [0])
    rows = [review + [0] * (longest - len(review)) for review in reviews]
    ids = torch.tensor(rows, dtype=torch.int64).reshape(len(reviews), longest)
    return ids, ids.bool()


def collate_by_lengths(reviews):
    lengths = torch.tensor([len(review) for review in reviews], dtype=torch.int64)
    longest = int(lengths.max()) if len(lengths) else 0
    real = torch.arange(longest) < lengths[:, None]
    ids = torch.zeros(real.shape, dtype=torch.int64)
    ids[real] = torch.tensor([token for review in reviews for token in review], dtype=torch.int64)
    return ids, real


def collate_by_torch(reviews):
    return empty_list_fails(reviews) if reviews else right_collate([])


def collate_by_numpy(reviews):
    ids = np.zeros((len(reviews), max(map(len, reviews), default=0)), dtype=np.int64)
    for k, review in enumerate(reviews):
        ids[k, : len(review)] = review
    return [torch.from_numpy(ids), torch.from_numpy(ids > 0)]


def by_torch(query, key, value, real):
    return F.scaled_dot_product_attention(query, key, value, keys_of(real))


def by_nan_to_num(query, key, value, real):
    scores = torch.where(keys_of(real), scores_of(query, key), NOTHING)
    return torch.nan_to_num(scores.softmax(-1), 0.0) @ value


def by_a_finite_mask(query, key, value, real):
    scores = scores_of(query, key).masked_fill(~keys_of(real), torch.finfo(query.dtype).min)
    return (scores.softmax(-1) * keys_of(real)) @ value


def by_exp(query, key, value, real):
    scores = scores_of(query, key).masked_fill(~keys_of(real), -1e9)
    shares = (scores - scores.amax(-1, keepdim=True)).exp() * keys_of(real)
    return shares @ value / shares.sum(-1, keepdim=True).clamp(min=1e-9)


def by_einsum(query, key, value, real):
    key, value = (x.masked_fill(~real[:, None, :, None], 0.0) for x in (key, value))
    scores = torch.einsum("bhik,bhjk->bhij", query, key) * query.shape[-1] ** -0.5
    shares = scores.masked_fill(~real[:, None, None], -1e9).softmax(3)
    return torch.einsum("bhij,bhjk->bhik", shares, value)


def text_by_text(query, key, value, real):
    rows = []
    for q, k, v, some in zip(query, key, value, real, strict=True):
        shares = scores_of(q, k[:, some]).softmax(-1)
        rows.append(shares @ v[:, some])
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("collate", "attention"),
    [
        pytest.param(right_collate, right_attention, id="masked_fill twice"),
        pytest.param(collate_by_lists, by_torch, id="scaled_dot_product_attention"),
        pytest.param(collate_by_lengths, by_nan_to_num, id="nan_to_num of shares"),
        pytest.param(collate_by_torch, by_a_finite_mask, id="pad_sequence, finfo.min"),
        pytest.param(collate_by_numpy, by_exp, id="numpy, exp"),
        pytest.param(right_collate, by_einsum, id="einsum"),
        pytest.param(right_collate, text_by_text, id="text by text"),
    ],
)
def test_pad_and_mask_accepts(accepts, collate, attention):
    accepts(partial(check.pad_and_mask, collate), attention)


def test_the_reviews_are_far_from_the_bound():
    """A right answer in float32 has room, and another table shows in every review but one."""
    for k, review in enumerate(REVIEWS):
        words = words_of(torch.tensor([review], dtype=torch.int64))
        real = torch.ones(1, len(review), dtype=torch.bool)
        assert near(right_attention(*words, real)[0], vectors_of(k), 5e-7)
        if review:
            padded = words_of(torch.tensor([[*review, 0]])[:, :12])
            assert len(review) == 12 or not near(
                no_mask(*padded, None)[0, :, : len(review)], vectors_of(k), 1e-2
            )


# ---- 30.2 · F1 from counts


def own_counts(predicted, actual):
    """Hits, false alarms, misses."""
    called, are = predicted == 1, actual == 1
    return torch.stack([(called & are).sum(), (called & ~are).sum(), (~called & are).sum()])


def f1_of(hits, false_alarms, missed):
    return 2 * hits / max(2 * hits + false_alarms + missed, 1)


def counts_of_all(predicted, actual, dtype=torch.int64):
    counts = own_counts(predicted, actual).to(dtype)
    dist.all_reduce(counts)
    return counts.tolist()


def summed(*numbers):
    total = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(total)
    return total.tolist()


def from_counts(predicted, actual):
    return f1_of(*counts_of_all(predicted, actual))


def own_f1(predicted, actual):
    return f1_of(*own_counts(predicted, actual).tolist())


def mean_of_f1s(predicted, actual):
    return summed(own_f1(predicted, actual))[0] / dist.get_world_size()


def mean_over_ranks_with_reviews(predicted, actual):
    total, ranks = summed(own_f1(predicted, actual), float(len(actual) > 0))
    return total / ranks


def sum_of_f1s(predicted, actual):
    return summed(own_f1(predicted, actual))[0]


def weighed_by_reviews(predicted, actual):
    total, n = summed(own_f1(predicted, actual) * len(actual), len(actual))
    return total / n


def weighed_by_positives(predicted, actual):
    positives = int(actual.sum())
    total, n = summed(own_f1(predicted, actual) * positives, positives)
    return total / max(n, 1)


def accuracy(predicted, actual):
    right, n = summed((predicted == actual).sum(), len(actual))
    return right / n


def precision(predicted, actual):
    hits, false_alarms, _ = counts_of_all(predicted, actual)
    return hits / max(hits + false_alarms, 1)


def recall(predicted, actual):
    hits, _, missed = counts_of_all(predicted, actual)
    return hits / max(hits + missed, 1)


def plain_mean_of_both(predicted, actual):
    hits, false_alarms, missed = counts_of_all(predicted, actual)
    return hits / max(hits + false_alarms, 1) / 2 + hits / max(hits + missed, 1) / 2


def from_mean_precision_and_recall(predicted, actual):
    hits, false_alarms, missed = own_counts(predicted, actual).tolist()
    p, r = summed(hits / max(hits + false_alarms, 1), hits / max(hits + missed, 1))
    return 2 * p * r / max(p + r, 1e-9) / dist.get_world_size()


def hits_count_once(predicted, actual):
    hits, false_alarms, missed = counts_of_all(predicted, actual)
    return hits / max(hits + false_alarms + missed, 1)


def of_the_negatives(predicted, actual):
    return from_counts(1 - predicted, 1 - actual)


def of_both_classes(predicted, actual):
    positive = own_counts(predicted, actual)
    counts = torch.cat([positive, (predicted + actual == 0).sum()[None]])
    dist.all_reduce(counts)
    hits, false_alarms, missed, passed = counts.tolist()
    return (f1_of(hits, false_alarms, missed) + f1_of(passed, missed, false_alarms)) / 2


def divides_by_zero(predicted, actual):
    hits, false_alarms, missed = counts_of_all(predicted, actual)
    return 2 * hits / (2 * hits + false_alarms + missed)


def nothing_found_divides_by_zero(predicted, actual):
    hits, false_alarms, missed = counts_of_all(predicted, actual)
    if hits + false_alarms + missed == 0:
        return 0.0
    p, r = hits / max(hits + false_alarms, 1), hits / max(hits + missed, 1)
    return 2 * p * r / (p + r)


def is_nan_without_positives(predicted, actual):
    counts = own_counts(predicted, actual).double()
    dist.all_reduce(counts)
    return (2 * counts[0] / (2 * counts[0] + counts[1] + counts[2])).item()


def is_one_without_positives(predicted, actual):
    counts = counts_of_all(predicted, actual)
    return f1_of(*counts) if any(counts) else 1.0


def is_none_without_positives(predicted, actual):
    counts = counts_of_all(predicted, actual)
    return f1_of(*counts) if any(counts) else None


def is_the_int_0(predicted, actual):
    return from_counts(predicted, actual) or 0


def as_a_tensor(predicted, actual):
    return torch.tensor(from_counts(predicted, actual), dtype=torch.float64)


def in_float32(predicted, actual):
    hits, false_alarms, missed = torch.tensor(counts_of_all(predicted, actual)).float()
    return (2 * hits / (2 * hits + false_alarms + missed).clamp(min=1)).item()


def in_bytes(predicted, actual):
    return f1_of(*counts_of_all(predicted, actual, torch.uint8))


def in_float16(predicted, actual):
    return f1_of(*counts_of_all(predicted, actual, torch.float16))


def tells_rank_0(predicted, actual):
    counts = own_counts(predicted, actual)
    dist.reduce(counts, dst=0)
    return f1_of(*counts.tolist())


def returns_on_rank_0(predicted, actual):
    found = from_counts(predicted, actual)
    return found if dist.get_rank() == 0 else None


def gathers_answers(predicted, actual):
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, (predicted, actual))
    return own_f1(*(torch.cat(part) for part in zip(*everyone, strict=True)))


def gathers_counts(predicted, actual):
    counts = own_counts(predicted, actual)
    everyone = [torch.empty_like(counts) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, counts)
    return f1_of(*sum(everyone).tolist())


def three_calls(predicted, actual):
    counts = own_counts(predicted, actual)
    for count in counts:
        dist.all_reduce(count)
    return f1_of(*counts.tolist())


def sends_every_answer(predicted, actual):
    """In places of its own in one long tensor, which all ranks add up."""
    answers = torch.zeros(dist.get_world_size(), 8000, 2, dtype=torch.int64)
    answers[dist.get_rank(), : len(actual)] = torch.stack([predicted, actual], dim=1)
    dist.all_reduce(answers)
    return own_f1(*answers.reshape(-1, 2).T)


def without_the_empty_rank(predicted, actual):
    counts = own_counts(predicted, actual)
    if len(actual):
        dist.all_reduce(counts)
    return f1_of(*counts.tolist())


def rank_0_alone(predicted, actual):
    counts = own_counts(predicted, actual)
    if dist.get_rank() == 0:
        dist.all_reduce(counts)
    return f1_of(*counts.tolist())


def does_not_wait(predicted, actual):
    counts = own_counts(predicted, actual)
    dist.all_reduce(counts, async_op=True)
    return f1_of(*counts.tolist())


def multiplied(predicted, actual):
    counts = own_counts(predicted, actual)
    dist.all_reduce(counts, op=dist.ReduceOp.PRODUCT)
    return f1_of(*counts.tolist())


def returns_nothing(predicted, actual):
    counts_of_all(predicted, actual)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(own_f1, "that is this rank's part only", id="own part"),
        pytest.param(mean_of_f1s, "a mean of the ranks' F1s is not the F1", id="mean of F1s"),
        pytest.param(mean_over_ranks_with_reviews, "of the ranks' F1s is not", id="of some"),
        pytest.param(sum_of_f1s, "F1s cannot be added", id="sum of F1s"),
        pytest.param(weighed_by_reviews, "no mean of the ranks' F1s", id="by reviews"),
        pytest.param(weighed_by_positives, "no mean of the ranks' F1s", id="by positives"),
        pytest.param(accuracy, "that is the accuracy", id="accuracy"),
        pytest.param(precision, "that is the precision", id="precision"),
        pytest.param(recall, "that is the recall", id="recall"),
        pytest.param(plain_mean_of_both, "F1 is no plain mean", id="plain mean"),
        pytest.param(from_mean_precision_and_recall, "precisions and recalls", id="mean P, R"),
        pytest.param(hits_count_once, "TP counts twice", id="TP once"),
        pytest.param(of_the_negatives, "F1 of the negative class", id="negatives"),
        pytest.param(of_both_classes, "a mean over both classes", id="both classes"),
        pytest.param(divides_by_zero, "ZeroDivisionError", id="0 / 0"),
        pytest.param(nothing_found_divides_by_zero, "ZeroDivisionError", id="P + R = 0"),
        pytest.param(is_nan_without_positives, "0 / 0 is NaN", id="NaN"),
        pytest.param(is_one_without_positives, "0.0 is asked for where", id="1 for 0 / 0"),
        pytest.param(is_none_without_positives, "return a float, also", id="None for 0 / 0"),
        pytest.param(is_the_int_0, "return a float, also", id="int 0"),
        pytest.param(as_a_tensor, "return a plain float", id="tensor"),
        pytest.param(in_float32, "nearly: divide whole numbers", id="float32"),
        pytest.param(in_bytes, "4 ranks, thousands of reviews", id="uint8"),
        pytest.param(in_float16, "4 ranks, thousands of reviews", id="float16"),
        pytest.param(tells_rank_0, "only rank 0 has it", id="reduce"),
        pytest.param(returns_on_rank_0, "only rank 0 has it", id="returns on rank 0"),
        pytest.param(gathers_answers, "brings each rank the numbers of all", id="gathers all"),
        pytest.param(gathers_counts, "brings each rank the numbers of all", id="all_gather"),
        pytest.param(three_calls, "into one tensor", id="three calls"),
        pytest.param(sends_every_answer, "few numbers travel", id="sends every answer"),
        pytest.param(without_the_empty_rank, "rank 1 nothing more", id="no empty rank"),
        pytest.param(rank_0_alone, "rank 1 nothing more", id="rank 0 alone"),
        pytest.param(does_not_wait, "2 ranks, 11 reviews and 1", id="does not wait"),
        pytest.param(multiplied, "add up those of all ranks", id="product"),
        pytest.param(returns_nothing, "return a float", id="None"),
    ],
)
def test_f1_over_ranks_rejects(rejects, answer, says):
    rejects(check.f1_over_ranks, answer, says)


def waits_for_a_message(predicted, actual):
    if dist.get_rank() == 1:
        dist.recv(torch.zeros(1), src=0)
    return from_counts(predicted, actual)


@pytest.mark.faults
def test_f1_over_ranks_names_the_rank_that_hangs(verdict, impatient):
    said = verdict(check.f1_over_ranks, waits_for_a_message)
    assert "it hangs" in said
    assert "test_lesson_30.py, line" in said


def from_a_confusion_matrix(predicted, actual):
    (_, false_alarms), (missed, hits) = confusion_over_ranks(predicted, actual, 2).tolist()
    return f1_of(hits, false_alarms, missed)


def by_bincount(predicted, actual):
    counts = torch.bincount(2 * actual + predicted, minlength=4)
    all_reduce(counts)
    _, false_alarms, missed, hits = counts.tolist()
    below = 2 * hits + false_alarms + missed
    return 2 * hits / below if below else 0.0


def from_precision_and_recall(predicted, actual):
    hits, called, are = summed((predicted & actual).sum(), predicted.sum(), actual.sum())
    if not hits:
        return 0.0
    p, r = hits / called, hits / are
    return 2 * p * r / (p + r)


def from_two_numbers(predicted, actual):
    """The number below the line is that of called and of positive ones."""
    both = torch.tensor([2 * (predicted * actual).sum(), (predicted + actual).sum()])
    work = dist.all_reduce(both, async_op=True)
    work.wait()
    above, below = both.tolist()
    return float(np.float64(above) / max(below, 1))


def with_the_courses_own(predicted, actual):
    hits, false_alarms, missed = own_counts(predicted, actual).tolist()
    sums = sum_over_ranks({"hits": hits, "wrong": false_alarms + missed})
    return sums["hits"] / (sums["hits"] + sums["wrong"] / 2 or 1.0)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(from_counts, id="three counts"),
        pytest.param(from_a_confusion_matrix, id="confusion_over_ranks"),
        pytest.param(by_bincount, id="bincount"),
        pytest.param(from_precision_and_recall, id="precision and recall"),
        pytest.param(from_two_numbers, id="two numbers"),
        pytest.param(with_the_courses_own, id="sum_over_ranks"),
    ],
)
def test_f1_over_ranks_accepts(accepts, answer):
    accepts(check.f1_over_ranks, answer)


@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_f1_is_that_of_sklearn(parts):
    answers = [rank.answers() for rank in parts.ranks]
    predicted, actual = (torch.cat(part) for part in zip(*answers, strict=True))
    expected = f1_score(actual, predicted, zero_division=0.0)
    assert parts.whole().f1() == pytest.approx(expected, rel=1e-12, abs=0)


# ---- all


def stub(*arguments):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("pad_and_mask", (stub, stub)),
        ("pad_and_mask", (right_collate, stub)),
        ("f1_over_ranks", (stub,)),
    ],
)
def test_a_stub_is_not_done_yet(verdict, name, answers):
    assert "○ not done yet" in verdict(getattr(check, name), *answers)
