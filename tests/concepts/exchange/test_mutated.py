"""Nothing is lost in silence: mutated files are read as a second reader reads them, or refused in one line.

Tables keep their names; their widths are made small, so that thousands of files take minutes. The whole campaign:
``pytest -m slow -s tests/concepts/exchange/test_mutated.py``.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import orthoplex.concepts.layer_table as table_room
from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept, load_concept, save_concept
from orthoplex.concepts.exchange import STYLES, LoraFile, lora_summary, names, read_lora, write_lora
from orthoplex.errors import ConfigurationError, OrthoplexError
from orthoplex.merging import Strengths, conflicts, merge_files
from tests.concepts.exchange import mutations, reference_reader
from tests.concepts.exchange.mutations import Draft, mutated_file, valid_file
from tests.concepts.exchange.reference_reader import DoesNotKnowError, reference
from tests.pico import make_manifest, tokens_of

SECONDS = 5
"""No file may take longer."""
OLD = Path(__file__).parents[1] / "old"


def tiny(size: int) -> int:
    return size if size < 64 else max(2, size // 64 * 2)


@pytest.fixture(scope="module", autouse=True)
def small_tables() -> Iterator[None]:
    """Every family's names with small widths."""
    room, shapes = table_room, table_room._shapes
    caches = [room.layer_tables, room._tables_by_version, names.read_names, names._flat_paths]
    caches += [mutations._written_names, mutations._versions, reference_reader._names]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            room,
            "_shapes",
            lambda groups: {layer: (*map(tiny, shape[:2]), *shape[2:]) for layer, shape in shapes(groups).items()},
        )
        for cache in caches:
            cache.cache_clear()
        yield
    for cache in caches:
        cache.cache_clear()


def changes_of(lora: LoraFile) -> dict[str, Tensor]:
    """Every change as the reference has it."""
    changes = {f"{layer}.weight": change.up.double() @ change.down.double() for layer, change in lora.layers.items()}
    for name, value in lora.differences.items():
        changes[name] = value.double() if value.ndim == 1 else value.double().flatten(1)
    return changes


def differing(own: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-6) -> str:
    """The first change that differs; empty if all agree."""
    if own.keys() != expected.keys():
        return f"names {own.keys() ^ expected.keys()}"
    for name, change in expected.items():
        if own[name].shape != change.shape:
            return f"shape of {name}: {own[name].shape} for {change.shape}"
        if float((own[name] - change).norm()) > tolerance * float(change.norm()) + 1e-30:
            return f"{name}: {float((own[name] - change).norm() / change.norm())}"
    return ""


def one_line(error: OrthoplexError, path: Path) -> None:
    text = str(error)
    assert len(text.splitlines()) == 1 and str(path) in text, text


def outcome(path: Path, version: str, family: str | None) -> str:
    """Read one file by both readers; an error of any other sort than ours, or any difference, fails.

    Returns:
        ``read``, ``refused``, or ``refused alone`` where the reference has a rule for the file.
    """
    try:
        lora_summary(path, family)
    except OrthoplexError as error:
        one_line(error, path)
    try:
        lora = read_lora(path, family=family)
        own = changes_of(lora)
    except OrthoplexError as error:
        one_line(error, path)
        try:
            reference(path, version)
        except DoesNotKnowError:
            return "refused"
        return f"refused alone: {error}"
    assert not lora.left_out
    try:
        expected = reference(path, lora.version)
    except DoesNotKnowError as error:
        raise AssertionError(f"read, though the reference does not know {error}") from error
    bundled = {key: expected.pop(key) for key in list(expected) if key.startswith("bundle_emb.")}
    assert sum(map(len, lora.embeddings.values())) == len(bundled)
    if lora.family is not None and lora.version is None:
        own, expected = of_other_sizes(own, expected, lora.family, version)
    assert not differing(own, expected), differing(own, expected)
    return "read"


def of_other_sizes(
    own: dict[str, Tensor], raw: dict[str, Tensor], family: str, version: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Both sides of a file whose sizes no version has, which the reference reads under the file's own names.

    Modules of several layers, which the reference does not take apart, are left out of both.
    """
    expected, left_out = {}, set()
    for key, change in raw.items():
        name, _, parameter = key.rpartition(".")
        module = names.read_names(family, version)[name].module
        if len(module.layers) > 1 or module.swapped_halves:
            left_out |= {f"{layer}.{parameter}" for layer in module.layers}
        else:
            expected[f"{module.layers[0]}.{parameter}"] = change
    return {key: change for key, change in own.items() if key not in left_out}, expected


def check_uses(path: Path, plain: Path, chance: random.Random, family: str | None) -> None:
    """Convert a file that is read to a style and back, merge it and compare it with another."""
    lora = read_lora(path, family=family)
    style = chance.choice(list(STYLES))
    out = path.with_name("written.safetensors")
    try:
        own = changes_of(lora)
        write_lora(lora, out, style=style, embeddings="none")
    except (ConfigurationError, OrthoplexError) as error:
        assert len(str(error).splitlines()) == 1
    else:
        again = read_lora(out, family=lora.version or lora.family)
        assert again.style == style or lora.family is None or not lora.layers
        check_equal_in_fused(own, changes_of(again))
    try:
        other = read_lora(plain, family=family)
        conflicts([(lora, 1.0), (other, 0.5)])
        merge_files([(lora, Strengths(0.7)), (other, Strengths(1.0))])
    except OrthoplexError as error:
        assert len(str(error).splitlines()) == 1


def check_equal_in_fused(own: dict[str, Tensor], again: dict[str, Tensor]) -> None:
    """Equal changes; a layer that is fused with a changed one may have a change of zeros."""
    for name in again.keys() - own.keys():
        assert not again[name].any(), name
    for name, change in own.items():
        if name in again:
            assert not differing({name: again[name]}, {name: change}), name
        else:
            assert not change.any(), name


def campaign(folder: Path, seed: int, count: int) -> Counter[str]:
    """Read mutated files; returns the number of each outcome."""
    counts: Counter[str] = Counter()
    path, plain = folder / "mutated.safetensors", folder / "plain.safetensors"
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        mutation, draft = mutated_file(chance)
        path.write_bytes(draft.to_bytes())
        plain.write_bytes(Draft(draft.version, draft.style, valid_file(chance).tensors).to_bytes())
        family = draft.version if chance.random() < 0.5 else None
        start = time.perf_counter()
        try:
            result = outcome(path, draft.version, family)
            counts[result.partition(":")[0]] += 1
            assert result == "read" or mutation != "change_nothing", result
            if result == "read":
                check_uses(path, plain, chance, family)
        except Exception as error:
            raise AssertionError(
                f"file {number} of seed {seed}, {draft.style} {draft.version}, {mutation}: {error!r}"
            ) from error
        assert time.perf_counter() - start < SECONDS, f"file {number} of seed {seed}"
    return counts


def test_mutated_files(tmp_path):
    counts = campaign(tmp_path, seed=0, count=100)
    assert counts["read"] > 15 and counts["refused"] > 15


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_many_mutated_files(tmp_path, seed):
    counts = campaign(tmp_path, seed=seed, count=1000)
    print(f"seed {seed}: {dict(counts)}")
    assert counts["read"] > 150 and counts["refused"] > 150


def own_files(folder: Path) -> list[Path]:
    """A concept file of today's format, and those of older ones."""
    path = folder / "anna.safetensors"
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    change = LowRank(torch.linspace(-1, 1, 12).reshape(6, 2), torch.linspace(1, 2, 8).reshape(2, 4))
    save_concept(Concept(make_manifest(), {layer: change}, tokens_of({"<anna>": torch.linspace(0, 1, 5)})), path)
    return [path, *sorted(OLD.glob("*.safetensors"))]


def change_own_files(folder: Path, seed: int, count: int) -> Counter[str]:
    """Change one byte, or cut a file; whatever is still read has the content that it had."""
    counts: Counter[str] = Counter()
    originals = own_files(folder)
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        original = chance.choice(originals)
        path, content = folder / original.name.replace("anna", "anna2"), bytearray(original.read_bytes())
        if chance.random() < 0.1:
            del content[chance.randrange(len(content)) :]
        else:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        before, start = load_concept(original), time.perf_counter()
        try:
            lora_summary(path)
        except OrthoplexError as error:
            one_line(error, path)
        try:
            lora = read_lora(path, partial=True)
        except OrthoplexError as error:
            one_line(error, path)
            counts["refused"] += 1
        else:
            own = {name.removesuffix(".weight"): value for name, value in changes_of(lora).items()}
            expected = {name: value.up.double() @ value.down.double() for name, value in before.layers.items()}
            assert not differing(own, expected), f"file {number} of seed {seed}, {original.name}"
            counts["read"] += 1
        assert time.perf_counter() - start < SECONDS
    return counts


def test_own_files_with_a_changed_byte(tmp_path):
    counts = change_own_files(tmp_path, seed=0, count=20)
    assert counts["refused"] > 10


@pytest.mark.slow
def test_many_own_files_with_a_changed_byte(tmp_path):
    counts = change_own_files(tmp_path, seed=1, count=3000)
    print(dict(counts))
    assert counts["refused"] > 1500
