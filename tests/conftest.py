"""What every test gets: one thread, and a home, a working directory and an environment of its own."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two threads on a busy machine are slower than one

import torch

HOMES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _isolated(tmp_path_factory, monkeypatch):
    """No test reads the configuration of whoever runs it, or writes into the folder it is run from."""
    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith("CMTOOL_")]:
        monkeypatch.delenv(name)
    for name in HOMES:
        monkeypatch.setenv(name, str(home))
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
