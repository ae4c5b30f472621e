"""``python tests/fuzz --cases 5000 --words 1000 --processes 2 --seed 0``: the long run, and a summary of it.

``--only NAME:SEED`` runs one case again and shows what it said.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch; and no threads, which a fork does not survive
os.environ.setdefault("CMTOOL_DEVICE", "cpu")

import torch
from farm import Told, attempt, prepare
from samples import Form, build

SOUND = -1


def cases(forms: list[Form], count: int, words: int, seed: int) -> list[tuple[Form | None, int]]:
    """Every form in turn, then the command lines."""
    return [*((forms[i % len(forms)], seed + i) for i in range(count)), *((None, seed + i) for i in range(words))]


def sound(form: Form, root: Path) -> tuple[float, int]:
    """What the commands of a form cost when nothing was changed, all of which must end well."""
    costs = []
    for command in form.commands:
        told = attempt(Form(form.name, form.file, [lambda data, _: data], [command]), 0, root)
        assert told.code == 0, (form.name, command, told.text)
        costs.append((told.seconds, told.memory))
    return max(seconds for seconds, _ in costs), max(memory for _, memory in costs)


def part(k: int, processes: int, listed: list[tuple[Form | None, int]], root: Path, place: Path) -> None:
    """The cases of one process, each told in a line of JSON."""
    forms = {form.name: form for form, _ in listed[k::processes] if form}
    bases = {name: sound(form, root) for name, form in forms.items()}
    memory = max((m for _, m in bases.values()), default=0)
    with place.open("w") as file:
        for form, seed in listed[k::processes]:
            told = attempt(form, seed, root, bases[form.name] if form else (5.0, memory))
            file.write(json.dumps(vars(told)) + "\n")
            file.flush()
            if told.wrong:
                print(f"{told.case}: {told.wrong}: {' '.join(told.argv)!r}: {told.text[-300:]!r}", flush=True)


def summary(found: list[Told]) -> dict[str, object]:
    """Exits, what was wrong, and the costliest case of all."""
    return {
        "cases": len(found),
        "exits": dict(sorted(Counter(told.code for told in found).items())),
        "wrong": dict(Counter(reason for told in found for reason in told.wrong.split(", ") if reason)),
        "over the bounds": sum(any(word in told.wrong for word in ("time", "memory", "late")) for told in found),
        "longest, in seconds of processor time": round(max((told.seconds for told in found), default=0), 1),
        "largest, in MB": max((told.memory for told in found), default=0) >> 20,
    }


def main(argv: list[str] | None = None) -> int:
    """0 when every case ended as it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"cases": 5000, "words": 1000, "processes": 2, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", help="NAME:SEED of one case")
    parser.add_argument("--forms", help="the names of some forms, with commas")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    prepare()
    with tempfile.TemporaryDirectory(prefix="cm-fuzz-") as folder:
        root = Path(folder) / "sound"
        forms = [form for form in build(root) if not chosen.forms or form.name in chosen.forms.split(",")]
        if chosen.only:
            name, _, seed = chosen.only.rpartition(":")
            told = attempt({form.name: form for form in forms}.get(name), int(seed), root)
            print(json.dumps(vars(told), indent=2), told.text, sep="\n")
            return bool(told.wrong)
        began, listed = time.monotonic(), cases(forms, chosen.cases, chosen.words, chosen.seed)
        places = [Path(folder) / f"told-{k}" for k in range(chosen.processes)]
        children = []
        for k, place in enumerate(places):
            children.append(os.fork())
            if not children[-1]:
                code = 1
                try:
                    part(k, chosen.processes, listed, root, place)
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code)
        broken = [os.waitpid(child, 0)[1] for child in children]
        found = [Told(**json.loads(line)) for place in places if place.exists() for line in place.open()]
        print(json.dumps({**summary(found), "minutes": round((time.monotonic() - began) / 60, 1)}, indent=2))
        return int(any(broken) or any(told.wrong for told in found) or len(found) != len(listed))


if __name__ == "__main__":
    sys.exit(main())
