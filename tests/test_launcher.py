"""Which rank of which launcher a process is, by nothing but its environment."""

import pytest

from cmtool.errors import UsageError
from cmtool.pipelines.launcher import World, find_world, first_host, has_stray_rank, meeting_place, shard_of

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
SRUN = {"SLURM_JOB_ID": "81234", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1"}


def test_torchrun_comes_before_the_srun_that_has_started_it():
    assert find_world(SRUN | TORCHRUN) == World(5, 8, 1, "torchrun")
    assert find_world(SRUN) == World(3, 4, 1, "srun")
    assert find_world({}) == World(0, 1, 0, "single")


def test_a_meeting_place_that_a_batch_file_exports_is_no_launcher():
    place = {"MASTER_ADDR": "gpu1", "MASTER_PORT": "29500"}
    assert find_world(SRUN | place) == World(3, 4, 1, "srun")
    assert meeting_place(SRUN | place) == ("gpu1", 29500)
    assert find_world(place) == World()
    assert find_world(place | {"RANK": "1", "WORLD_SIZE": "2"}) == World(1, 2, 0, "torchrun")


@pytest.mark.parametrize(
    "other",
    [
        {"SLURM_NTASKS": "1"},
        {"SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_JOB_NAME": "bash"},
        {"SLURM_JOB_NAME": "interactive"},
        {"SLURM_STEP_ID": "4294967291"},  # the batch script
        {"SLURM_STEP_ID": ""},
    ],
)
def test_one_task_a_shell_and_a_batch_script_are_single(other):
    assert find_world(SRUN | other) == World()


def test_the_tasks_of_the_step_count_and_not_those_of_the_job():
    assert find_world(SRUN | {"SLURM_NTASKS": "64", "SLURM_STEP_NUM_TASKS": "4"}) == World(3, 4, 1, "srun")
    assert shard_of("2/3", SRUN) == (8, 12)


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("gpu7", "gpu7"),
        ("gpu[03-05,9],login1", "gpu03"),
        ("gpu[9],login1", "gpu9"),
        ("login1,gpu[03-05]", "login1"),
        ("rack[1-2]-node[08-09].site", "rack1-node08.site"),
        ("a-b.example,c", "a-b.example"),
        ("", ""),
    ],
)
def test_the_first_host_of_a_list(hosts, first):
    assert first_host(hosts) == first


def test_the_ranks_of_a_step_meet_at_its_first_host_and_a_port_of_its_own():
    hosts = {"SLURM_NODELIST": "gpu[3-5]"}
    assert meeting_place(SRUN | hosts) == ("gpu3", 15_000 + 1234)
    assert meeting_place(SRUN | hosts | {"SLURM_STEP_ID": "1"}) == ("gpu3", 15_000 + 1235)
    assert meeting_place(SRUN | hosts | {"SLURM_STEP_NODELIST": "gpu4"})[0] == "gpu4"
    with pytest.raises(UsageError, match="SLURM_NODELIST names no host"):
        meeting_place(SRUN)


@pytest.mark.parametrize(
    "wrong",
    [
        SRUN | {"SLURM_PROCID": "4"},
        SRUN | {"SLURM_PROCID": "-1"},
        SRUN | {"SLURM_NTASKS": "all"},
        TORCHRUN | {"RANK": "8"},
        TORCHRUN | {"LOCAL_RANK": "x"},
        TORCHRUN | {"WORLD_SIZE": "9" * 10},
    ],
)
def test_ranks_that_are_none_are_refused(wrong):
    with pytest.raises(UsageError, match="are no rank of a group of processes"):
        find_world(wrong)


def test_a_rank_without_a_launcher_is_told():
    assert has_stray_rank(SRUN | {"RANK": "1", "WORLD_SIZE": "2"}) is None
    assert "no launcher such as torchrun" in (has_stray_rank({"RANK": "1", "WORLD_SIZE": "2"}) or "")
