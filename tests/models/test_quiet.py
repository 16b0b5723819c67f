"""Silence that threads share: the first saves, the last puts back."""

from __future__ import annotations

import threading

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from orthoplex.models.quiet import quiet


def state():
    return (
        diffusers_logging.is_progress_bar_enabled(),
        transformers_logging.is_progress_bar_enabled(),
        diffusers_logging.get_verbosity(),
        transformers_logging.get_verbosity(),
    )


def test_two_threads_that_overlap_leave_all_as_it_was():
    before = state()
    entered, left = threading.Event(), threading.Event()
    seen = []

    def first():
        with quiet():
            entered.set()
            left.wait(10)
            seen.append(state())

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(10)
    with quiet():
        inside = state()
    left.set()
    thread.join()
    assert inside[:2] == (False, False) and inside != before
    assert seen == [inside], "the other thread is still inside"
    assert state() == before


def test_an_error_inside_puts_back_too():
    before = state()
    try:
        with quiet(), quiet():
            raise ValueError
    except ValueError:
        assert state() == before
