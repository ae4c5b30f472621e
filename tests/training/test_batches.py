"""The n-th image of a run, its mirror, noise and level are functions of (seed, n) alone."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from cmtool.core.noise import Noise
from cmtool.datasets.toy import gaussians
from cmtool.errors import UsageError
from cmtool.objectives.objective import Batch, Requirements
from cmtool.training.augment import Augment
from cmtool.training.batches import BatchConfig, Batches, EpochOrder
from cmtool.training.cache import Storage

KEYS = ("x", "z", "u", "labels")


class Numbered:
    """Image i is full of i, with a left column that tells it from its mirror; it counts how often it is read."""

    shape, notice = (3, 2, 4), "ours"

    def __init__(self, n: int = 23, classes: tuple[str, ...] = ("even", "odd")):
        self.n, self.classes, self.read = n, classes, np.zeros(n, dtype=int)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int, /) -> tuple[Tensor, int | None]:
        self.read[i] += 1
        image = torch.full(self.shape, i, dtype=torch.uint8)
        image[:, :, 0] = 255
        return image, i % 2 if self.classes else None


class Stacked(Numbered):
    """The same with arrays of numpy, many at a time."""

    def batch(self, indices: list[int]) -> tuple[np.ndarray, np.ndarray | None]:
        images, labels = zip(*(self[i] for i in indices), strict=True)
        return torch.stack(images).numpy(), np.array(labels) if self.classes else None


def images(total: int, size: int, start: int = 0, dataset: object = None, points: int = 1, **options) -> Batch:
    """Images ``start .. total - 1`` of a run, made ``size`` at a time."""
    config = BatchConfig(size, seed=5, **{"flip": True, **options})
    source = Batches(dataset or Numbered(), config, Requirements(points_per_trajectory=points))
    made, walk = [], source.since(start)
    while sum(len(batch) for batch in made) < total - start:
        made.append(next(walk))
    joined = {k: torch.cat([vars(b)[k] for b in made])[: total - start] for k in KEYS}
    return Batch(**joined)


def assert_same(a: Batch, b: Batch) -> None:
    for key, value in vars(a).items():
        other = vars(b)[key]
        assert value is other is None or torch.equal(value, other), key


def numbers(batch: Batch) -> list[int]:
    """Which image each one is."""
    return ((batch.x[:, 0, 0, 1] + 1) * 127.5).round().int().tolist()


def mirrored(batch: Batch) -> Tensor:
    return batch.x[:, 0, 0, 0] < 1


@pytest.mark.parametrize("size", [1, 7])
def test_images_are_the_same_at_every_batch_size(size):
    assert_same(images(128, size), images(128, 64))


@pytest.mark.parametrize("start", [9, 23, 37])
def test_a_run_taken_up_again_sees_what_it_would_have_seen(start):
    """In the middle of an epoch too, and by a new process: nothing but n is remembered."""
    whole = images(80, 8)
    assert_same(images(80, 8, start), Batch(*(None if v is None else v[start:] for v in vars(whole).values())))


def test_one_source_can_go_back():
    source = Batches(Numbered(), BatchConfig(8, seed=5))
    first = source.at(0)
    source.at(1000)
    assert_same(source.at(0), first)


REQUIRED = {
    "plain": Requirements(),
    "others": Requirements(others=12),
    "probes": Requirements(probes=True),
    "points": Requirements(points_per_trajectory=4),
}


@pytest.mark.parametrize("rows", [range(8), range(2), range(5, 6), range(3, 8)], ids=str)
@pytest.mark.parametrize(("required", "augmented"), [*((r, False) for r in REQUIRED), ("probes", True)])
def test_rows_of_a_batch_are_those_of_the_whole(rows, required, augmented):
    """Noise, level, mirror, augmentation and dropped labels belong to the number of the image; others to the batch."""
    augment = Augment.edm(0.5) if augmented else None
    config = BatchConfig(8, seed=5, flip=True, label_dropout=0.3, augment=augment)
    whole, part = (Batches(Numbered(), config, REQUIRED[required]) for _ in range(2))
    for n in (0, 8, 20, 23 * 4):  # the third crosses into another epoch
        expected = whole.at(n)
        assert_same(part.at(n, rows), expected.select(slice(rows.start, rows.stop)))
        assert_same(whole.at(n, rows), expected.select(slice(rows.start, rows.stop)))


@pytest.mark.parametrize("rows", [range(-1, 2), range(6, 9), range(4, 4), range(0, 8, 2), range(5, 1, -1)], ids=str)
def test_a_batch_has_no_other_rows(rows):
    with pytest.raises(ValueError, match="a batch of 8 images has no range"):
        Batches(Numbered(), BatchConfig(8)).at(0, rows)


def test_each_epoch_is_a_new_order_of_all_images():
    epochs = [numbers(images(23 * (e + 1), 23, 23 * e)) for e in range(4)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4
    assert tuple(range(23)) not in map(tuple, epochs)


def test_every_epoch_begins_with_any_image():
    starts = [numbers(Batches(Numbered(8), BatchConfig(1, seed)).at(0))[0] for seed in range(200)]
    counts = np.bincount(starts, minlength=8)
    assert ((counts - 25) ** 2 / 25).sum() < 24.3, "chi squared of 7 degrees of freedom at 0.1 %"


def test_labels_and_mirrors_belong_to_their_images():
    seen = images(200, 32)
    assert seen.labels.tolist() == [i % 2 for i in numbers(seen)]
    assert 70 < mirrored(seen).sum() < 130
    untouched = images(200, 32, flip=False)
    assert not mirrored(untouched).any()
    assert torch.equal(torch.where(mirrored(seen)[:, None, None, None], seen.x.flip(-1), seen.x), untouched.x)


def test_pixels_are_in_model_units():
    seen = images(23, 23, flip=False)
    values = torch.tensor(numbers(seen)) / 127.5 - 1
    assert seen.x.dtype == torch.float32
    assert torch.equal(seen.x[:, :, :, 1:], values[:, None, None, None].expand(23, 3, 2, 3))
    assert (seen.x[..., 0] == 1).all()


def test_noise_and_level_belong_to_n_and_seed_and_never_meet_those_of_sampling():
    first, second = Batches(Numbered(), BatchConfig(64, seed=0)), Batches(Numbered(), BatchConfig(64, seed=1))
    mine = [first.at(0).z, second.at(0).z, first.at(64).z]
    z = torch.cat([*mine, Noise(range(64)).normal(Numbered.shape)])
    assert len(z.flatten(1).unique(dim=0)) == len(z)
    u = torch.cat([first.at(n).u for n in range(0, 2048, 64)])
    assert u.dtype == torch.float64
    assert kstest(u.numpy(), "uniform").pvalue > 0.01
    assert kstest(z.flatten().numpy(), "norm").pvalue > 0.01
    assert Batches(Numbered(), BatchConfig(64, seed=2**63 - 1)).at(2**40).z.isfinite().all()


def test_level_noise_mirror_and_image_are_unrelated():
    seen = images(23 * 200, 100)
    columns = torch.stack([seen.u, seen.z[:, 0, 0, 0].double(), mirrored(seen).double(), torch.tensor(numbers(seen))])
    assert columns.corrcoef().fill_diagonal_(0).abs().max() < 4 / len(seen) ** 0.5


def test_labels_are_left_out_on_request_and_where_there_are_none():
    assert Batches(Numbered(), BatchConfig(4, conditional=False)).at(0).labels is None
    assert Batches(Numbered(classes=()), BatchConfig(4)).at(0).labels is None
    assert Batches(Stacked(classes=()), BatchConfig(4)).at(0).labels is None


@pytest.mark.parametrize("size", [1, 7])
def test_dropped_labels_belong_to_the_image_and_not_to_its_batch(size):
    assert_same(images(128, size, label_dropout=0.3), images(128, 64, label_dropout=0.3))


def test_labels_are_dropped_as_often_as_asked_and_without_regard_to_anything_else():
    n, p = 23 * 200, 0.3
    kept, seen = images(n, 100), images(n, 100, label_dropout=p)
    dropped = seen.labels == -1
    assert abs(dropped.double().mean() - p) < 4 * (p * (1 - p) / n) ** 0.5
    assert torch.equal(seen.labels[~dropped], kept.labels[~dropped])
    assert torch.equal(seen.x, kept.x) and torch.equal(seen.z, kept.z) and torch.equal(seen.u, kept.u)
    others = (seen.u, seen.z[:, 0, 0, 0], mirrored(seen), torch.tensor(numbers(seen)), kept.labels)
    columns = torch.stack([dropped.double(), *(value.double() for value in others)])
    assert columns.corrcoef()[0, 1:].abs().max() < 4 / n**0.5


def test_the_ends_of_dropping():
    assert (images(64, 64, label_dropout=1.0).labels == -1).all()
    assert (images(64, 64, label_dropout=0.0).labels >= 0).all()


@pytest.mark.parametrize(("classes", "conditional"), [((), True), (("even", "odd"), False)])
def test_where_there_are_no_labels_none_can_be_dropped(classes, conditional):
    with pytest.raises(UsageError, match="no labels to drop"):
        Batches(Numbered(classes=classes), BatchConfig(4, conditional=conditional, label_dropout=0.1))


def test_points_pass_as_they_are_and_cannot_be_mirrored():
    data = gaussians(count=50)
    batch = Batches(data, BatchConfig(50, seed=0)).at(0)
    assert torch.equal(batch.x.sort(0).values, data.points.sort(0).values)
    assert torch.equal(batch.labels.bincount(), torch.arange(50).remainder(8).bincount())
    with pytest.raises(UsageError, match="only images can be mirrored"):
        Batches(data, BatchConfig(50, flip=True))


def test_others_are_the_images_of_the_run_from_the_batch_on():
    """Mirrored as they are there, with their classes, at least a batch of them and at most the data set."""
    run = images(40, 8)
    for others, found in ((12, 12), (3, 8), (1000, 23)):
        batch = Batches(Numbered(), BatchConfig(8, seed=5, flip=True), Requirements(others=others)).at(8)
        assert torch.equal(batch.others, run.x[8 : 8 + found])
        assert torch.equal(batch.classes, run.labels[8 : 8 + found])
        assert_same(Batch(batch.x, batch.z, batch.u, batch.labels), Batch(**{k: vars(run)[k][8:16] for k in KEYS}))
        assert all(piece.others is batch.others and piece.classes is batch.classes for piece in batch.split(3))
    assert Batches(Numbered(), BatchConfig(8, conditional=False), Requirements(others=5)).at(0).classes is None
    assert Batches(Numbered(), BatchConfig(8)).at(0).others is None


def test_images_in_a_row_share_picture_and_noise_but_not_the_level():
    one, four = images(12, 4), images(48, 6, points=4)
    assert torch.equal(four.x, one.x.repeat_interleave(4, 0))
    assert torch.equal(four.z, one.z.repeat_interleave(4, 0))
    assert torch.equal(four.labels, one.labels.repeat_interleave(4))
    assert torch.equal(four.u, images(48, 48).u)
    assert_same(images(48, 48, points=4), four)


@pytest.mark.parametrize("make", [Numbered, Stacked])
def test_each_image_is_read_once(make):
    data = make()
    source = Batches(data, BatchConfig(10))
    for n in range(0, 230, 10):
        source.at(n)
    assert data.read.tolist() == [1] * 23


def test_windows_that_overlap_are_read_once():
    """Of 10 of 230 images a step, with a window of 50, each is read once in an epoch."""
    data, required = Numbered(230), Requirements(others=50)
    small = Batches(Numbered(230), BatchConfig(10), required)
    large = Batches(data, BatchConfig(10), required, Storage(most=0))
    for n in range(0, 180, 10):
        batch = large.at(n)
        assert_same(batch, small.at(n))
        assert torch.equal(batch.others[:10], batch.x)
    assert data.read.sum() - 220 in (0, 1), "the first one perhaps twice, for its size"


@pytest.mark.parametrize("make", [Numbered, Stacked])
def test_a_data_set_too_large_for_memory_is_read_again(make):
    config, required = BatchConfig(20, seed=5, flip=True, label_dropout=0.2), Requirements(probes=True)
    data, kept = make(), make()
    streamed = Batches(data, config, required, Storage(most=23 * 24 - 1))
    resident = Batches(kept, config, required, Storage(most=23 * 24))
    for n in range(0, 60, 20):
        assert_same(streamed.at(n), resident.at(n))
        assert_same(streamed.at(n, range(3, 7)), resident.at(n, range(3, 7)))
    assert data.read.sum() > 60
    assert kept.read.tolist() == [1] * 23


def test_the_order_is_that_of_numpy():
    """A permutation of Philox, keyed by the epoch and the name of the draw, with the seed in the counter."""
    order = EpochOrder(seed=7, length=1000)
    for epoch in (0, 1, 5, 0):
        bits = np.random.Philox(key=np.array([epoch, 1 << 32], np.uint64), counter=np.array([0, 0, 0, 8], np.uint64))
        expected = np.random.Generator(bits).permutation(1000)
        assert (order.indices(range(1000 * epoch, 1000 * (epoch + 1))) == expected).all()


def test_an_order_is_drawn_once_where_batches_lie_in_two_epochs(monkeypatch):
    order, drawn = EpochOrder(0, 100), []
    alone = [EpochOrder(0, 100).indices([n])[0] for n in range(300)]

    class Counted(Noise):
        def at(self, seed, stream):
            drawn.append(seed)
            return super().at(seed, stream)

    monkeypatch.setattr("cmtool.training.batches.Noise", Counted)
    for n in range(0, 290, 3):
        assert order.indices(range(n, n + 10)).tolist() == alone[n : n + 10]
    assert drawn == [0, 1, 2]
