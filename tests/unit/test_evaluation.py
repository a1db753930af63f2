import math
import time

import evaluation_ranks
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from sklearn.metrics import f1_score

from course_lib.evaluation import (
    accuracy_and_f1,
    accuracy_over_ranks,
    confusion_over_ranks,
    mean_over_ranks,
    rmse_over_ranks,
    shard_indices,
    sum_over_ranks,
)

DEADLINE = 150  # seconds for all ranks and worlds, start included


@pytest.fixture(scope="module")
def folder_of_answers(tmp_path_factory):
    """The answers of real processes, one file a rank and world size."""
    folder = tmp_path_factory.mktemp("answers")
    context = mp.spawn(
        evaluation_ranks.run, args=(str(folder),), nprocs=max(evaluation_ranks.WORLDS), join=False
    )
    end = time.monotonic() + DEADLINE
    try:
        while not context.join(timeout=max(0.0, end - time.monotonic())):
            assert time.monotonic() < end, f"the ranks are still running after {DEADLINE} s"
    finally:
        for process in context.processes:
            process.kill()
            process.join()
    return folder


@pytest.fixture(scope="module", params=evaluation_ranks.WORLDS)
def ranks(request, folder_of_answers):
    """What every rank of one world size answered."""
    world_size = request.param
    return [torch.load(folder_of_answers / f"{world_size}_{r}.pt") for r in range(world_size)]


@pytest.fixture(scope="module")
def whole():
    return {name: values.numpy() for name, values in evaluation_ranks.samples().items()}


def rmse(predictions, targets):
    errors = predictions.astype(np.float64) - targets.astype(np.float64)
    return np.sqrt(np.mean(errors**2))


# Sharding


@pytest.mark.parametrize("n", [0, 1, 2, 5, 7, 100, 4128])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8])
def test_every_index_falls_to_exactly_one_rank(n, world_size):
    parts = [shard_indices(n, rank, world_size) for rank in range(world_size)]

    assert [i for part in parts for i in part] == list(range(n))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_shards_index_tensors_also_when_empty():
    table = torch.arange(6.0).reshape(3, 2)

    assert table[shard_indices(3, 1, 2)].tolist() == [[4.0, 5.0]]
    assert table[shard_indices(3, 4, 5)].shape == (0, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 0, 2), "n=-1"),
        ((4, 2, 2), "rank=2: with world_size=2 the ranks are 0 to 1"),
        ((4, -1, 2), "rank=-1"),
        ((4, 0, 0), "world_size=0"),
    ],
)
def test_bad_shards_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        shard_indices(*arguments)


def test_shards_of_a_fraction_are_refused():
    with pytest.raises(TypeError):
        shard_indices(4.0, 0, 2)


# On real ranks


def test_the_ranks_hold_every_sample_once(ranks):
    held = [i for answers in ranks for i in answers["indices"]]

    assert sorted(held) == list(range(evaluation_ranks.SAMPLES))


def test_all_ranks_agree_to_the_last_bit(ranks):
    for answers in ranks[1:]:
        for name in ("rmse", "rmse_few", "accuracy", "accuracy_few", "mean"):
            assert answers[name] == ranks[0][name]
        assert torch.equal(answers["confusion"], ranks[0]["confusion"])


def test_metrics_equal_numpy_on_the_whole(ranks, whole):
    answers = ranks[0]

    expected = rmse(whole["predictions"], whole["targets"])
    assert answers["rmse"] == pytest.approx(expected, rel=1e-12)
    assert answers["mean"] == pytest.approx(expected**2, rel=1e-12)
    assert answers["accuracy"] == np.mean(whole["predicted"] == whole["actual"])


def test_metrics_with_empty_shards_equal_numpy(ranks, whole):
    answers, few = ranks[0], {name: v[: evaluation_ranks.FEW] for name, v in whole.items()}

    assert sum(a["few_sizes"] for a in ranks) == evaluation_ranks.FEW
    expected = rmse(few["predictions"], few["targets"])
    assert answers["rmse_few"] == pytest.approx(expected, rel=1e-12)
    assert answers["accuracy_few"] == np.mean(few["predicted"] == few["actual"])
    assert answers["confusion_few"].sum() == evaluation_ranks.FEW


def test_confusion_rows_count_each_class_exactly(ranks, whole):
    confusion = ranks[0]["confusion"].numpy()

    expected = np.zeros((evaluation_ranks.CLASSES,) * 2, dtype=np.int64)
    np.add.at(expected, (whole["actual"], whole["predicted"]), 1)
    assert confusion.dtype == np.int64
    assert (confusion == expected).all()
    assert (confusion.sum(axis=1) == np.bincount(whole["actual"])).all()


def test_a_mapping_takes_one_all_reduce(ranks):
    assert [answers["calls"] for answers in ranks] == [1] * len(ranks)


def test_sums_keep_names_order_and_shapes(ranks):
    world_size = len(ranks)
    for answers in ranks:
        summed = answers["summed"]
        assert answers["order"]
        assert summed["tensor"].dtype == torch.float64
        tenths = float(sum(torch.tensor(0.1 * r).double() for r in range(world_size)))
        assert summed["tensor"].tolist() == [
            [world_size, 2 * world_size],
            [3 * world_size, pytest.approx(tenths, rel=1e-12)],
        ]
        assert summed["float"] == pytest.approx(0.1 * world_size, rel=1e-15)
        assert summed["int"] == world_size * 2**50 + sum(range(world_size))
        assert summed["half"].tolist() == [world_size / 2] * 2
        assert not summed["half"].requires_grad
        assert summed["flag"] == 1
        assert summed["empty"].shape == (0,)


def test_a_single_tensor_is_summed_in_its_shape(ranks):
    total = sum(rank + 1 for rank in range(len(ranks)))

    assert ranks[0]["tensor"].dtype == torch.float64
    assert ranks[0]["tensor"].tolist() == [[total] * 3] * 2


def test_ranks_with_other_names_or_shapes_all_get_an_error(ranks):
    for answers in ranks:
        if len(ranks) == 1:
            assert answers["names"] == answers["shapes"] == "no error"
        else:
            assert answers["names"].startswith("ValueError: sum_over_ranks: the ranks do not hold")
            assert answers["shapes"].startswith("ValueError: sum_over_ranks: the ranks do not hold")
    if len(ranks) > 1:
        assert ranks[0]["names"].endswith("This rank holds: loss[]")
        assert ranks[1]["names"].endswith("This rank holds: lost[]")


def test_integers_beyond_exact_float64_are_an_error_on_every_rank(ranks):
    for answers in ranks:
        assert answers["too_large"].startswith("ValueError: sum_over_ranks: whole numbers")
        if len(ranks) > 1:
            assert answers["cancels"].startswith("ValueError: sum_over_ranks: whole numbers")


def test_no_sample_anywhere_is_an_error_on_every_rank(ranks):
    assert {answers["nobody"] for answers in ranks} == {
        "ValueError: no samples to average: the ranks' counts add up to 0"
    }


# Without a process group


def test_without_a_process_group_the_world_is_this_process(whole):
    assert not dist.is_initialized()
    data = evaluation_ranks.samples()

    expected = rmse(whole["predictions"], whole["targets"])
    assert rmse_over_ranks(data["predictions"], data["targets"]) == pytest.approx(
        expected, rel=1e-12
    )
    assert sum_over_ranks({"b": 2, "a": torch.ones(2)})["a"].tolist() == [1.0, 1.0]
    assert sum_over_ranks({}) == {}
    assert mean_over_ranks(3, 2) == 1.5
    confusion = confusion_over_ranks(torch.tensor([1, 0]), torch.tensor([0, 0]), classes=2)
    assert confusion.tolist() == [[1, 1], [0, 0]]


def test_fingerprints_that_average_to_ours_are_noticed(monkeypatch):
    def three_ranks(flat):  # the others' fingerprints are ours - 1 and ours + 1
        flat = flat * 3
        flat[1] += 2
        return flat, 3

    monkeypatch.setattr("course_lib.evaluation._all_reduce", three_ranks)
    with pytest.raises(ValueError, match="do not hold the same names"):
        sum_over_ranks({"loss": 1.0})


def test_float32_predictions_are_subtracted_in_float64():
    # In float32 the difference of these two is 0.
    predictions = torch.tensor([16777216.0], dtype=torch.float32)
    targets = torch.tensor([16777217.0], dtype=torch.float64)

    assert rmse_over_ranks(predictions, targets) == 1.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU and NCCL")
def test_nccl_moves_the_sums_to_the_gpu_and_back():
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        values = torch.arange(5.0)
        assert sum_over_ranks({"x": values})["x"].device.type == "cpu"
        assert accuracy_over_ranks(values.cuda() > 1, values.cuda() > 2) == 0.8
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sum_over_ranks([1.0]), TypeError, "values is a list"),
        (lambda: sum_over_ranks({"loss": "3"}), TypeError, "loss is a str"),
        (lambda: sum_over_ranks({"z": torch.ones(1) * 1j}), TypeError, "z is a torch.complex64"),
        (lambda: sum_over_ranks({"n": 2**53}), ValueError, "2\\*\\*53"),
        (lambda: sum_over_ranks({"n": torch.tensor([2**60])}), ValueError, "2\\*\\*53"),
        (lambda: mean_over_ranks(torch.ones(3), 3), ValueError, "total has shape \\[3\\]"),
        (lambda: mean_over_ranks(1.0, 0), ValueError, "no samples"),
        (
            lambda: rmse_over_ranks(torch.ones(3, 1), torch.ones(3)),
            ValueError,
            "predictions has shape \\[3, 1\\] and targets has \\[3\\]",
        ),
        (lambda: rmse_over_ranks([1.0], torch.ones(1)), TypeError, "predictions is a list"),
        (
            lambda: accuracy_over_ranks(torch.ones(3, 4), torch.ones(3)),
            ValueError,
            "argmax",
        ),
        (
            lambda: confusion_over_ranks(torch.tensor([4]), torch.tensor([0]), classes=4),
            ValueError,
            "predicted holds labels from 4 to 4: with classes=4 they must be 0 to 3",
        ),
        (
            lambda: confusion_over_ranks(torch.tensor([0]), torch.tensor([-1]), classes=4),
            ValueError,
            "actual holds labels from -1",
        ),
        (
            lambda: confusion_over_ranks(torch.tensor([0.5]), torch.tensor([0]), classes=4),
            TypeError,
            "predicted has dtype torch.float32",
        ),
    ],
)
def test_mistakes_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_accuracy_and_f1_of_two_classes():
    actual, predicted = torch.tensor([0, 0, 1, 1, 1, 1, 0]), torch.tensor([0, 1, 1, 1, 0, 1, 0])
    accuracy, f1 = accuracy_and_f1(confusion_over_ranks(predicted, actual, classes=2))
    assert accuracy == pytest.approx(5 / 7)
    assert f1 == pytest.approx(f1_score(actual, predicted))
    assert accuracy_and_f1(torch.tensor([[3, 1], [2, 0]])) == (0.5, 0.0)
    assert math.isnan(accuracy_and_f1(torch.zeros(2, 2))[1])
    with pytest.raises(ValueError, match="F1 needs two classes"):
        accuracy_and_f1(torch.zeros(3, 3))
