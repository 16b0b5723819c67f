"""The guard of the door: whatever happens, users see lines and exit codes, and no traceback."""

from __future__ import annotations

import errno
import shlex
import sys
from collections.abc import Callable, Sequence

from orthoplex.cli.streams import note, open_streams
from orthoplex.files import lacks_memory, reported, summary_of

INTERRUPTED_EXIT = 130
UNFORESEEN_EXIT = 70
"""Of ``sysexits.h``: an internal error."""
UNWRITTEN_EXIT = 74
"""Of ``sysexits.h``: an error of input or output; standard output took not all."""
_LESS_MEMORY = {
    "train": "lower batch_size or prior_pictures (--set batch_size=1, --set prior_pictures=4)",
    "check": "leave --base out, or take smaller pictures",
    "generate": "lower --num-images, or give fewer concepts",
    "merge": "merge fewer concepts, or by --algorithm sum",
    "silence": "take a concept of a lower rank",
    "conflicts": "compare fewer files, or leave --base out",
    "evaluate": "lower --picture-size, or give fewer pictures",
    "bench": "lower --processes",
}


_LONGEST_COMMAND = 120


class LeftByLibrary(Exception):
    """A library ended the program in the middle of a verb."""


def guarded(run: Callable[[], object], command: Sequence[str]) -> int:
    """Run the command line; returns its exit code. No error and no stream gets past it.

    Args:
        run: Reads the arguments and does what they say.
        command: The command line, for reports.
    """
    output = open_streams()
    try:
        code = _code_of(run)
    except KeyboardInterrupt:
        note("Interrupted")
        code = INTERRUPTED_EXIT
    except BaseException as error:
        note(unforeseen(error, command))
        code = UNFORESEEN_EXIT
    sys.stdout.flush()
    if output.failure is not None and output.failure.errno != errno.EPIPE:  # a reader may leave when it has enough
        note(f"Error: standard output cannot be written: {output.failure.strerror}; its text is lost, files are not")
        code = code or UNWRITTEN_EXIT
    sys.stderr.flush()
    return code


def _code_of(run: Callable[[], object]) -> int:
    try:
        run()
    except SystemExit as left:
        if isinstance(left.code, str):
            note(left.code)
            return 1
        return left.code or 0
    return 0


def unforeseen(error: BaseException, command: Sequence[str]) -> str:
    """Write the report of an error that no code expected; returns two lines about it for users.

    Args:
        error: The error.
        command: The command line.
    """
    cause = error.__cause__ if isinstance(error, LeftByLibrary) and error.__cause__ is not None else error
    what = what_is_done(command)
    if lacks_memory(cause):
        cure = _LESS_MEMORY.get(command[1] if len(command) > 1 else "", "end other programs")
        first = f"Error: {what} needs more memory than there is; {cure} ({summary_of(cause)})"
    else:
        first = f"Error: {what} ended by an unforeseen error: {summary_of(cause)}"
    return f"{first}\n{reported(cause, command)}"


def what_is_done(command: Sequence[str]) -> str:
    """Return a command line in a line that is not too long.

    Args:
        command: The command line.
    """
    text = " ".join(map(shlex.quote, ["orthoplex", *command[1:]]))
    return text if len(text) <= _LONGEST_COMMAND else text[: _LONGEST_COMMAND - 1] + "…"
