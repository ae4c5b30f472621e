"""``--print-sbatch``: a batch file for Slurm that runs this very command line, and goes on with it when preempted."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from shlex import join, quote
from typing import Any

from cmtool.commands.console import Console
from cmtool.errors import Hint, Setting, UsageError, unknown_name

__all__ = ["BatchJob", "parse_batch_job", "run"]

FLAG = "--print-sbatch"

NOTICE = 120  # seconds before the end of its time at which Slurm signals a job
SAVING = NOTICE - 20  # seconds of these that torchrun gives the ranks, for the step that they are in and for saving
NUMBERS = {"nodes": 1024, "gpus": 64, "processes": 256, "cpus": 1024, "array": 10_000}  # and their largest values
WORDS = {
    "time": (r"(\d+-)?\d+(:\d\d){0,2}", "such as 24:00:00 or 2-12"),
    "memory": (r"\d+[KMGT]?", "such as 64G"),
    **dict.fromkeys(("partition", "account", "qos"), (r"[\w.-]+", "a name")),
}


@dataclass(frozen=True)
class BatchJob:
    """What a job asks of Slurm: ``processes`` and ``gpus`` of each node, ``cpus`` of each process.

    ``array`` is the number of jobs that share the images of ``sample``.
    """

    nodes: int = 1
    gpus: int = 0
    processes: int = 0
    cpus: int = 0
    array: int = 0
    memory: str = ""
    time: str = ""
    partition: str = ""
    account: str = ""
    qos: str = ""

    @property
    def ranks(self) -> int:
        """The processes of a node: one for each GPU, unless it was said."""
        return self.processes or self.gpus or 1


def run(argv: Sequence[str], options: Any, job: str, console: Console) -> None:
    """Print the batch file of a command line; UsageError where it could not go on, or be shared."""
    asked, (command, *words) = parse_batch_job(job), _without_flag(argv)
    lines = _sampling(words, options, asked) if command == "sample" else _training(command, words, options, asked)
    text = "\n".join(lines)
    console.result({"sbatch": text + "\n"}, text)


def parse_batch_job(text: str) -> BatchJob:
    """``nodes=2,gpus=4,time=24:00:00,partition=long``: any of the fields of a BatchJob; UsageError for others."""
    found: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if key not in {field.name for field in fields(BatchJob)}:
            raise unknown_name("key of a batch job", key, [field.name for field in fields(BatchJob)])
        wrong = f"{key}={value}" if equals else key
        if key in NUMBERS:
            if not (value.isdecimal() and len(value) < 10 and 1 <= int(value) <= NUMBERS[key]):
                raise UsageError(f"'{wrong}' of a batch job is not between 1 and {NUMBERS[key]:,}")
            found[key] = int(value)
        else:
            pattern, example = WORDS[key]
            if not re.fullmatch(pattern, value, re.ASCII):
                raise UsageError(f"'{wrong}' of a batch job is not {example}")
            found[key] = value
    return BatchJob(**found)


def _without_flag(argv: Sequence[str]) -> list[str]:
    """The same command line as it would be typed to run it."""
    if FLAG in argv:
        place = argv.index(FLAG)
        argv = [*argv[:place], *argv[place + 2 :]]
    return [word for word in argv if not word.startswith(f"{FLAG}=")]


def _training(command: str, words: Sequence[str], options: Any, job: BatchJob) -> list[str]:
    folder: Path | None = options.run_dir or options.resume
    if folder is None:
        text = Hint("a batch job goes on with its run when it is started again, and needs {}", Setting("run_dir"))
        raise UsageError(text, Hint("add {}", Setting("run_dir", f"runs/{command}/mine")))
    if job.array:
        raise UsageError("one run cannot be trained by an array of jobs", "leave array out")
    return [
        *_head(command, job, tasks=1, cpus=job.cpus * job.ranks),
        f"run={quote(str(folder))}",
        'before=$(cat "$run/status.json" 2> /dev/null)',
        *_launch(job, join([command, *words])),
        "code=$?",
        "",
        "# torchrun ends with 1 whenever it was signalled; what became of the run is in its status.",
        'if [ "$(cat "$run/status.json" 2> /dev/null)" = "$before" ]; then',
        '    exit "$code"  # it has not even begun',
        "fi",
        'case $(cmtool status "$run" --state) in',
        '    preempted) scontrol requeue "$SLURM_JOB_ID" || exit 75 ;;',
        "    finished) exit 0 ;;",
        '    *) exit "$code" ;;',
        "esac",
    ]


def _sampling(words: Sequence[str], options: Any, job: BatchJob) -> list[str]:
    if job.nodes > 1:
        raise UsageError("the jobs that share the images of sample are an array, each on one node", "write array=8")
    if options.shard is not None:
        raise UsageError(Hint("each job of an array has a {} of its own", Setting("shard")), "leave it out")
    if options.output == "-":
        raise UsageError("the jobs of an array cannot share standard output", Hint("name an {}", Setting("output")))
    part = [f'--shard "$SLURM_ARRAY_TASK_ID/{job.array}"'] if job.array else []
    return [
        *_head("sample", job, tasks=job.ranks, cpus=job.cpus),
        " ".join(["srun", "cmtool", join(["sample", *words]), *part]),
        "code=$?",
        "",
        'if [ "$code" -eq 75 ]; then  # preempted: the same command makes the rest',
        '    scontrol requeue "$SLURM_JOB_ID" && exit 0',
        "fi",
        'exit "$code"',
    ]


def _head(command: str, job: BatchJob, tasks: int, cpus: int) -> list[str]:
    asked = {
        "job-name": command,
        "array": f"1-{job.array}" if job.array else "",
        "nodes": job.nodes,
        "ntasks-per-node": tasks,
        "gpus-per-node": job.gpus,
        "cpus-per-task": cpus,
        "mem": job.memory,
        "time": job.time,
        "partition": job.partition,
        "account": job.account,
        "qos": job.qos,
    }
    lines = [f"#SBATCH --{key}={value}" for key, value in asked.items() if value]
    always = ["--requeue", f"--signal=USR1@{NOTICE}", "--open-mode=append"]
    return ["#!/bin/bash", *lines, *(f"#SBATCH {flag}" for flag in always), ""]


def _launch(job: BatchJob, command: str) -> list[str]:
    """torchrun once on each node; on several they meet at the first one, at a port of the job."""
    place, lines = "--standalone", []
    if job.nodes > 1:
        lines = ['head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)']
        place = (
            '--nnodes "$SLURM_NNODES" --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d '
            '--rdzv-endpoint "$head:$((15000 + SLURM_JOB_ID % 10000))"'
        )
    return [
        *lines,
        f"srun torchrun {place} \\",
        f"    --nproc-per-node {job.ranks} --max-restarts 3 \\",
        f"    --signals-to-handle SIGTERM,SIGINT,SIGUSR1 --shutdown-timeout {SAVING} \\",
        f"    -m cmtool {command}",
    ]
