"""Ranks speak with one voice, and end together: with one message and its exit code."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cmtool.commands.console import Console, ProgressBar
from cmtool.errors import Advice, printable
from cmtool.failures import exit_code
from cmtool.options.hint_words import word_hint
from cmtool.pipelines.distributed import LostRank, World, claim_failure, failure_code, report_lost_rank

__all__ = ["SilentConsole", "end_together", "voice_of"]


class SilentConsole(Console):
    """The voice of a rank that is not the first: what it warns of is in ``log.rank-K.txt`` of its run."""

    def __init__(self, command: str, rank: int):
        super().__init__(command, quiet=True)
        self.rank, self.folder = rank, None
        self.waiting: list[str] = []

    def keep_in(self, folder: Path) -> None:
        """Write what it warned of so far, and what it will, into ``folder``."""
        self.folder = folder
        self._write()

    def warn(self, text: Advice) -> None:
        self.waiting.append(f"warning: {printable(word_hint(text))}")
        self._write()

    def draw(self, lines: str) -> None:
        pass

    def result(self, document: Mapping[str, Any], text: str) -> None:
        pass

    @contextmanager
    def progress(self, total: int | None, unit: str, label: str) -> Iterator[ProgressBar]:
        yield ProgressBar(total, unit, label, lambda line: None, self.clock, (0.0, 1.0))

    def _write(self) -> None:
        if self.folder and self.waiting:
            with suppress(OSError), (self.folder / f"log.rank-{self.rank}.txt").open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in self.waiting)
            self.waiting.clear()


def voice_of(world: World, console: Console) -> Console:
    """The console of a rank: the first one speaks."""
    return console if world.main else SilentConsole(console.command, world.rank)


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
        told = not isinstance(error, LostRank) and claim_failure(exit_code(error))
        code = None if told or world.size == 1 else failure_code()
        if code is None:
            raise
        raise SystemExit(code) from error
