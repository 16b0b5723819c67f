"""Outcomes of trials are remembered, up to a limit."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from orthoplex.models.outcomes import Outcomes, settings_key


def test_the_outcome_not_asked_for_the_longest_is_forgotten():
    outcomes, tried = Outcomes(2), []

    def outcome(key):
        return outcomes.of(key, lambda: tried.append(key) or key.upper())

    assert [outcome(key) for key in "abacab"] == list("ABACAB")
    assert tried == ["a", "b", "c", "b"]


def test_an_error_is_no_outcome():
    outcomes = Outcomes(2)
    with pytest.raises(ZeroDivisionError):
        outcomes.of("a", lambda: 1 // 0)
    assert outcomes.of("a", lambda: None) is None and outcomes.of("a", lambda: 1 // 0) is None


def test_threads_share_outcomes():
    outcomes = Outcomes(3)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda number: outcomes.of(number % 5, lambda: number % 5), range(400))) == [
            number % 5 for number in range(400)
        ]


def test_settings_are_equal_by_their_values():
    assert settings_key({"a": 1, "b": (2, 3)}) == settings_key({"b": [2, 3], "a": 1})
    assert settings_key({"a": 1}) != settings_key({"a": True})
    betas = np.zeros(5000)
    others = betas.copy()
    others[2500] = 1  # which its text leaves out
    assert settings_key({"betas": betas}) != settings_key({"betas": others})
    assert settings_key({"betas": torch.zeros(3)}) == settings_key({"betas": [0.0, 0.0, 0.0]})
    assert settings_key({"type": torch.float16}) != settings_key({"type": torch.float32})
