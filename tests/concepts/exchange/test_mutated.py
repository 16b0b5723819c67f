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
from torch import Tensor

from orthoplex.concepts.exchange import STYLES, LoraFile, lora_summary, names, read_lora, write_lora
from orthoplex.errors import ConfigurationError, OrthoplexError
from orthoplex.merging import Strengths, conflicts, merge_files
from tests.concepts.exchange import mutations, reference_reader
from tests.concepts.exchange.mutations import Draft, mutated_file, valid_file
from tests.concepts.exchange.reference_reader import DoesNotKnowError, reference

SECONDS = 5
"""No file may take longer."""
OLD = Path(__file__).parents[1] / "old"
layer_tables_room = __import__("orthoplex.concepts.layer_table", fromlist=["_shapes"])


def tiny(size: int) -> int:
    return size if size < 64 else max(2, size // 64 * 2)


@pytest.fixture(scope="module", autouse=True)
def small_tables() -> Iterator[None]:
    """Every family's names with small widths."""
    room = layer_tables_room
    shapes = room._shapes
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


def one_line(error: OrthoplexError, path: Path) -> str:
    text = str(error)
    assert text.isprintable() and str(path) in text, text
    return text


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
        expected = reference(path, lora.version if lora.version else None)
    except DoesNotKnowError as error:
        raise AssertionError(f"read, though the reference does not know {error}") from error
    bundled = {key: expected.pop(key) for key in list(expected) if key.startswith("bundle_emb.")}
    assert sum(map(len, lora.embeddings.values())) == len(bundled)
    assert not differing(own, expected), differing(own, expected)
    return "read"


def check_uses(path: Path, plain: Path, chance: random.Random, family: str | None) -> None:
    """Convert a file that is read to a style and back, merge it and compare it with another."""
    lora = read_lora(path, family=family)
    style = chance.choice(list(STYLES))
    out = path.with_name("written.safetensors")
    try:
        own = changes_of(lora)
        write_lora(lora, out, style=style, embeddings="none")
    except (ConfigurationError, OrthoplexError) as error:
        assert str(error).isprintable()
    else:
        again = read_lora(out, family=lora.version)
        assert again.style == style or lora.family is None or not lora.layers
        check_equal_in_fused(own, changes_of(again))
    try:
        other = read_lora(plain, family=family)
        conflicts([(lora, 1.0), (other, 0.5)])
        merge_files([(lora, Strengths(0.7)), (other, Strengths(1.0))])
    except OrthoplexError as error:
        assert str(error).isprintable()


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
                f"file {number} of seed {seed}, {draft.style} {draft.version}, {mutation}: "
                f"{type(error).__name__}: {error}"
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
