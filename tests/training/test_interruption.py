import os
import signal

import pytest

from coltrain.training.interruption import Interrupted, StopRequest


def test_a_first_signal_is_noted_and_met_where_it_is_safe():
    stop = StopRequest()
    with stop.listen([signal.SIGINT, signal.SIGTERM]):
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted) as caught:
            stop.check()
    assert caught.value.signal_name == "SIGTERM"


def test_a_second_sigint_leaves_at_once():
    stop = StopRequest()
    with stop.listen([signal.SIGINT, signal.SIGTERM]):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_of_one_s_own_is_heard_and_handlers_come_back():
    before = signal.getsignal(signal.SIGUSR1)
    stop = StopRequest()
    with stop.listen([signal.SIGUSR1]):
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Interrupted, match="SIGUSR1"):
            stop.check()
    assert signal.getsignal(signal.SIGUSR1) is before
