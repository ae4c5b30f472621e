"""Kill and stop training again and again, and see whether anything is lost: a process of its own, which forks.

    python reliability.py FOLDER [--every N] [--kills N] [--stops N]

Three things are done to train-score, train-ct and distill, each of which must end with the files of a run that nobody
disturbed, bit for bit:

    points   SIGKILL at every N-th of the moments at which a run opens, writes, forces out, renames or removes a file
    kills    SIGKILL at random moments of a run that saves after each step
    stops    SIGTERM at random steps, half of them in bfloat16

torch is imported once; children are forked. Prints a line of JSON with what happened.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from cmtool.cli import run
from cmtool.commands.training.training_run import TrainingRun
from cmtool.errors import BadFile, MissingInput
from cmtool.files.header import read_header
from cmtool.files.run_states import stored_states
from cmtool.files.runs import read_status
from cmtool.files.sealed import load_state
from cmtool.options import registry

NETWORK = ["--set", "backbone.model_channels=8", "--set", "backbone.channel_mult=[1]", "--set", "backbone.num_blocks=1"]
SHARED = ["-d", "digits[:60]", "--lr", "3e-3", "--warmup", "0", "--ema", "64,power:0.1", "--threads", "1", "--quiet"]
RANDOM = [*NETWORK, "--set", "backbone.dropout=0.1", "--flip"]
MEASURED = ["--eval-every", "32img", "--eval-n", "8", "--eval-ema", "power:0.1"]
CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
CLOCK = {"status.json", "timing.jsonl", ".lock"}  # files that differ from run to run


def commands(teacher):
    return {
        "train-score": ["train-score", *RANDOM],
        "train-ct": ["train-ct", "--method", "ct", *RANDOM, *MEASURED],
        "distill": ["distill", "--method", "cd", "-t", str(teacher), "--flip"],
    }


def child(words, before=None):
    """Run a command in a process of its own; ``before`` is called there first."""
    number = os.fork()
    if number:
        return number
    code = 99
    with contextlib.suppress(BaseException):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(os.open(os.environ.get("CHILDREN", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
        after = before() if before else None
        code = run(words)
        if after:
            after()
    os._exit(code)


def outcome(number):
    """The exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_same(ours, theirs, about):
    """Everything but the clock, and but states beside the last: which of them are left depends on where it stopped."""
    mine, other = files(ours), files(theirs)
    last = max(name for name in other if name.startswith("states/"))
    wanted = {name for name in other if name not in CLOCK and (not name.startswith("states/") or name == last)}
    wrong = sorted(name for name in wanted if mine.get(name) != other[name])
    left = [name for name in mine if ".tmp-" in name or name.endswith(".damaged")]
    assert not wrong, f"{about}: {wrong} differ"
    assert not left, f"{about}: {left} were left"


def assert_whole(folder, about):
    """Whatever stands under its name is whole, and what a status says was saved is there."""
    numbers = [load_state(path)[1]["images"] for path in stored_states(folder)]
    for path in [
        folder / "model.safetensors",
        *folder.glob("best*.safetensors"),
        *folder.glob("best/*.safetensors"),
        *folder.glob("ema/*.safetensors"),
    ]:
        if path.is_file():
            read_header(path, whole=True)
    if (folder / "status.json").is_file():
        saved = read_status(folder).get("saved")
        assert not saved or max(numbers, default=-1) >= saved["images"], f"{about}: a save was lost"
    assert numbers or not (folder / "model.safetensors").is_file(), f"{about}: the state was lost"


class KillPoint:
    """Ends this process with SIGKILL at the ``target``-th change of a file below ``folder``; 0: never."""

    def __init__(self, folder, target, report=None):
        self.folder, self.target, self.report, self.count = str(folder), target, report, 0

    def __call__(self):
        """Watch; what this returns writes how many changes there were."""
        opened, forced = io.open, os.fsync

        def watch(event, arguments):
            if event in CHANGES and self._is_ours(arguments[0]) and (event != "open" or self._writes(arguments)):
                self.pass_by()

        def watched_open(file, mode="r", *rest, **more):
            found = opened(file, mode, *rest, **more)
            return Watched(found, self) if self._is_ours(file) and set(mode) & set("wxa+") else found

        def watched_fsync(number):
            self.pass_by()
            forced(number)

        io.open = watched_open  # what pathlib calls
        os.fsync = watched_fsync
        sys.addaudithook(watch)
        return lambda: Path(self.report).write_text(str(self.count)) if self.report else None

    def pass_by(self):
        self.count += 1
        if self.count == self.target:
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_ours(self, path):
        return isinstance(path, str | Path) and str(path).startswith(self.folder)

    def _writes(self, arguments):
        mode, flags = arguments[1], arguments[2]
        return bool(set(mode) & set("wxa+")) if isinstance(mode, str) else bool(flags & (os.O_WRONLY | os.O_RDWR))


class Watched:
    """A file of which each write may be cut in its middle."""

    def __init__(self, file, point):
        self.file, self.point = file, point

    def write(self, data):
        if self.point.count + 1 == self.point.target:
            self.file.write(data[: len(data) // 2])
            self.file.flush()
        self.point.pass_by()
        return self.file.write(data)

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)

    def __iter__(self):
        return iter(self.file)

    def __getattr__(self, name):
        return getattr(self.file, name)


def sweep(root, name, words, every):
    """Kill at every ``every``-th point of a run with two saves on the way, and go on."""
    words = [*words, *SHARED, "--images", "64", "--batch", "16", "--save-every", "32img", "--ema-snapshots", "2"]
    words += ["--snapshots", str(int(name != "train-score")), "--keep", "1", "--run-dir"]  # whose pictures take long
    whole, place, report = root / f"{name}-whole", root / f"{name}-run", root / "count"
    assert outcome(child([*words, str(whole)])) == 0
    assert outcome(child([*words, str(place)], KillPoint(place, 0, report))) == 0
    points, found = int(report.read_text()), Counter()
    for target in range(1 + random.Random(name).randrange(every), points + 1, every):
        shutil.rmtree(place)
        about = f"{name}, point {target} of {points}"
        assert outcome(child([*words, str(place)], KillPoint(place, target))) == -signal.SIGKILL, about
        found["saved"] += place.is_dir() and bool(stored_states(place))
        assert_whole(place, about)
        assert outcome(child([*words, str(place)])) == 0, about
        assert_same(place, whole, about)
        found["points"] += 1
    found["of_points"] = points
    return found


def in_a_save(folder):
    """Whether a run was killed while it saved: amid a file, or before its checkpoints or its status followed."""
    if list(folder.rglob(".tmp-*")):
        return True
    try:
        newest = int(stored_states(folder)[0].stem)
        saved = read_status(folder).get("saved") or {}
        return newest != read_header(folder / "model.safetensors").images or newest != saved.get("images")
    except (IndexError, BadFile, MissingInput):
        return False


def random_kills(root, name, words, kills, pick):
    """Kill a run of twelve steps, each of which is saved, at random moments, until it has come to its end."""
    words = [*words, *SHARED, "--images", "192", "--batch", "16", "--save-every", "16img", "--ema-snapshots", "4"]
    words += ["--snapshots", "0", "--keep", "2", "--run-dir"]
    whole, place, found = root / f"{name}-whole", root / f"{name}-run", Counter()
    began = time.monotonic()
    assert outcome(child([*words, str(whole)])) == 0
    usual = time.monotonic() - began
    while found["kills"] < kills or place.exists():
        last = found["kills"] >= kills
        number, until = child([*words, str(place)]), time.monotonic() + (600 if last else pick.uniform(0, usual))
        while time.monotonic() < until and not os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            time.sleep(0.0005)
        os.kill(number, signal.SIGKILL)
        code = outcome(number)
        assert code in (0, -signal.SIGKILL), f"{name}: a child ended with {code}"
        if code:
            found["kills"] += 1
            found["while_saving"] += place.is_dir() and in_a_save(place)
            if place.is_dir():
                assert_whole(place, name)
        else:
            assert_same(place, whole, f"{name}, after {found['kills']} kills")
            found["compared"] += 1
            shutil.rmtree(place)
    return found


def stop_at(images):
    """SIGTERM at the end of the step that reaches so many images."""

    def before():
        step = TrainingRun.step

        def wrapped(self, report, *rest):
            step(self, report, *rest)
            if report.images == images:
                os.kill(os.getpid(), signal.SIGTERM)

        TrainingRun.step = wrapped

    return before


def stops(root, name, words, count, pick):
    """Stop a run of steps of three micro-batches at random steps, once each, and go on."""
    words = [*words, *SHARED, "--images", "480", "--batch", "24", "--micro-batch", "8", "--snapshots", "0"]
    found = Counter()
    for precision in ("fp32", "bf16"):
        call = [*words, "--precision", precision, "--run-dir"]
        whole = root / f"{name}-{precision}"
        assert outcome(child([*call, str(whole)])) == 0
        for images in pick.sample(range(24, 480, 24), (count + (precision == "fp32")) // 2):
            place, about = root / f"{name}-stopped", f"{name}, {precision}, stopped at {images}"
            assert outcome(child([*call, str(place)], stop_at(images))) == 75, about
            assert read_status(place)["images"] == images
            assert outcome(child([*call, str(place)])) == 0, about
            assert_same(place, whole, about)
            shutil.rmtree(place)
            found["stops"] += 1
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--commands", default="train-score,train-ct,distill")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--stops", type=int, default=10)
    options = parser.parse_args()
    registry.entry_points = functools.cache(registry.entry_points)  # or each child reads the metadata of all packages
    teacher, pick = options.folder / "teacher", random.Random(0)
    # here, so that every child finds all modules imported
    assert run(["train-score", *NETWORK, *SHARED, "-n", "32", "--snapshots", "1", "--run-dir", str(teacher)]) == 0
    chosen = {name: commands(teacher)[name] for name in options.commands.split(",")}
    began, told = time.monotonic(), {}
    for k, (name, words) in enumerate(chosen.items()):
        found = Counter()
        for part in ("points", "kills", "stops"):
            root = options.folder / f"{name}-{part}"
            root.mkdir()
            share = options.kills // len(chosen) + (k < options.kills % len(chosen))
            if part == "points" and options.every:
                found += sweep(root, name, words, options.every)
            elif part == "kills" and share:
                found += random_kills(root, name, words, share, pick)
            elif part == "stops" and options.stops:
                found += stops(root, name, words, options.stops, pick)
            shutil.rmtree(root)
        told[name] = dict(found)
        print(name, json.dumps(told[name]), file=sys.stderr, flush=True)
    print(json.dumps({**told, "seconds": round(time.monotonic() - began)}))


if __name__ == "__main__":
    main()
