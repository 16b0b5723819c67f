"""The errors of Orthoplex.

Every message names the thing, its value, and what was allowed. The command line prints the message on
standard error without a traceback and exits with code 2.
"""


class OrthoplexError(Exception):
    """The parent of every error that Orthoplex raises on purpose."""


class FileFormatError(OrthoplexError):
    """A file is missing, damaged, or of another format than asked for."""


class ConceptFileError(FileFormatError):
    """A concept file is missing, damaged, of another base, or not a concept file at all."""


class ConfigurationError(OrthoplexError):
    """An option has a value, or a combination of values, that is not allowed."""


class MissingExtraError(ConfigurationError):
    """A package that only an extra installs is missing.

    Args:
        what: What needs it, in the singular, as in "a chart".
        package: The package's name in the index, as in "matplotlib".
        extra: The extra of orthoplex that brings it, as in "charts".
    """

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(what, package, extra)  # as given, so that the error passes between processes
        self.what, self.package, self.extra = what, package, extra

    def __str__(self) -> str:
        """Name the package, the extra and the command that installs it."""
        return (
            f"{self.what} needs the package {self.package}, which is not installed; "
            f"install the extra: pip install 'orthoplex[{self.extra}]'"
        )


class BusyError(ConfigurationError):
    """Another process is at the same work; it may be waited for."""


class CapacityError(OrthoplexError):
    """A layer has no room for the slot or the rank that was asked for."""


class PromptError(OrthoplexError):
    """A prompt names a concept that is not there, or holds what is not read: syntax of other programs, a length."""


class DatasetError(OrthoplexError):
    """A folder of training pictures is missing, empty, or holds something unreadable."""


class OutputError(OrthoplexError):
    """A file or a folder cannot be written."""


class BaseModelError(OrthoplexError):
    """A base model cannot be loaded, or lacks a layer that was asked for."""
