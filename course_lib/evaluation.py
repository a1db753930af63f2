"""Evaluate on every rank at once, and get the number one process would get.

``DistributedSampler`` repeats samples until all ranks hold equally many. In training that does
little harm; in an evaluation some samples count twice. And a mean of per-rank means is wrong as
soon as the ranks hold unequally many samples. So here:

- the samples are divided without padding: every index belongs to exactly one rank;
- ranks exchange *sums and counts*, never averages, and divide once at the end;
- everything is summed in float64: world sizes agree to a relative 1e-9, and counts are exact;
- every function works with an empty shard, and without a process group (a world of one).

All functions but ``shard_indices`` are collectives: every rank must call them, and every rank gets
the same result.
"""

import operator
import zlib
from collections.abc import Mapping
from numbers import Integral, Real

import torch
import torch.distributed as dist

EXACT = 2**53  # every whole number below this has a float64 of its own


def shard_indices(n: int, rank: int, world_size: int) -> range:
    """The indices of one rank's part of ``n`` samples.

    Every index from 0 to ``n - 1`` falls to exactly one rank, and the sizes of the parts differ by
    at most one (the first ``n % world_size`` ranks hold one more). With fewer samples than ranks
    some parts are empty. The parts are contiguous: a slice of a tensor is a view and a slice of a
    file is one read, and results put together in rank order are in the order of the samples.

    Args:
        n: Number of samples, 0 or more.
        rank: This rank, 0 to ``world_size - 1``.
        world_size: Number of ranks, 1 or more.

    Returns:
        A ``range``, which indexes tensors, arrays, ``DataFrame.iloc`` and ``Subset`` alike.

    Raises:
        TypeError: An argument is not a whole number.
        ValueError: An argument is out of its range.
    """
    n, rank, world_size = operator.index(n), operator.index(rank), operator.index(world_size)
    if n < 0:
        raise ValueError(f"n={n}: the number of samples cannot be negative")
    if world_size < 1:
        raise ValueError(f"world_size={world_size}: at least one rank is needed")
    if not 0 <= rank < world_size:
        raise ValueError(
            f"rank={rank}: with world_size={world_size} the ranks are 0 to {world_size - 1}"
        )
    size, left_over = divmod(n, world_size)
    start = rank * size + min(rank, left_over)
    return range(start, start + size + (rank < left_over))


def sum_over_ranks(
    values: Mapping[str, float | torch.Tensor] | torch.Tensor,
) -> dict[str, float | torch.Tensor] | torch.Tensor:
    """Add up each value over all ranks, with one ``all_reduce`` for everything.

    The values travel as one flat float64 tensor, in the order of their sorted names, so it does not
    matter in which order a rank wrote them down. A short fingerprint of names and shapes travels
    along: if the ranks hold different things, every rank gets an error instead of a wrong sum. (If
    the total number of elements differs as well, Gloo ends the process before we can look.)

    Args:
        values: A tensor, or a mapping from names to tensors and numbers. Any real dtype, any
            device, any shape, the same names and shapes on every rank.

    Returns:
        The sums in the shape of ``values``: a float64 tensor on the CPU, or a dict with the same
        names whose tensors became float64 tensors on the CPU and whose numbers became floats.

    Raises:
        TypeError: A value is neither a real number nor a tensor of real numbers.
        ValueError: A whole number, or a sum of whole numbers, reaches 2**53, from where float64
            is no longer exact; or the ranks pass different names or shapes.
    """
    if isinstance(values, torch.Tensor):
        return sum_over_ranks({"values": values})["values"]
    if not isinstance(values, Mapping):
        raise TypeError(
            f"sum_over_ranks: values is a {type(values).__name__}: pass a tensor, or a mapping "
            "from names to numbers and tensors"
        )
    names = sorted(values)
    parts = [_as_float64(name, values[name]) for name in names]
    largest = max((_largest_integer(name, values[name]) for name in names), default=0.0)
    layout = ", ".join(f"{n}{list(p.shape)}" for n, p in zip(names, parts, strict=True))
    # 20 bits, so that the sum of the squares, too, is exact on thousands of ranks.
    mark = zlib.crc32(layout.encode()) & 0xFFFFF
    header = torch.tensor([mark, mark * mark, largest], dtype=torch.float64)
    flat, world_size = _all_reduce(torch.cat([header, *(part.reshape(-1) for part in parts)]))

    # Sum and sum of squares both fit only if every rank has this mark, so all ranks agree here.
    if flat[0] != mark * world_size or flat[1] != mark * mark * world_size:
        raise ValueError(
            "sum_over_ranks: the ranks do not hold the same names and shapes, so their sums would "
            f"mean nothing. This rank holds: {layout or 'nothing'}"
        )
    if flat[2] >= EXACT:
        raise ValueError(
            "sum_over_ranks: whole numbers that may add up to 2**53 or more are no longer exact in "
            "float64. Pass them as floats if an approximate sum is enough"
        )
    pieces = flat[3:].split([part.numel() for part in parts])
    sums = {n: s.reshape(p.shape) for n, p, s in zip(names, parts, pieces, strict=True)}
    return {n: sums[n] if isinstance(values[n], torch.Tensor) else sums[n].item() for n in values}


def mean_over_ranks(total: float | torch.Tensor, count: int) -> float:
    """The mean of all samples of all ranks, from each rank's sum and count.

    Args:
        total: This rank's sum (of losses, of squared errors, …); 0 for an empty shard.
        count: How many samples that sum holds; 0 for an empty shard.

    Returns:
        The sum of the totals divided by the sum of the counts.

    Raises:
        ValueError: No rank holds a sample, or ``total`` is not a single number.
    """
    if isinstance(total, torch.Tensor):
        if total.numel() != 1:
            shape = list(total.shape)
            raise ValueError(f"mean_over_ranks: total has shape {shape}: pass one number (.sum())")
        total = total.item()
    sums = sum_over_ranks({"total": float(total), "count": operator.index(count)})
    if sums["count"] <= 0:
        raise ValueError(f"no samples to average: the ranks' counts add up to {sums['count']:.0f}")
    return sums["total"] / sums["count"]


def rmse_over_ranks(predictions: torch.Tensor, targets: torch.Tensor) -> float:
    """Root mean squared error over the samples of all ranks.

    Args:
        predictions: This rank's predictions, any shape, possibly empty. Float32 is subtracted and
            summed in float64.
        targets: The true values, in the same shape.

    Returns:
        The error in the unit of the targets.

    Raises:
        TypeError: An argument is not a tensor.
        ValueError: The shapes differ, or no rank holds a sample.
    """
    _same_shape("predictions", predictions, "targets", targets)
    errors = _as_float64("predictions", predictions) - _as_float64("targets", targets)
    return mean_over_ranks(errors.square().sum(), errors.numel()) ** 0.5


def accuracy_over_ranks(predicted: torch.Tensor, actual: torch.Tensor) -> float:
    """Share of right answers over the samples of all ranks, 0 to 1.

    Args:
        predicted: This rank's predicted classes (not scores: take ``.argmax(dim=1)`` first).
        actual: The true classes, in the same shape.

    Returns:
        Right answers divided by samples.

    Raises:
        TypeError: An argument is not a tensor.
        ValueError: The shapes differ, or no rank holds a sample.
    """
    _same_shape("predicted", predicted, "actual", actual)
    return mean_over_ranks((predicted == actual).sum(), actual.numel())


def confusion_over_ranks(
    predicted: torch.Tensor, actual: torch.Tensor, classes: int
) -> torch.Tensor:
    """Count, over the samples of all ranks, which class was taken for which.

    Args:
        predicted: This rank's predicted classes, whole numbers from 0 to ``classes - 1``.
        actual: The true classes, in the same shape.
        classes: Number of classes.

    Returns:
        An int64 tensor of shape ``(classes, classes)`` on the CPU: rows are actual classes, columns
        predicted ones. Row ``k`` sums to exactly the number of samples of class ``k``.

    Raises:
        TypeError: An argument is not a tensor of whole numbers.
        ValueError: The shapes differ, or a label is outside 0 to ``classes - 1``.
    """
    _same_shape("predicted", predicted, "actual", actual)
    for name, labels in (("predicted", predicted), ("actual", actual)):
        if labels.numel() and labels.dtype.is_floating_point:
            raise TypeError(f"{name} has dtype {labels.dtype}: class numbers are whole numbers")
        if labels.numel() and not 0 <= labels.min() <= labels.max() < classes:
            raise ValueError(
                f"{name} holds labels from {int(labels.min())} to {int(labels.max())}: with "
                f"classes={classes} they must be 0 to {classes - 1}"
            )
    cells = (actual.reshape(-1).long() * classes + predicted.reshape(-1).long()).cpu()
    counts = torch.bincount(cells, minlength=classes * classes).reshape(classes, classes)
    return sum_over_ranks(counts).long()


def accuracy_and_f1(counts: torch.Tensor) -> tuple[float, float]:
    """The accuracy of two classes, and F1 of the second of them, from their confusion matrix.

    Args:
        counts: Shape (2, 2), actual class × predicted class, as `confusion_over_ranks` returns.

    Returns:
        The share of right answers, and 2·TP ÷ (2·TP + FP + FN); NaN for 0 ÷ 0.

    Raises:
        ValueError: Another shape.
    """
    if counts.shape != (2, 2):
        raise ValueError(f"counts has shape {list(counts.shape)}: F1 needs two classes, [2, 2]")
    (_, false_alarms), (missed, hits) = counts.double()
    accuracy = counts.diag().sum() / counts.sum()
    return accuracy.item(), (2 * hits / (2 * hits + false_alarms + missed)).item()


def _same_shape(name: str, values: torch.Tensor, other: str, others: torch.Tensor) -> None:
    for label, tensor in ((name, values), (other, others)):
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{label} is a {type(tensor).__name__}: pass a torch.Tensor")
    if values.shape != others.shape:  # (n, 1) against (n,) would broadcast to (n, n) unnoticed
        raise ValueError(
            f"{name} has shape {list(values.shape)} and {other} has {list(others.shape)}: they "
            "must be equal (`.squeeze(1)` or `.argmax(dim=1)` is often what is missing)"
        )


def _as_float64(name: str, value: float | torch.Tensor) -> torch.Tensor:
    """On the CPU, where every machine has float64 (MPS has none); without its gradient."""
    if isinstance(value, torch.Tensor) and not value.is_complex():
        return value.detach().cpu().double()
    if isinstance(value, Real):
        return torch.tensor(float(value), dtype=torch.float64)
    kind = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
    raise TypeError(f"{name} is a {kind}: only real numbers and tensors of them can be summed")


def _largest_integer(name: str, value: float | torch.Tensor) -> float:
    """The size of the largest whole number in it: the sum of these bounds every partial sum."""
    if isinstance(value, torch.Tensor):
        whole = not value.dtype.is_floating_point and value.numel() > 0
    else:
        whole = isinstance(value, Integral)
    return _as_float64(name, value).abs().max().item() if whole else 0.0


def _all_reduce(flat: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Sum a flat CPU tensor over the default group; also return the number of ranks."""
    if not (dist.is_available() and dist.is_initialized()):
        return flat, 1
    # NCCL moves GPU memory only; every other backend that lessons use takes CPU tensors.
    on_gpu = dist.get_backend() == dist.Backend.NCCL
    flat = flat.to(torch.device("cuda", torch.cuda.current_device()) if on_gpu else "cpu")
    dist.all_reduce(flat, op=dist.ReduceOp.SUM)
    return flat.cpu(), dist.get_world_size()
