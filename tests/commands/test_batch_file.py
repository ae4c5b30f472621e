"""``--print-sbatch``: what is asked of Slurm, and that a stand-in for it trains, requeues and goes on by that file."""

import json
import os
import shutil
import subprocess

import pytest
import slurm
from tiny import random_model

from cmtool.commands.batch_file import BatchJob, parse_batch_job
from cmtool.errors import UsageError
from cmtool.files.runs import METRICS, read_status

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
TINY = ["-d", "digits[0:256]", "-b", "16", "--set", "backbone.model_channels=8", "--snapshots", "0", "--threads", "1"]

GOES_ON = "a batch job goes on with its run when it is started again"
SHARING = "the jobs that share the images of sample are an array"


@pytest.fixture
def printed(cm, tmp_path, monkeypatch):
    """The batch file of a command line, checked by bash."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        told = cm(*words)
        assert (told.code, told.err) == (0, "")
        file = tmp_path / "job.sh"
        file.write_text(told.out)
        subprocess.run(["bash", "-n", file], check=True)
        return told.out

    return call


@pytest.fixture
def submit(tmp_path, monkeypatch):
    """Run ``job.sh`` as Slurm would; the code of the job, and what it has said."""
    path = f"{slurm.install(tmp_path)}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}

    def call(**more):
        words = ["sbatch", "job.sh"]
        done = subprocess.run(words, cwd=tmp_path, env=env | more, text=True, capture_output=True, timeout=500)
        told = [path.read_text() for path in sorted(tmp_path.glob("slurm-*.out"))]
        return done.returncode, "".join([done.stdout, done.stderr, *told])

    return call


def asked(text):
    return [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")]


def test_what_is_asked_of_slurm(printed):
    job = "nodes=2,gpus=4,cpus=8,memory=200G,time=2-12,partition=long,account=vision,qos=low"
    text = printed("train-ct", "--run-dir", "x", "--print-sbatch", job)
    assert asked(text) == [
        *("job-name=train-ct", "nodes=2", "ntasks-per-node=1", "gpus-per-node=4", "cpus-per-task=32", "mem=200G"),
        *("time=2-12", "partition=long", "account=vision", "qos=low"),
        *("requeue", "signal=USR1@120", "open-mode=append"),
    ]
    assert '--nnodes "$SLURM_NNODES" --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d' in text
    assert "--nproc-per-node 4 --max-restarts 3 \\" in text
    assert "--signals-to-handle SIGTERM,SIGINT,SIGUSR1 --shutdown-timeout 100 \\" in text


def test_one_node_needs_no_place_to_meet(printed):
    text = printed("train-ct", "--run-dir", "x", "--print-sbatch")
    assert asked(text)[:3] == ["job-name=train-ct", "nodes=1", "ntasks-per-node=1"]
    assert "srun torchrun --standalone \\" in text
    assert "rdzv" not in text


@pytest.mark.parametrize("flag", [["--print-sbatch"], ["--print-sbatch="], ["--print-sbatch", "gpus=1"]])
def test_the_command_line_is_kept_and_quoted(printed, tmp_path, flag):
    (tmp_path / "it's a set").mkdir()
    words = ["--run-dir", "runs/a b", "--images", "10", "--set", "method.P_mean=-0.4", "--data", "./it's a set[0:4]"]
    for at in (0, 4, len(words)):
        text = printed("train-ct", *words[:at], *flag, *words[at:])
        last = next(line for line in text.splitlines() if "-m cmtool" in line)
        script = f"set -- {last.strip().removeprefix('-m cmtool ')}; printf '%s\\n' \"$@\""
        told = subprocess.run(["bash", "-c", script], text=True, capture_output=True, check=True)
        assert told.stdout.splitlines() == ["train-ct", *words]
        assert "\nrun='runs/a b'\n" in text
    assert sorted(os.listdir(tmp_path)) == ["it's a set", "job.sh"]  # nothing else has happened


def test_the_file_is_one_document_with_json(cm):
    told = json.loads(cm("train-ct", "--run-dir", "x", "--print-sbatch", "--json").out)
    assert told["schema"] == "cmtool.train-ct/1"
    assert told["sbatch"].startswith("#!/bin/bash\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("train-ct", "--print-sbatch"),
            "a batch job goes on with its run when it is started again, and needs --run-dir",
        ),
        (("train-ct", "--run-dir", "x", "--print-sbatch", "array=2"), "one run cannot be trained by an array of jobs"),
        (
            ("sample", "--print-sbatch", "nodes=2"),
            "the jobs that share the images of sample are an array, each on one node",
        ),
        (("sample", "--shard", "1/2", "--print-sbatch"), "each job of an array has a --shard of its own"),
        (("sample", "-o", "-", "--print-sbatch"), "the jobs of an array cannot share standard output"),
        (("train-ct", "--run-dir", "x", "--print-sbatch", "gpu=2"), "unknown key of a batch job 'gpu'"),
        (("train-ct", "--run-dir", "x", "--print-sbatch", "gpus=0"), "'gpus=0' of a batch job is not between 1 and 64"),
        (("train-ct", "--images", "0", "--print-sbatch"), None),
        (("edit", "colorize", "x.png", "--print-sbatch"), "unknown option '--print-sbatch'"),
    ],
)
def test_what_cannot_be_a_batch_job(cm, words, message):
    told = cm(*words)
    assert (told.code, told.out) == (2, "")
    assert message is None or told.error[0] == message


@pytest.mark.parametrize(
    "text", ["time=1;reboot", "partition=a\n#SBATCH --x=1", "memory=lots", "qos=", "time=٣", "nodes"]
)
def test_nothing_but_words_gets_into_the_file(text):
    with pytest.raises(UsageError, match="of a batch job is not"):
        parse_batch_job(text)


def test_a_job_is_what_was_asked_for():
    assert parse_batch_job("") == BatchJob()
    assert parse_batch_job("processes=8,nodes=3") == BatchJob(nodes=3, processes=8)
    assert [parse_batch_job(text).ranks for text in ("gpus=4", "gpus=4,processes=2", "")] == [4, 2, 1]


WRITES = """#!/bin/sh
echo "$@" >> torchrun.log
n=$(cat count 2> /dev/null || echo 0); n=$((n + 1)); echo $n > count
set -- {states}
eval "state=\\${{$n}}"
[ "$state" = nothing ] && exit {code}
mkdir -p x; echo "{{\\"state\\": \\"$state\\", \\"updated\\": \\"$n\\"}}" > x/status.json
exit {code}
"""


@pytest.mark.parametrize(
    ("states", "code", "runs", "ends"),
    [
        ("finished", 0, 1, 0),
        ("preempted preempted finished", 1, 3, 0),  # torchrun itself ends with 1 whenever it was signalled
        ("failed", 70, 1, 70),
        ("interrupted", 1, 1, 1),
        ("preempted nothing", 66, 2, 66),  # it was preempted once, and then its data were gone
        ("nothing", 2, 1, 2),
    ],
)
def test_only_a_preempted_run_is_requeued(printed, submit, tmp_path, states, code, runs, ends):
    printed("train-ct", "--run-dir", "x", "--print-sbatch", "gpus=2")
    (tmp_path / "bin" / "torchrun").write_text(WRITES.format(states=states, code=code))
    assert submit()[0] == ends
    calls = (tmp_path / "torchrun.log").read_text().splitlines()
    assert calls == [calls[0]] * runs
    assert calls[0].endswith("-m cmtool train-ct --run-dir x")


def test_an_array_makes_the_images_together(printed, submit, tmp_path):
    random_model(tmp_path / "model.safetensors", (1, 8, 8))
    text = printed("sample", "-m", "model.safetensors", "-n", "10", "-o", "out.npz", "--print-sbatch", "array=2")
    assert "array=1-2" in asked(text)
    assert text.count('--shard "$SLURM_ARRAY_TASK_ID/2"') == 1
    code, told = submit()
    assert code == 0, told
    assert ", part 1/2, " in told
    assert ", part 2/2, " in told
    assert {"out.npz", "out.npz.manifest.jsonl"} <= set(os.listdir(tmp_path))


def test_the_tasks_of_srun_make_the_images_together(printed, submit, tmp_path):
    random_model(tmp_path / "model.safetensors", (1, 8, 8))
    printed("sample", "-m", "model.safetensors", "-n", "10", "-o", "out.npz", "--print-sbatch", "processes=2")
    code, told = submit()
    assert code == 0, told
    assert "(rank 0 of 2)" in told
    assert "(rank 1 of 2)" in told
    assert (tmp_path / "out.npz").exists()


@pytest.mark.slow
@pytest.mark.parametrize("job", ["processes=2", "nodes=2"])
def test_a_preempted_run_is_requeued_and_ends_as_if_nothing_had_been(printed, submit, well, tmp_path, job):
    words = ["train-score", *TINY, "--images", "800", "--save-every", "160img"]
    printed(*words, "--run-dir", "x", "--print-sbatch", job)
    status = tmp_path / "x" / METRICS
    code, told = submit(SLURM_TEST_SIGNAL="SIGUSR1", SLURM_TEST_WHEN=str(status), SLURM_TEST_TEXT="images")
    assert code == 0, told
    assert (tmp_path / "signalled").exists()
    assert len(list(tmp_path.glob("requeue.*"))) == 1, told
    assert read_status(tmp_path / "x")["state"] == "finished"
    well(*words, "--run-dir", "alone")
    assert (tmp_path / "x/model.safetensors").read_bytes() == (tmp_path / "alone/model.safetensors").read_bytes()
