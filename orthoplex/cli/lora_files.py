"""The LoRA files that a prompt names, looked for in folders as programs do that take names alone."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orthoplex.cli.console import parse_strength
from orthoplex.concepts.exchange.adapter_settings import CONFIG_NAME
from orthoplex.errors import ConfigurationError

if TYPE_CHECKING:
    from orthoplex.models.prompts.lora_tags import LoraTag

_SUFFIX = ".safetensors"


def tagged_files(
    prompt: str, concepts: Sequence[str], folders: Sequence[Path]
) -> tuple[str, list[tuple[Path, LoraTag]]]:
    """Return a prompt without its tags that name LoRA files, and every such file with its tag.

    A file that several tags name, whatever spelling they have, has the sum of the strengths.

    Args:
        prompt: The prompt of the user.
        concepts: The arguments of ``--concept``, whose folders are searched.
        folders: Those of ``--lora-dir``.

    Raises:
        PromptError: See ``read_lora_tags``.
        ConfigurationError: See ``lora_file``.
    """
    from orthoplex.models.prompts.lora_tags import read_lora_tags

    words, tags = read_lora_tags(prompt)
    files = [parse_strength(text)[0] for text in concepts] if tags else []
    summed: dict[Path, tuple[Path, LoraTag]] = {}
    for tag in tags:
        path = lora_file(tag.name, folders=folders, files=files)
        before = summed.get(path.resolve())
        summed[path.resolve()] = (path, tag) if before is None else (before[0], before[1].plus(tag))
    return words, list(summed.values())


def lora_tags_json(tagged: Sequence[tuple[Path, LoraTag]]) -> dict[str, Any]:
    """Return the tags as JSON values for the recipe of a picture; nothing where there are none."""
    return {"lora_tags": [asdict(tag) for _, tag in tagged]} if tagged else {}


def lora_file(name: str, *, folders: Sequence[Path], files: Sequence[Path]) -> Path:
    """Return the file that a tag names: by its name without the suffix, in any case, and perhaps with folders before.

    Args:
        name: The name in the tag.
        folders: Folders that are searched with everything in them.
        files: Concept files that are given beside the prompt; they and their neighbours are searched, and the current
            folder's files.

    Raises:
        ConfigurationError: When there is no such file, with the nearest names; or when there are several.
    """
    candidates = {path.resolve(): path for path in _candidates(folders, files)}
    wanted = _spelled(Path(name.replace("\\", "/")))
    parts = wanted.split("/")
    fitting = [path for path in candidates.values() if _spelled(path).split("/")[-len(parts) :] == parts]
    exact = [path for path in fitting if path.stem == Path(name).name.removesuffix(_SUFFIX)]
    chosen = exact if len(exact) == 1 else fitting
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        raise ConfigurationError(
            f"the prompt names file {name!r}, and there are {len(chosen)}: {', '.join(map(str, sorted(chosen)))}; "
            "write more of the path, or pass --concept FILE"
        )
    stems = sorted({path.name.removesuffix(_SUFFIX) for path in candidates.values()})
    near = difflib.get_close_matches(name.lower(), [stem.lower() for stem in stems], n=3, cutoff=0.5)
    named = [stem for stem in stems if stem.lower() in near] or stems[:3]
    searched = dict.fromkeys((*folders, *(file.parent for file in files), Path()))
    places = ", ".join("the current folder" if place == Path() else str(place) for place in searched)
    raise ConfigurationError(
        f"the prompt names file {name!r}, and there is none of that name in {places}; "
        + (f"near it {'is' if len(named) == 1 else 'are'} {', '.join(named)}" if named else "no LoRA file is there")
        + "; --lora-dir DIR names another folder"
    )


def _candidates(folders: Sequence[Path], files: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        if not folder.is_dir():
            raise ConfigurationError(f"--lora-dir is {folder}; allowed are folders that are there")
        yield from _loras(folder.rglob("*"))
    for folder in dict.fromkeys((*(file.parent for file in files), Path())):
        if folder.is_dir():
            yield from _loras(folder.iterdir())


def _loras(paths: Iterator[Path]) -> Iterator[Path]:
    for path in paths:
        if path.suffix.lower() == _SUFFIX and path.parent.joinpath(CONFIG_NAME).is_file():
            continue  # the folder is the LoRA
        if (path.suffix.lower() == _SUFFIX and path.is_file()) or (path / CONFIG_NAME).is_file():
            yield path


def _spelled(path: Path) -> str:
    """A path in lower case without the suffix."""
    return path.as_posix().casefold().removesuffix(_SUFFIX)
