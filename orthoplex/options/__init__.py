"""Options: the fields of frozen dataclasses, read from TOML, ``key=value`` and JSON, and checked; without torch."""

from orthoplex.options.entries import read_entries, read_flat_toml, read_toml
from orthoplex.options.fields import check_fields, limited, option
from orthoplex.options.keys import check_field_names, check_keys, did_you_mean
from orthoplex.options.names import (
    AUTO,
    ENCODERS,
    METHOD_NAMES,
    MOBILENET,
    PRESET_NAMES,
    Basis,
    EncoderKind,
    OriginalsPlace,
    Precision,
    Quantisation,
    WeightType,
)
from orthoplex.options.values import FILLED, Limits, checked, parse

__all__ = [
    "AUTO",
    "ENCODERS",
    "FILLED",
    "METHOD_NAMES",
    "MOBILENET",
    "PRESET_NAMES",
    "Basis",
    "EncoderKind",
    "Limits",
    "OriginalsPlace",
    "Precision",
    "Quantisation",
    "WeightType",
    "check_field_names",
    "check_fields",
    "check_keys",
    "checked",
    "did_you_mean",
    "limited",
    "option",
    "parse",
    "read_entries",
    "read_flat_toml",
    "read_toml",
]
