"""Outcomes of trials, remembered as long as the program runs, so that the same is tried once."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from threading import Lock
from typing import Any, Generic, TypeVar, final

_T = TypeVar("_T")


@final
class Outcomes(Generic[_T]):
    """A number of outcomes by key; those that were not asked for the longest are forgotten. Threads may share it."""

    def __init__(self, limit: int) -> None:
        """Remember up to ``limit`` outcomes."""
        self._limit = limit
        self._values: OrderedDict[Hashable, _T] = OrderedDict()
        self._lock = Lock()

    def of(self, key: Hashable, trial: Callable[[], _T]) -> _T:
        """Return the outcome of a key; ``trial`` computes it where it is not remembered, and may raise anything."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = trial()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._limit:
                self._values.popitem(last=False)
        return value


def settings_key(settings: Mapping[str, Any]) -> str:
    """Return a configuration as a text that is equal for equal settings; arrays count with all of their numbers."""
    return json.dumps(dict(settings), sort_keys=True, default=_listed)


def _listed(value: Any) -> object:  # noqa: ANN401  (values of configurations are anything)
    to_list = getattr(value, "tolist", None)
    return repr(value) if to_list is None else to_list()
