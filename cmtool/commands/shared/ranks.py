"""Ranks end together: an error on one of them ends all, with one message and its exit code."""

from collections.abc import Iterator
from contextlib import contextmanager

from cmtool.failures import exit_code
from cmtool.pipelines.distributed import LostRank, World, claim_failure, failure_code, report_lost_rank

__all__ = ["end_together"]


@contextmanager
def end_together(world: World) -> Iterator[None]:
    """What ends one rank ends the others: the first that fails tells it, and they end without a word, by its code.

    Around all that is done after ``start_group``. A LostRank is no failure of the one that meets it: it waits until the
    other has said what happened, and tells it itself only where nobody does, as when the other one was killed.
    """
    try:
        with report_lost_rank(world):
            yield
    except (Exception, KeyboardInterrupt) as error:
        told = not isinstance(error, LostRank) and claim_failure(world, exit_code(error))
        code = None if told or world.size == 1 else failure_code()
        if code is None:
            raise
        raise SystemExit(code) from error
