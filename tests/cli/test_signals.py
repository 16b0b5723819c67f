"""Requests to end interrupt the work once."""

import os
import signal
import subprocess
import sys
import time

import pytest

from orthoplex.cli.signals import Interrupts, ignore_interrupts, interrupt_once
from orthoplex.files.interrupt import INTERRUPTS

WAITING = """
import signal, sys, time
from orthoplex.cli.signals import interrupt_once
interrupt_once()
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.3)
    print("kept", flush=True)
"""


def test_a_second_request_a_moment_later_is_the_same(monkeypatch):
    seconds, handler = [0.0], Interrupts()
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    with pytest.raises(KeyboardInterrupt):
        handler(2, None)
    seconds[0] = 0.9
    handler(2, None)
    seconds[0] = 1.0
    with pytest.raises(KeyboardInterrupt):
        handler(2, None)


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    interrupt_once()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    assert isinstance(signal.getsignal(signal.SIGINT), Interrupts) or signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ignore_interrupts()
    assert all(signal.getsignal(number) is signal.SIG_IGN for number in INTERRUPTS)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
def test_a_closed_terminal_and_two_presses_are_one_interrupt():
    restore = "import signal; [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGHUP,)]\n"
    process = subprocess.Popen([sys.executable, "-c", restore + WAITING], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for _ in range(2):
        process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=20)[0] == "kept\n" and process.returncode == 0
