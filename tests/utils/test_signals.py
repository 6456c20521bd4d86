"""Signals that end a process: raised or recorded once, and only where they are not ignored on purpose."""

import signal

import pytest

from vidstill.utils.signals import STOP_SIGNALS, StopSignal, delay_signals, handle_signals, raise_signals


@pytest.fixture(autouse=True)
def _restore():
    previous = {number: signal.signal(number, signal.SIG_DFL) for number in STOP_SIGNALS}
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    signal.raise_signal(number)  # to this thread: another one may deliver it late


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signal_is_raised_where_the_program_is(number):
    with pytest.raises(StopSignal, match=number.name) as error, raise_signals():
        send(number)
    assert error.value.number == number
    assert signal.getsignal(number) == signal.SIG_DFL


def test_signal_that_torchrun_sends_again_counts_once():
    """Also where it reaches the handler of a run first, and then that of the command."""
    received = []
    with raise_signals():
        with handle_signals(received.append):
            send(signal.SIGTERM)
            send(signal.SIGTERM)
        send(signal.SIGTERM)
    assert received == [signal.SIGTERM]


def test_signal_in_a_delay_is_raised_once_at_its_end():
    steps = []

    def start_worker():
        with raise_signals():
            with delay_signals():
                send(signal.SIGHUP)
                steps.append("in the block")
            steps.append("after it")

    with pytest.raises(StopSignal):
        start_worker()
    assert steps == ["in the block"]


def test_a_run_under_nohup_outlives_its_terminal():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with raise_signals():
        send(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
