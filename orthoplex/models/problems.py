"""Several things that are wrong with a base: an error says the first, a report all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar, final

from orthoplex.errors import BaseModelError
from orthoplex.files import summary_of

_T = TypeVar("_T")
_NUM_SHOWN = 3


@final
class ProblemsError(BaseModelError):
    """Things that are wrong with a base; the message is the first of them.

    Attributes:
        problems: A line for each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        """Take at least one line."""
        super().__init__(problems[0])
        self.problems = tuple(problems)


def problems_of(error: BaseModelError) -> tuple[str, ...]:
    """Return the lines of an error: several of a ``ProblemsError``, else its message."""
    return error.problems if isinstance(error, ProblemsError) else (str(error),)


def all_done(calls: Mapping[str, Callable[[], _T]]) -> dict[str, _T]:
    """Make all calls, whether others of them fail or not, and return what they return.

    Args:
        calls: Name to call.

    Raises:
        ProblemsError: If one of them fails; has the lines of all.
    """
    results: dict[str, _T] = {}
    problems: list[str] = []
    for name, call in calls.items():
        try:
            results[name] = call()
        except BaseModelError as error:
            problems += problems_of(error)
        except Exception as error:  # noqa: BLE001  (a damaged folder makes the libraries raise anything)
            problems.append(summary_of(error))
    if problems:
        raise ProblemsError(problems)
    return results


@contextmanager
def prefixed(prefix: str) -> Iterator[None]:
    """Inside, every error becomes one of a base, with ``prefix`` in front of each of its lines.

    Raises:
        ProblemsError: If the block raises anything.
    """
    try:
        yield
    except BaseModelError as error:
        raise ProblemsError([prefix + line for line in problems_of(error)]) from error
    except Exception as error:  # noqa: BLE001  (likewise)
        raise ProblemsError([prefix + summary_of(error)]) from error


def first_of(names: Sequence[str]) -> str:
    """Return the first three of some names, and a mark where there are more."""
    return ", ".join(names[:_NUM_SHOWN]) + (", …" if len(names) > _NUM_SHOWN else "")
