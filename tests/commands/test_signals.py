"""What a signal, and a second one, means to a long command."""

import signal
import time

import pytest

from cmtool.commands import signals
from cmtool.commands.signals import STOP_SIGNALS, Stop

LAUNCHED = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "2"}


@pytest.fixture
def launched(monkeypatch):
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("which", STOP_SIGNALS)
def test_a_scheduler_asks_once_however_often_it_signals(which):
    with Stop() as stop:
        for _ in range(3):
            signal.raise_signal(which)
        signal.raise_signal(signal.SIGTERM)  # at the end of the time that the job had
        assert (stop.asked, stop.preempted) == (which, True)
    assert signal.getsignal(which) == signal.SIG_DFL


def test_the_second_interrupt_does_not_wait():
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert (stop.asked, stop.preempted) == (signal.SIGINT, False)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_user_may_be_faster_than_a_scheduler():
    with Stop() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.preempted
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_launchers_copy_of_an_interrupt_is_no_second_one(launched, monkeypatch):
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.asked == signal.SIGINT
        later = time.monotonic() + 2
        monkeypatch.setattr(signals.time, "monotonic", lambda: later)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_what_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Stop() as stop:
            signal.raise_signal(signal.SIGTERM)
            assert stop.asked is None
    finally:
        signal.signal(signal.SIGTERM, before)
