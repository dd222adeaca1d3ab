"""Names of signals, also of those that Python's enumeration lacks."""

import signal

import pytest

from devil.signals import signal_name


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (9, "SIGKILL"),
        (11, "SIGSEGV"),
        (signal.SIGRTMIN, "SIGRTMIN"),
        (signal.SIGRTMIN + 3, "SIGRTMIN+3"),
        (signal.SIGRTMAX, f"SIGRTMIN+{signal.SIGRTMAX - signal.SIGRTMIN}"),
        (120, "signal 120"),
    ],
)
def test_every_number_has_a_name(number, name):
    assert signal_name(number) == name
