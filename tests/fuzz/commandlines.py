"""Random command lines: every flag of every command, with values that fit, and with odd ones."""

import random
from pathlib import Path

from cmtool.catalogue import COMMANDS
from cmtool.options.fields import OptionField, option_fields

__all__ = ["command_line"]

ODD = (
    *(
        "",
        "-1",
        "0",
        "1e999",
        "nan",
        "9" * 25,
        "9" * 5000,
        "0.5",
        "x",
        "a,b",
        "1,2,3",
        ",",
        "None",
        "true",
        "~nobody/x",
    ),
    *("/dev/null", "/dev/zero", "/nowhere/x", ".", "..", "pipe", "empty", "a\nb", "\x1b[2J", "*", "[", "a[", "é", "-"),
    *("0-9", "5-3", "1/0", "K/N", "!!bool x", "{a: [}", "&a [*a]", "x" * 3000, "1:2:3", "shapes[", "digits[::0]"),
)
SOUND = ("1", "2", "8", "0.5", "0.002,80", "cpu", "digits", "shapes[:8]", "made", "made.npz", "unet", "euler", "x.png")
SOME = {"-n": "2", "--images": "16", "--steps": "2", "--frames": "2", "--n": "2"}  # what bounds the work of a command
# Options whose number makes the work long.
HEAVY = {"n", "images", "steps", "batch", "variants", "frames", "rows", "hutchinson_probes", "seeds", "factor", "ts"}
SLOW = {"train-score", "train-ct", "distill", "fetch", "search-sigmas", "likelihood"}  # only their options are judged


def command_line(dice: random.Random, at: Path, root: Path) -> list[str]:
    """A command with up to four of its flags, two arguments and some ``--set``."""
    import os

    if not (at / "pipe").exists():
        os.mkfifo(at / "pipe")
        (at / "empty").touch()
    name = dice.choice(sorted(COMMANDS)) if dice.random() < 0.97 else dice.choice(ODD)
    if name not in COMMANDS:
        return [name]
    declared = [d for d in option_fields(COMMANDS[name].options).values() if not d.yaml_only]
    words = [name]
    for d in dice.sample(declared, min(len(declared), dice.randrange(1, 5))):
        words += given(d, dice)
    for _ in range(dice.choice((0, 0, 0, 1, 2))):
        d = dice.choice([*option_fields(COMMANDS[name].options).values()])
        key = d.key + dice.choice(("", "", ".name", ".x", ".", ".model_channels", ".a.b.c"))
        words += [dice.choice(("--set", "--set", "-c", "--preset")), f"{key}={dice.choice(ODD + SOUND)}"]
    if dice.random() < 0.15:
        words.insert(dice.randrange(1, len(words) + 1), dice.choice((*ODD, "--nope", "--json", "--debug-me", "-q")))
    if name in SLOW or dice.random() < 0.3:
        return [*words, "--print-config"]
    flags = {flag for d in declared for flag in (d.flag, d.long) if flag}
    bound = next((flag for flag in SOME if flag in flags and not set(words) & flags & set(SOME)), None)
    return [*words, *([bound, SOME[bound]] if bound else []), "--threads", "1"] if "--threads" in flags else words


def given(d: OptionField, dice: random.Random) -> list[str]:
    """A flag or argument with a value."""
    if d.switch:
        return [d.long]
    choices = [*map(str, d.choices or ()), *SOUND]
    value = dice.choice(ODD) if dice.random() < 0.6 else dice.choice(choices)
    if d.key in HEAVY and value.isdecimal() and len(value) < 20:
        value = "2"
    return [value] if d.positional else [dice.choice([flag for flag in (d.flag, d.long) if flag]), value]
