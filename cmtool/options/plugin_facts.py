"""What the docstring of a plugin says: one sentence, then blocks that begin with ``Formula:``, ``Paper:``, ``Use:``.

    \"\"\"Easy consistency tuning: pairs of noise levels that come closer stage by stage.

    Formula: ``r(t) = t (1 - n(t) / q^stage)``
    Paper: Geng et al. 2024, arXiv 2406.14548, section 3.
    Use: when a trained score model or little compute is at hand.
    \"\"\"

A block may span lines, and ends at a blank line or at the next block. Other paragraphs may stand anywhere after the
first sentence.
"""

import inspect
import re
from dataclasses import dataclass

__all__ = ["BLOCKS", "PluginFacts", "parse_facts"]

BLOCKS = ("Formula", "Paper", "Use")
BLOCK = re.compile(rf"({'|'.join(BLOCKS)}):\s*(.*)")
# A full stop ends a sentence where a new one begins, and not in "et al. (2024)" or "e.g. Heun's method".
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!al\.)(?<!e\.g\.)(?<!i\.e\.)(?<!eq\.)\s+(?=[A-Z`\"'(])")


@dataclass(frozen=True)
class PluginFacts:
    """Summary, formula, paper, advice when to use it, and the paragraphs besides; empty where nothing is said."""

    summary: str = ""
    formula: str = ""
    paper: str = ""
    use: str = ""
    text: str = ""


def parse_facts(docstring: str | None) -> PluginFacts:
    """The facts of a docstring; marks such as double back-ticks stay as they are."""
    blocks: dict[str, list[str]] = {}
    paragraphs: list[list[str]] = [[]]
    block: list[str] | None = None
    for line in map(str.strip, inspect.cleandoc(docstring or "").split("\n")):
        if begins := BLOCK.fullmatch(line):
            block = blocks.setdefault(begins[1], [])
            block.append(begins[2])
            paragraphs.append([])
        elif not line:
            block = None
            paragraphs.append([])
        else:
            (paragraphs[-1] if block is None else block).append(line)
    first, *others = [_join(lines) for lines in paragraphs if lines] or [""]
    summary, *rest = SENTENCE_END.split(first, maxsplit=1)
    formula, paper, use = (_join(blocks.get(name, [])) for name in BLOCKS)
    return PluginFacts(summary, formula, paper, use, "\n\n".join([*rest, *others]))


def _join(lines: list[str]) -> str:
    return " ".join(lines).strip()
