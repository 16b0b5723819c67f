"""Lazy names of a package: a name imports its module when it is first asked for."""

from collections.abc import Callable, Mapping
from importlib import import_module


def exports(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Return a ``__getattr__`` for a package, which imports a name's module when the name is first asked for (PEP 562).

    Args:
        package: The package's ``__name__``.
        homes: Name to its module inside the package. No name may equal that of a module of the package.
    """

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return get
