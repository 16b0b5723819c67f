"""Options of ``orthoplex train`` as diffusers' scripts and kohya's spell them, turned into its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, final

from typer.core import TyperCommand

from orthoplex.cli.console import errors_shown
from orthoplex.errors import ConfigurationError
from orthoplex.options.spellings import SPELLINGS, in_own_spelling, own_name
from orthoplex.options.values import parse

_FLAGS: Final = {"pretrained_model_name_or_path": "base", "class_data_dir": "class-data", "reg_data_dir": "class-data"}
_LATEST: Final = "latest"
_WITHOUT_VALUE: Final = {name for name, row in SPELLINGS.items() if row.flag is not None}


def _settings() -> dict[str, bool]:
    """Return every training option, and whether it is one of true and false, which needs no value."""
    from orthoplex.training import TrainingConfig

    return {name: isinstance(value, bool) for name, value in TrainingConfig().to_json().items()}


@final
class SpelledCommand(TyperCommand):
    """The command of ``train``, which also takes options that other programs spell differently."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 (a class of typer's own)
        """Read arguments, in any spelling."""
        own = {name for parameter in self.params for name in (*parameter.opts, *parameter.secondary_opts)}
        with errors_shown():
            args = own_arguments(args, own)
        return super().parse_args(ctx, args)


def own_arguments(arguments: Sequence[str], own: set[str]) -> list[str]:
    """Return arguments as ``orthoplex train`` spells them; what nobody knows stays as it is.

    Args:
        arguments: The arguments; those after ``--`` are no options.
        own: The command's own options, with their dashes.

    Raises:
        ConfigurationError: For an option that has no equal here; says what to do instead.
    """
    result: list[str] = []
    settings: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            result += [argument, *rest]
            break
        option, joined, text = argument.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        dashed = f"--{name.replace('_', '-')}"
        if not option.startswith("--") or option in own:
            result.append(argument)
        elif option == "--cache_dir":
            raise ConfigurationError(
                f"{option} is where other programs store downloads; --cache-dir stores features here"
            )
        elif dashed in own:
            result.append(f"{dashed}{joined}{text}")
        elif name in _FLAGS:
            result += [f"--{_FLAGS[name]}", _text(option, joined, text, rest)]
        elif name in SPELLINGS:
            settings[name] = True if name in _WITHOUT_VALUE and not joined else _value(option, joined, text, rest)
        elif name == "instance_data_dir":
            result.append(_text(option, joined, text, rest))
        elif name == "resume_from_checkpoint":
            if (value := _text(option, joined, text, rest)) != _LATEST:
                raise ConfigurationError(f"{option} is {value!r}; allowed is {_LATEST}, the checkpoint of the file")
            result.append("--resume")
        elif name != "help" and (is_switch := _settings().get(name)) is not None:
            settings[name] = True if is_switch and not joined else _value(option, joined, text, rest)
        else:
            result.append(argument)
    entries = []
    for key, value in in_own_spelling(settings).items():
        flag = f"--{key.replace('_', '-')}"
        if flag in own and any(argument.partition("=")[0] == flag for argument in result):
            spelled = next(name for name in settings if own_name(name) == key)
            raise ConfigurationError(f"{flag} and --{spelled} are both given; allowed is one, they are the same")
        entries.append(f"{key}={_entry(value)}")
    return [*(part for entry in entries for part in ("--set", entry)), *result]


def _text(option: str, joined: str, text: str, rest: list[str]) -> str:
    if joined:
        return text
    if not rest:
        raise ConfigurationError(f"{option} has no value; it needs one")
    return rest.pop(0)


def _value(option: str, joined: str, text: str, rest: list[str]) -> Any:  # noqa: ANN401 (any option's value)
    value = _text(option, joined, text, rest)
    return value if "prompt" in option else parse(value)


def _entry(value: object) -> str:
    """Return a value as ``--set`` reads it, which is TOML."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
