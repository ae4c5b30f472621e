"""Free memory is what the system or the container says, whichever is less."""

import os
from pathlib import Path

import pytest
import torch

from cmtool.training import memory
from cmtool.training.memory import free_memory, reading_threads

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("LOCAL_WORLD_SIZE", "SLURM_STEP_TASKS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A made-up /proc and /sys."""
    monkeypatch.setattr(memory, "Path", lambda name: tmp_path / str(name).lstrip("/"))
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "sys/fs/cgroup")

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


def test_this_system_has_some():
    assert 1 << 20 < free_memory(CPU) < 1 << 46
    available = next(line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if "Available" in line)
    assert free_memory(CPU) < 1.2 * 1024 * int(available)


def test_what_the_system_does_not_say_is_little(files):
    assert free_memory(CPU) == 2 << 30


def test_the_smaller_of_system_and_container_counts(files):
    files("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert free_memory(CPU) == 5000 * 1024
    files("proc/self/cgroup", "0::/\n")
    files("sys/fs/cgroup/memory.max", "max\n")
    files("sys/fs/cgroup/memory.current", "1000000\n")
    assert free_memory(CPU) == 5000 * 1024
    files("sys/fs/cgroup/memory.max", "3000000\n")
    assert free_memory(CPU) == 2_000_000
    files("sys/fs/cgroup/memory.stat", "active_file 7\ninactive_file 500000\n")
    assert free_memory(CPU) == 2_500_000, "pages of files are given back"
    files("sys/fs/cgroup/memory.current", "4000000\n")
    assert free_memory(CPU) == 0


def test_the_job_of_a_scheduler_counts_with_all_around_it(files):
    """A step of SLURM lies in its job, which has the limit."""
    files("proc/meminfo", "MemAvailable: 9000000 kB\n")
    files("proc/self/cgroup", "0::/system.slice/slurmstepd.scope/job_7/step_0/user\n")
    job = "sys/fs/cgroup/system.slice/slurmstepd.scope/job_7"
    files(f"{job}/step_0/user/memory.max", "max\n")
    files(f"{job}/step_0/user/memory.current", "10\n")
    files(f"{job}/memory.max", "70000\n")
    files(f"{job}/memory.current", "20000\n")
    assert free_memory(CPU) == 50_000
    files(f"{job}/step_0/memory.max", "40000\n")
    files(f"{job}/step_0/memory.current", "20000\n")
    assert free_memory(CPU) == 20_000


def test_older_control_groups_count_too(files):
    files("proc/meminfo", "MemAvailable: 5000 kB\n")
    files("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:hugetlb,memory:/docker/abc\n")
    files("sys/fs/cgroup/memory/memory.limit_in_bytes", "3000000\n")
    files("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000000\n")
    assert free_memory(CPU) == 2_000_000, "within a container its own group is the root"
    files("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "2000000\n")
    files("sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "1000000\n")
    files("sys/fs/cgroup/memory/docker/abc/memory.stat", "total_inactive_file 1000\n")
    assert free_memory(CPU) == 1_001_000


@pytest.mark.parametrize("name", ["LOCAL_WORLD_SIZE", "SLURM_STEP_TASKS_PER_NODE"])
def test_ranks_of_one_machine_share_its_cores_and_memory(name, monkeypatch, files):
    files("proc/meminfo", "MemAvailable: 6000 kB\n")
    monkeypatch.setattr(memory, "sched_getaffinity", lambda process: set(range(6)))
    for ranks, threads in (("1", 6), ("2", 3), ("4(x2),3", 1), ("100", 1), ("0", 6), ("many", 6)):
        monkeypatch.setenv(name, ranks)
        assert reading_threads() == threads
    monkeypatch.setenv(name, "3")
    assert free_memory(CPU) == 2000 * 1024


def test_torchrun_knows_better_than_srun_which_started_it(monkeypatch):
    monkeypatch.setattr(memory, "sched_getaffinity", None)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert reading_threads() == 8
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert reading_threads() == 4
