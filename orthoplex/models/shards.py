"""Weights in shards: the index and the files that it names say the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orthoplex.errors import BaseModelError
from orthoplex.files import Header, read_json
from orthoplex.models.problems import first_of


def check_index(component: str, index: Path) -> None:
    """Refuse an index of shards that is damaged, or names files elsewhere.

    Args:
        component: The component's name.
        index: The index.

    Raises:
        BaseModelError: Says what is wrong, and what is allowed.
    """
    try:
        named = read_json(index)["weight_map"].items()
        is_plain = bool(named) and all(isinstance(file, str) and Path(file).name == file for _, file in named)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        is_plain = False
    if not is_plain:
        raise BaseModelError(
            f"{component}/{index.name} is damaged; allowed is a weight_map of each tensor to the name of its file "
            "beside it; download it again"
        )


def check_shards(component: str, index: Path, headers: Mapping[Path, Header]) -> None:
    """Refuse shards of which the index tells another story; the libraries fill the gaps with random numbers.

    Args:
        component: The component's name.
        index: The index, whose ``weight_map`` is tensor to the name of its file.
        headers: Every file that the index names to its header.

    Raises:
        BaseModelError: If a tensor lies in two shards, or the index names a tensor that is not in its shard; names the
            files and the first such tensors.
    """
    places: dict[str, str] = {}
    for path, header in headers.items():
        for name in header.entries:
            if name in places:
                raise BaseModelError(
                    f"{component}/{path.name} holds {name}, which {component}/{places[name]} holds too; allowed is one "
                    "place for each tensor"
                )
            places[name] = path.name
    named = read_json(index)["weight_map"]
    absent = sorted(name for name, file in named.items() if places.get(name) != file)
    if absent:
        raise BaseModelError(
            f"{component}/{index.name} names {len(absent)} tensors that are not in the shards it gives: "
            f"{first_of([f'{name} in {named[name]}' for name in absent])}; download the component again"
        )
