"""Several ranks: the bits of one process, the same decisions, and one end for all. Here ranks are threads."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from rank_threads import ThreadRanks, on_ranks
from test_snapshot import SIZE, assert_same, everything, fresh
from torch import Tensor

from cmtool.core.denoiser import Denoise
from cmtool.datasets.toy import gaussians
from cmtool.errors import CmtoolError, LostRank, OutOfMemory
from cmtool.objectives.objective import Batch, Objective
from cmtool.testing import small_model
from cmtool.training.batches import BatchConfig, Batches
from cmtool.training.ema import EMA
from cmtool.training.gradients import Feed
from cmtool.training.loop import LoopConfig, Report, train
from cmtool.training.ranks import ALONE, Ranks
from cmtool.training.state import State, pack, unpack

STEPS = 6


class Direct:
    """Batches of points, with what was read of each."""

    def __init__(self, size: int = SIZE):
        self.batches, self.size = Batches(gaussians(count=100), BatchConfig(size, seed=4)), size
        self.read: list[tuple[int, range | None]] = []

    def get(self, n: int, rows: range | None = None) -> Batch:
        self.read.append((n, rows))
        return self.batches.at(n, rows)


def walk(state: State, feed: Feed, ranks: Ranks = ALONE, **options) -> list[Report]:
    config = LoopConfig(**{"seed": 4, "clip": 1.0, "micro": 2, "ranks": ranks, **options})
    return list(train(state, feed, feed.size * STEPS, lambda n: 0.01, config))


def on_each(size: int, make: Callable[[], State], **options) -> list[tuple[State, list[Report]]]:
    def work(ranks: ThreadRanks) -> tuple[State, list[Report]]:
        state = make()
        return state, walk(state, Direct(), ranks, **options)

    found = on_ranks(size, work)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return found


@pytest.mark.parametrize("recipe", ["edm", "cd", "ct", "ect"])
def test_any_number_of_ranks_has_the_bits_of_one(recipe):
    """With dropout, whose masks belong to the number of the image."""
    alone = fresh(recipe)
    expected = walk(alone, Direct())
    for size in (2, 3, 4):
        for state, reports in on_each(size, lambda: fresh(recipe)):
            assert_same(state, alone)
            assert [r.loss.item() for r in reports] == [r.loss.item() for r in expected]
            assert [r.gradient.item() for r in reports] == [r.gradient.item() for r in expected]


def test_so_it_is_in_lower_precision():
    options = {"autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16)}
    alone, full = fresh("ect"), fresh("ect")
    walk(alone, Direct(), **options), walk(full, Direct())
    assert not all(torch.equal(value, everything(full)[key]) for key, value in everything(alone).items())
    for state, _ in on_each(2, lambda: fresh("ect"), **options):
        assert_same(state, alone)


def test_threads_of_each_rank_change_no_bit():
    alone = fresh("cd", dropout=0.0)
    walk(alone, Direct())
    for state, _ in on_each(2, lambda: fresh("cd", dropout=0.0), threads=2):
        assert_same(state, alone)


def test_each_rank_reads_its_own_images():
    feeds = [Direct() for _ in range(3)]
    on_ranks(3, lambda ranks: walk(fresh("edm"), feeds[ranks.rank], ranks))
    assert [feed.read[0] for feed in feeds] == [(0, range(4)), (0, range(4, 10)), (0, range(10, 16))]
    assert [feed.read[1] for feed in feeds] == [(16, range(4)), (16, range(4, 10)), (16, range(10, 16))]


def test_ranks_without_a_micro_batch_are_told_of_and_follow():
    alone = fresh("ect")
    (first, *rest) = walk(alone, Direct(), micro=8)
    assert not first.remarks
    for state, (first, *rest) in on_each(4, lambda: fresh("ect"), micro=8):
        assert_same(state, alone)
        assert "2 micro-batches for 4 ranks" in str(first.remarks[0]) and "micro_batch" in str(first.remarks[0])
        assert not any(report.remarks for report in rest)


class Trouble(Objective):
    """``mean (D(x, 1) - z)^2``, and in the step of image ``when`` what ``cause`` makes of it, image by image."""

    def __init__(self, cause: Callable[[Batch, Tensor], Tensor], when: float):
        super().__init__()
        self.cause, self.when = cause, when

    def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
        error = (model(batch.x, torch.ones(len(batch)), batch.labels) - batch.z).square().flatten(1).mean(1)
        return self.cause(batch, error) if progress == self.when else error


def in_trouble(cause: Callable[[Batch, Tensor], Tensor], step: int = 2) -> State:
    torch.manual_seed(0)
    model = small_model((2,))
    steps = torch.optim.Adam(model.parameters(), 0.01)
    return State(model, Trouble(cause, step / STEPS), steps, EMA(model, 100))


LAST = Direct().batches.at(2 * SIZE).u[-1]  # the draw of the last image of the third step, by which it is known


def poison(batch: Batch, error: Tensor) -> Tensor:
    return error * torch.where(batch.u == LAST, torch.nan, 1.0)


def test_a_gradient_that_one_rank_spoils_is_skipped_by_all():
    alone = in_trouble(poison)
    expected = walk(alone, Direct())
    assert [report.finite for report in expected] == [True, True, False, True, True, True]
    for state, reports in on_each(4, lambda: in_trouble(poison)):
        assert_same(state, alone)
        assert state.skipped == 1
        assert [report.finite for report in reports] == [report.finite for report in expected]


def until(ranks: ThreadRanks, state: State, **options) -> tuple[int, BaseException | None]:
    """The steps that were made before the end, and what the end was."""
    before = everything(state)
    config, done = LoopConfig(micro=2, ranks=ranks, **options), 0
    try:
        for _ in train(state, Direct(), SIZE * STEPS, lambda n: 0.01, config):
            before, done = everything(state), done + 1
    except Exception as error:
        assert all(torch.equal(value, before[key]) for key, value in everything(state).items()), "half a step"
        return done, error
    return done, None


def broken(batch: Batch, error: Tensor) -> Tensor:
    if LAST in batch.u:
        raise ValueError("a broken loss")
    return error


def test_an_error_of_one_rank_ends_all_at_the_same_step():
    found = on_ranks(4, lambda ranks: until(ranks, in_trouble(broken)))
    assert [done for done, _ in found] == [2] * 4
    *others, (_, error) = found
    assert isinstance(error, ValueError)
    for _, other in others:
        assert isinstance(other, LostRank)
        assert "rank 3 of 4 failed" in other.message


def test_a_picture_that_one_rank_cannot_read_ends_all():
    class Torn(Direct):
        def get(self, n: int, rows: range | None = None) -> Batch:
            if n and rows and rows.start:
                raise CmtoolError("a picture is damaged")
            return super().get(n, rows)

    def work(ranks: ThreadRanks) -> BaseException | None:
        try:
            walk(fresh("edm"), Torn(), ranks)
        except CmtoolError as error:
            return error
        return None

    first, second = on_ranks(2, work)
    assert isinstance(first, LostRank)
    assert str(second) == "a picture is damaged"


def test_a_rank_that_is_gone_ends_the_others():
    def work(ranks: ThreadRanks) -> object:
        if ranks.rank:
            for _ in train(fresh("edm"), Direct(), 100, lambda n: 0.01, LoopConfig(micro=2, ranks=ranks)):
                raise KeyboardInterrupt
        return until(ranks, fresh("edm"))

    (done, error), gone = on_ranks(2, work)
    assert (done, type(error), type(gone)) == (1, LostRank, KeyboardInterrupt)


def test_ranks_at_different_steps_are_found():
    def work(ranks: ThreadRanks) -> object:
        state = fresh("edm")
        state.images = 16 * ranks.rank
        return until(ranks, state)

    for _, error in on_ranks(2, work):
        assert "0 images" in str(error) or "16 images" in str(error)


def narrow(most: int) -> Callable[[Batch, Tensor], Tensor]:
    """Memory runs out where the last image is among more than ``most``."""

    def cause(batch: Batch, error: Tensor) -> Tensor:
        if len(batch) > most and LAST in batch.u:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return error

    return cause


@pytest.mark.parametrize("threads", [1, 2])
def test_memory_that_runs_out_on_one_rank_halves_the_micro_batch_of_all(threads):
    """The step is that of the smaller micro-batch from the start, and so are all after it."""
    config = LoopConfig(seed=4, micro=8, threads=threads)
    alone = in_trouble(narrow(2))
    reports = list(train(alone, Direct(), SIZE * STEPS, lambda n: 0.01, config))
    assert (alone.micro, alone.images, alone.skipped) == (2, SIZE * STEPS, 0)
    assert [len(report.remarks) for report in reports] == [0, 0, 1, 0, 0, 0]
    assert "micro_batch=2" in str(reports[2].remarks[0])

    halves = in_trouble(lambda batch, error: error)
    list(train(halves, Direct(), SIZE * 2, lambda n: 0.01, config))
    halves.objective.when = -1  # pyright: ignore - of Trouble
    # progress is that of the whole run, which this objective does not look at
    list(train(halves, Direct(), SIZE * STEPS, lambda n: 0.01, replace(config, micro=2)))
    halves.micro = 2
    assert_same(alone, halves)

    for state, _ in on_each(2, lambda: in_trouble(narrow(2)), micro=8, clip=0.0, threads=threads):
        assert state.micro == 2
        assert_same(state, alone)


def test_a_smaller_micro_batch_is_taken_up_again():
    def parts() -> Iterator[State]:
        state = in_trouble(narrow(2))
        for report in train(state, Direct(), SIZE * STEPS, lambda n: 0.01, LoopConfig(micro=8)):
            if report.images == 4 * SIZE:
                yield state
                return

    whole = in_trouble(narrow(2))
    list(train(whole, Direct(), SIZE * STEPS, lambda n: 0.01, LoopConfig(micro=8)))
    (part,) = parts()
    again = in_trouble(narrow(2))
    unpack(again, *pack(part))
    assert again.micro == 2
    list(train(again, Direct(), SIZE * STEPS, lambda n: 0.01, LoopConfig(micro=8)))
    assert_same(again, whole)
    tensors, scalars = pack(part)
    unpack(again, tensors, {key: value for key, value in scalars.items() if key != "micro"})
    assert again.micro is None, "states of before know no smaller one"


def test_one_image_that_does_not_fit_ends_all():
    found = on_ranks(2, lambda ranks: until(ranks, in_trouble(narrow(0))))
    assert [(done, type(error)) for done, error in found] == [(2, OutOfMemory)] * 2
    assert OutOfMemory.code == 71


def test_the_words_of_the_processor_for_no_memory():
    def cause(batch: Batch, error: Tensor) -> Tensor:
        if len(batch) > 2:
            torch.empty(1 << 60)
        return error

    state = in_trouble(cause)
    walk(state, Direct(), micro=8)
    assert (state.micro, state.images) == (2, SIZE * STEPS)


def test_what_is_polled_is_agreed_on():
    def work(ranks: ThreadRanks) -> list[tuple[int, ...]]:
        state = fresh("edm")

        def poll() -> tuple[int, int]:
            return (15 if ranks.rank == 1 and state.images >= 32 else 0, int(ranks.rank == 0 and state.images == 16))

        return [report.polled for report in walk(state, Direct(), ranks, poll=poll)]

    first, second = on_ranks(2, work)
    assert first == second == [(0, 0), (0, 1), (15, 0), (15, 0), (15, 0), (15, 0)]
    (alone,) = on_ranks(1, lambda ranks: walk(fresh("edm"), Direct(), poll=lambda: (7,)))
    assert {report.polled for report in alone} == {(7,)}
