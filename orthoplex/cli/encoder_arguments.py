"""The argument of verbs that measure pictures: the kind of the encoder, and its model."""

from typing import TYPE_CHECKING

from orthoplex.errors import ConfigurationError
from orthoplex.options import ENCODERS, EncoderKind, checked

if TYPE_CHECKING:
    from orthoplex.benchmark.settings import EncoderSettings

ENCODER_FORM = "KIND[=MODEL]"
ENCODER_HELP = f"What measures pictures: {', '.join(ENCODERS)}; MODEL is a folder or a name"


def encoder_settings(text: str, *, picture_size: int | None = None) -> "EncoderSettings":
    """Read the text of the option.

    Args:
        text: ``KIND`` or ``KIND=MODEL``.
        picture_size: For kinds that can read pictures of several sizes; None for the usual one.

    Raises:
        ConfigurationError: When the form, the kind or the size is not allowed.
    """
    from orthoplex.benchmark.settings import EncoderSettings

    kind, separator, model = text.partition("=")
    if separator and not model:
        raise ConfigurationError(f"encoder is {text!r}; allowed is KIND or KIND=MODEL, as in clip=models/clip")
    return EncoderSettings(
        kind=checked("encoder kind", kind, EncoderKind), model=model or None, picture_size=picture_size
    )
