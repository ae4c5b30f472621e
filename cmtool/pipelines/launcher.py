"""Which of several processes this is: by the environment of torchrun, else by that of srun."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cmtool.errors import UsageError

__all__ = ["World", "find_world", "first_host", "has_stray_rank", "meeting_place", "shard_of"]

INTERACTIVE = {"bash", "interactive"}  # names of Slurm jobs that are a shell: what is called there runs once
LARGEST_STEP = 1 << 31  # above it are the numbers of steps that srun has not started, such as the batch script
PORTS = 15_000, 10_000  # first and how many: below those that systems give to outgoing connections


@dataclass(frozen=True)
class World:
    """``rank`` of ``size`` processes, the ``local_rank``-th of its host; the ``launcher`` is torchrun, srun or none."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    launcher: str = "single"

    @property
    def main(self) -> bool:
        """Whether this is the rank that writes, and tells the result."""
        return self.rank == 0


def find_world(environment: Mapping[str, str] = os.environ) -> World:
    """The place of this process among those that a launcher has started.

    torchrun is known by its run id, or by a rank together with the place where the ranks meet; srun by a step of
    several tasks, unless the job is an interactive shell. Ranks that no launcher has set were left over, and do not
    count. UsageError for ranks that are no numbers.
    """
    if _by_torchrun(environment):
        return _world("torchrun", environment, ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if _by_srun(environment):
        return _world("srun", environment, ("SLURM_PROCID", _tasks(environment), "SLURM_LOCALID"))
    return World()


def _by_torchrun(environment: Mapping[str, str]) -> bool:
    place = "MASTER_ADDR" in environment and "MASTER_PORT" in environment
    return "TORCHELASTIC_RUN_ID" in environment or (place and "RANK" in environment)


def _by_srun(environment: Mapping[str, str]) -> bool:
    step = environment.get("SLURM_STEP_ID", "")
    return (
        "SLURM_PROCID" in environment
        and step.isdecimal()
        and int(step) < LARGEST_STEP
        and environment.get(_tasks(environment), "") not in ("", "1")
        and environment.get("SLURM_JOB_NAME") not in INTERACTIVE
    )


def _tasks(environment: Mapping[str, str]) -> str:
    """The variable that has the tasks of the step; the other one may be those of the job."""
    return "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"


def _world(launcher: str, environment: Mapping[str, str], names: tuple[str, str, str]) -> World:
    """A world from the variables of its rank, size and local rank, by their names."""
    rank, size, local = (environment.get(name) or default for name, default in zip(names, "010", strict=True))
    if not all(text.isdecimal() and len(text) < 10 for text in (rank, size, local)) or int(rank) >= int(size):
        text = f"{names[0]}={rank} and {names[1]}={size} are no rank of a group of processes"
        raise UsageError(text, "unset both")
    return World(int(rank), int(size), int(local), launcher)


def meeting_place(environment: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Host and port where the ranks of srun meet: what is set for that, else the first host and a port of the job.

    UsageError where Slurm names no host.
    """
    hosts = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_NODELIST", ""))
    host = environment.get("MASTER_ADDR") or first_host(hosts)
    if not host:
        raise UsageError("srun has started this process, and SLURM_NODELIST names no host", "set MASTER_ADDR to one")
    named = environment.get("MASTER_PORT", "")
    if named.isdecimal() and 0 < int(named) < 1 << 16:
        return host, int(named)
    numbers = [environment.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID")]
    return host, PORTS[0] + sum(int(number) for number in numbers if number.isdecimal()) % PORTS[1]


def first_host(hosts: str) -> str:
    """The first host of Slurm's list: ``gpu03`` of ``gpu[03-05,9],login1``."""
    first = re.match(r"(?:\[[^]]*\]|[^,\[])*", hosts)
    return re.sub(r"\[(\w*)[^]]*\]", r"\1", first[0]) if first else ""


def has_stray_rank(environment: Mapping[str, str] = os.environ) -> str | None:
    """The warning about ranks that do not count."""
    rank, size = environment.get("RANK"), environment.get("WORLD_SIZE", "1")
    if _by_torchrun(environment) or _by_srun(environment) or rank is None or size in ("", "1"):
        return None
    return (
        f"RANK={rank} and WORLD_SIZE={size} are set, and no launcher such as torchrun has started this process; "
        "they do not count, and everything is made here"
    )


def shard_of(given: str | None, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Part (from 1) and number of parts: ``3/8`` as (3, 8), of which each rank has an equal share.

    Rank r of w in part k of n has part ``(k - 1) w + r + 1`` of ``n w``. UsageError for ranks that are no numbers.
    """
    part, parts = map(int, (given or "1/1").split("/"))
    world = find_world(environment)
    return (part - 1) * world.size + world.rank + 1, parts * world.size
