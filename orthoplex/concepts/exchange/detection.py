"""Which family and version a LoRA file belongs to, by the names and shapes in its header."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from orthoplex.concepts.exchange.names import likely_versions, read_names, rows_of, versions
from orthoplex.concepts.exchange.styles import STYLES
from orthoplex.concepts.layer_table import layer_table, layer_tables
from orthoplex.errors import ConfigurationError, FileFormatError

_HINTS = {
    "sd1": ("stable-diffusion-v1", "sd_v1", "sd1", "sd_1.5"),
    "sd2": ("stable-diffusion-v2-512", "sd_v2", "sd2"),
    "sd2-v": ("stable-diffusion-v2-768-v", "sd_v2_v"),
    "sdxl": ("stable-diffusion-xl-v1-base", "sdxl_base_v1-0", "sdxl"),
    "sdxl-v": ("stable-diffusion-xl-v1-base", "sdxl_base_v1-0", "sdxl"),
    "flux1": ("flux-1-dev", "flux-1-schnell", "flux1", "flux"),
    "chroma": ("chroma",),
    "flux2": ("flux-2-dev", "flux2", "flux-2"),
    "flux2-klein-4b": ("flux-2-klein-4b", "flux2_klein_4b", "klein-4b"),
    "flux2-klein-9b": ("flux-2-klein-9b", "flux2_klein_9b", "klein-9b"),
    "qwen-image": ("qwen-image", "qwen_image"),
    "z-image": ("z-image", "zimage", "z_image"),
    "krea2": ("krea2", "krea-2"),
    "anima": ("anima",),
    "ideogram4": ("ideogram4", "ideogram-4"),
    "vignette": ("vignette",),
}
"""Version to the words for it in ``modelspec.architecture`` and ``ss_base_model_version``; the first is written."""
ARCHITECTURE_KEY = "modelspec.architecture"
_HINT_KEYS = (ARCHITECTURE_KEY, "ss_base_model_version")
_ENOUGH = 0.5
"""Of a file's modules: a table must know so many, and a version must have the shapes of so many of these."""
_SHORT = 3
"""Letters of a word that must be the whole text."""
_MOST_BLOCKS = 100
"""Blocks of one kind that are looked for."""


@final
@dataclass(frozen=True)
class Detected:
    """What a file's names and shapes say.

    Attributes:
        style: The style that most of its modules are named in.
        family: The family; None if no table knows the modules.
        version: The version with these shapes; None if there is none.
        named_as: The version with these names; where no version has the shapes, names alone tell the layers.
    """

    style: str
    family: str | None
    version: str | None
    named_as: str | None = None


OTHER = "other"
"""Asked for in the place of a family: a model that no table knows, though its names may be those of one that does."""


@final
@dataclass(frozen=True)
class _Candidate:
    family: str
    version: str
    known: int
    fitting: int


def detect(
    modules: Mapping[str, tuple[int, int] | None], metadata: Mapping[str, str], family: str | None = None
) -> Detected:
    """Find the family and the version of a file.

    Args:
        modules: Module, as the file names it, to the rows and columns of its change; None where they are not known.
        metadata: The text pairs of the header, which decide between versions of equal names and shapes.
        family: The family or the version to take, by name; ``OTHER`` for none of them; None finds it.

    Raises:
        ConfigurationError: If there is no such family or version.
        FileFormatError: If several families fit (names them), or shapes are those of no version, and names do not tell
            the family either (names the layer, its shape and those of the versions).
    """
    if family == OTHER:
        return Detected(style_of(modules) if modules else next(iter(STYLES)), None, None)
    if not modules:
        named, version = _named(family)
        return Detected(next(iter(STYLES)), named, version, version)
    candidates = [_candidate(modules, *each) for each in _allowed(family, [*modules])]
    most = max((each.known for each in candidates), default=0)
    if most == 0 or (family is None and most < _ENOUGH * len(modules)):
        if family is not None:
            raise FileFormatError(f"no module of it is one of {family}, as in '{next(iter(modules))}'")
        return Detected(style_of(modules), None, None)
    best = [each for each in candidates if each.known == most]
    fitting = [each for each in best if each.fitting == max(other.fitting for other in best)]
    if fitting[0].fitting < _ENOUGH * most:
        return _of_other_sizes(modules, best, family)
    chosen = _hinted(fitting, metadata) or fitting
    if len({each.family for each in chosen}) > 1:
        names = ", ".join(sorted({each.family for each in chosen}))
        raise FileFormatError(f"its layers fit several families: {names}; name one with --family")
    first = chosen[0]
    version = _version(first, metadata)
    return Detected(_style_by_table(modules, first), first.family, version, version)


def _of_other_sizes(
    modules: Mapping[str, tuple[int, int] | None], best: Sequence[_Candidate], asked: str | None
) -> Detected:
    """What names alone say of a file whose shapes are those of no version, such as of a narrower base.

    Raises:
        FileFormatError: If a version was asked for, another one has the shapes, a module is unknown, or the names are
            those of several families, or of other layers in another version.
    """
    families = list(dict.fromkeys(each.family for each in best))
    fitting = max(best, key=lambda each: each.fitting)
    misfit = _misfit(modules, [each for each in best if each.family == fitting.family])
    if asked not in (None, *layer_tables()):
        raise FileFormatError(misfit)
    others = [_candidate(modules, *each) for each in likely_versions([*modules])] if asked else []
    other = max(others, key=lambda each: each.fitting, default=None)
    if other is not None and other.fitting >= _ENOUGH * len(modules):
        raise FileFormatError(f"{misfit}; they are those of {other.version} ({other.family})")
    if len(families) > 1 and asked is None:
        raise FileFormatError(
            f"{misfit}; its names are those of {', '.join(families)}: name one with --family, or {OTHER} for another "
            "model"
        )
    unknown = [name for name in modules if name not in read_names(best[0].family, best[0].version)]
    if unknown:
        lacking = unknown_module(unknown[0], best[0].family, best[0].version)
        raise FileFormatError(f"{misfit}; '{unknown[0]}' {lacking}; --family {OTHER} reads a file of another model")
    for name in modules:
        means = {read_names(each.family, each.version)[name].module.layers for each in best}
        if len(means) > 1:
            versions_of = ", ".join(each.version for each in best)
            raise FileFormatError(f"{misfit}; '{name}' is another layer in each of {versions_of}")
    return Detected(_style_by_table(modules, best[0]), best[0].family, None, best[0].version)


def unknown_module(name: str, family: str, version: str) -> str:
    """Say why a module is not read: the version does not have it, or not so many blocks.

    Args:
        name: The module as the file names it.
        family: The family of the version.
        version: The version whose names count.
    """
    names = read_names(family, version)
    for number in re.finditer(r"(?<=[._])\d+(?=[._])", name):
        before, after = name[: number.start()], name[number.end() :]
        known = [i for i in range(_MOST_BLOCKS) if f"{before}{i}{after}" in names]
        if known and int(number[0]) > known[-1]:
            return f"is of block {before}{number[0]}, {version} has {before}{known[0]} to {known[-1]}"
    return f"is of a module that {version} does not have"


def style_of(modules: Iterable[str]) -> str:
    """Return the style that most names may be of; for modules that no table knows."""
    counts = Counter(next(name for name, style in STYLES.items() if style.fits(module)) for module in modules)
    return counts.most_common(1)[0][0]


def _named(family: str | None) -> tuple[str | None, str | None]:
    return (None, None) if family is None else next(iter(_allowed(family)))


def _allowed(family: str | None, modules: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Every family and version that a name allows; without a name, those that may have the modules."""
    if family is None:
        return list(likely_versions(modules))
    if family in layer_tables():
        return [each for each in versions() if family == each[0]]
    table = layer_table(family)
    if table is None:
        allowed = ", ".join(
            sorted({OTHER, *(name for name, table in layer_tables().items() for name in (name, *table.versions))})
        )
        raise ConfigurationError(f"family '{family}' is unknown, allowed: {allowed}")
    return [(table.family, family)]


def _candidate(modules: Mapping[str, tuple[int, int] | None], family: str, version: str) -> _Candidate:
    names, layers = read_names(family, version), layer_tables()[family].weights[version]
    known = fitting = 0
    for name, shape in modules.items():
        if name in names:
            known += 1
            fitting += shape is None or shape == rows_of(names[name].module, layers)[:2]
    return _Candidate(family, version, known, fitting)


def _hinted(candidates: list[_Candidate], metadata: Mapping[str, str]) -> list[_Candidate]:
    """The candidates that the metadata name; none if they say nothing."""
    words = hinted_versions(metadata)
    families = {table.family for version in words if (table := layer_table(version)) is not None}
    return [each for each in candidates if each.version in words] or [
        each for each in candidates if each.family in families
    ]


def hinted_versions(metadata: Mapping[str, str]) -> list[str]:
    """Return the versions that a header's text pairs name: those of the longest words that texts begin with.

    Full stops, underscores and hyphens are one sign, and a word ends before anything but a letter.
    """
    texts = [_spelled(metadata.get(key, "").partition("/")[0]) for key in _HINT_KEYS]
    lengths = {
        version: max((len(word) for word in map(_spelled, words) for text in texts if _begins(text, word)), default=0)
        for version, words in _HINTS.items()
    }
    longest = max(lengths.values())
    return [version for version, length in lengths.items() if length == longest > 0]


def _spelled(text: str) -> str:
    return re.sub(r"[._\-\s]+", "-", text.strip().lower())


def _begins(text: str, word: str) -> bool:
    return text == word or (len(word) > _SHORT and text.startswith(word) and not text[len(word)].isalpha())


def architecture_of(version: str) -> str | None:
    """Return the text for ``modelspec.architecture`` of a LoRA of a version; None if there is no usual one."""
    words = _HINTS.get(version)
    return f"{words[0]}/lora" if words else None


def _version(candidate: _Candidate, metadata: Mapping[str, str]) -> str:
    """The version, or an equal one that the metadata name."""
    layers = layer_tables()[candidate.family].versions
    for version in hinted_versions(metadata):
        if version in layers and layers[version] == layers[candidate.version]:
            return version
    return candidate.version


def _style_by_table(modules: Mapping[str, tuple[int, int] | None], candidate: _Candidate) -> str:
    names = read_names(candidate.family, candidate.version)
    return Counter(names[name].style for name in modules if name in names).most_common(1)[0][0]


def _misfit(modules: Mapping[str, tuple[int, int] | None], candidates: list[_Candidate]) -> str:
    """Name the first module whose shape no version has, and the shapes of the versions."""
    best = max(candidates, key=lambda each: each.fitting)
    names, layers = read_names(best.family, best.version), layer_tables()[best.family].weights[best.version]
    for name, shape in modules.items():
        if name in names and shape is not None and shape != rows_of(names[name].module, layers)[:2]:
            others = ", ".join(
                f"{each.version} {_shape(each, name)}"
                for each in candidates
                if name in read_names(each.family, each.version)
            )
            return f"module '{name}' has a change of shape {shape}, versions of {best.family} have: {others}"
    raise AssertionError("a misfit has a module")


def _shape(candidate: _Candidate, name: str) -> tuple[int, int]:
    """The rows and columns of a module in a version."""
    layers = layer_tables()[candidate.family].weights[candidate.version]
    return rows_of(read_names(candidate.family, candidate.version)[name].module, layers)[:2]
