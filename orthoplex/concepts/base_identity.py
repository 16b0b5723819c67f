"""The identity of a base model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BaseIdentity:
    """The identity of a base model.

    Attributes:
        family: Architecture family, for example ``"vignette"`` or ``"sd1"``.
        hash: SHA-256 (hex) over the names, shapes and float16-rounded values of the adapted components.
        name: The name that the user gave; for people only, never compared.
    """

    family: str
    hash: str
    name: str

    def __str__(self) -> str:
        """Give name, family and the first digits of the hash, as messages do."""
        return f"'{self.name}' (family {self.family}, hash {self.hash[:12]})"
