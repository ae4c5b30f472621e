"""A stand-in for Slurm on one machine: ``sbatch``, ``srun`` and ``scontrol`` as far as a batch file of ours uses them.

``python slurm.py FOLDER sbatch FILE`` runs a batch file, again whenever it has asked to be requeued, and each part of
an array; what that says is in ``slurm-JOB.out``. ``srun`` starts the tasks of a step, and sends them
``$SLURM_TEST_SIGNAL`` once, when the file that ``$SLURM_TEST_WHEN`` names has the text ``$SLURM_TEST_TEXT`` in it. In
FOLDER stands who was requeued.
"""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

HOST = "localhost"
ATTEMPTS = 4


def install(folder: Path) -> Path:
    """A folder of the programs, and of those that they call."""
    programs = folder / "bin"
    programs.mkdir()
    ours = {name: f'"{Path(__file__)}" "{folder}" {name}' for name in ("sbatch", "srun", "scontrol")}
    for name, words in {**ours, "torchrun": "-m torch.distributed.run", "cmtool": "-m cmtool"}.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return programs


def sbatch(folder: Path, words: list[str]) -> int:
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", Path(words[0]).read_text("utf-8"), re.MULTILINE))
    nodes, tasks = int(asked["nodes"]), int(asked["ntasks-per-node"])
    first, last = map(int, asked.get("array", "0-0").split("-"))
    codes = []
    for part in range(first, last + 1):
        job = {
            "SLURM_JOB_ID": str(int(_job()) + part),
            "SLURM_JOB_NAME": asked["job-name"],
            "SLURM_NNODES": str(nodes),
            "SLURM_NTASKS": str(nodes * tasks),
            "SLURM_JOB_NODELIST": ",".join([HOST] * nodes),
        }
        if last:
            job |= {"SLURM_ARRAY_TASK_ID": str(part), "SLURM_ARRAY_TASK_COUNT": str(last)}
        code = 0
        for attempt in range(ATTEMPTS):
            env = os.environ | job | {"SLURM_RESTART_COUNT": str(attempt)}
            with Path(f"slurm-{job['SLURM_JOB_ID']}.out").open("a") as output:
                code = subprocess.run(["bash", words[0]], env=env, stdout=output, stderr=output).returncode
            mark = folder / f"requeue.{job['SLURM_JOB_ID']}.{attempt}"
            if not mark.exists():
                break
        codes.append(code)
        print(f"Submitted batch job {job['SLURM_JOB_ID']}")
    return max(codes)


def srun(folder: Path, words: list[str]) -> int:
    nodes, tasks = int(os.environ.get("SLURM_NNODES", 1)), int(os.environ.get("SLURM_NTASKS", 1))
    if words[0] == "--ntasks":
        tasks, words = int(words[1]), words[2:]
    running = []
    for rank in range(tasks):
        node, local = divmod(rank, tasks // nodes)
        step = {"SLURM_STEP_ID": "0", "SLURM_PROCID": rank, "SLURM_LOCALID": local, "SLURM_NODEID": node}
        step |= {"SLURM_STEP_NODELIST": HOST, "SLURM_STEP_NUM_TASKS": tasks, "SLURM_JOB_ID": _job()}
        env = os.environ | {name: str(value) for name, value in step.items()}
        running.append(subprocess.Popen(words, env=env, start_new_session=True))
    sent = folder / "signalled"
    while any(process.poll() is None for process in running):
        if not sent.exists() and _is_due():
            sent.touch()
            for number in sorted({n for process in running for n in (process.pid, *_below(process.pid))}):
                os.kill(number, getattr(signal, os.environ["SLURM_TEST_SIGNAL"]))
        time.sleep(0.02)
    return max(128 - process.returncode if process.returncode < 0 else process.returncode for process in running)


def scontrol(folder: Path, words: list[str]) -> int:
    if words[:2] == ["show", "hostnames"]:
        print("\n".join(words[2].split(",")))
        return 0
    assert words[0] == "requeue"
    (folder / f"requeue.{words[1]}.{os.environ['SLURM_RESTART_COUNT']}").touch()
    return 0


def _job() -> str:
    """The number of the job that this is in, or of a new one."""
    return os.environ.get("SLURM_JOB_ID", str(70_000 + os.getpid() % 10_000))


def _is_due() -> bool:
    try:
        return os.environ["SLURM_TEST_TEXT"] in Path(os.environ["SLURM_TEST_WHEN"]).read_text("utf-8")
    except (FileNotFoundError, KeyError):
        return False


def _below(number: int) -> list[int]:
    """The processes that a process has started, and so on: those of the step of a real Slurm."""
    children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    return [found for child in map(int, children) for found in (child, *_below(child))]


if __name__ == "__main__":
    programs = {"sbatch": sbatch, "srun": srun, "scontrol": scontrol}
    sys.exit(programs[sys.argv[2]](Path(sys.argv[1]), sys.argv[3:]))
