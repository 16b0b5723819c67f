"""Merging concepts: the exact sum, in any order, with a recipe; and what is refused."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orthoplex import __version__
from orthoplex.adapters import LowRank
from orthoplex.concepts import BaseIdentity, Concept, Manifest
from orthoplex.errors import ConfigurationError
from orthoplex.merging import ALGORITHMS, AUTO, InputGrams, RowGram, foreign_store, merge
from tests.pico import tokens_of, vectors_of

BASE = BaseIdentity(family="vignette", hash="ab" * 32, name="vignette")
KEY, VALUE = "unet.attn2.to_k", "unet.attn2.to_v"


def concept(name: str, layers: dict, *, tokens=None, base: BaseIdentity = BASE, slot: int | None = None) -> Concept:
    manifest = Manifest(
        name=name, kind="person", class_word="person", trigger=f"<{name}> person", base=base, method="lora", slot=slot
    )
    return Concept(manifest, layers, tokens_of({f"<{name}>": torch.ones(4)} if tokens is None else tokens))


def random_concept(name: str, seed: int, rank: int = 4) -> Concept:
    generator = torch.Generator().manual_seed(seed)
    layers = {
        layer: LowRank(
            torch.randn(24, rank, generator=generator) / 10, torch.randn(rank, width, generator=generator) / 8
        )
        for layer, width in ((KEY, 64), (VALUE, 48))
    }
    return concept(name, layers)


def gram(seed: int, width: int) -> torch.Tensor:
    x = torch.randn(2 * width, width, generator=torch.Generator().manual_seed(seed))
    return x.T @ x / len(x)


def inputs_of(*concepts: Concept) -> InputGrams:
    """Made-up Gram matrices for every layer that any of the concepts changes."""
    widths = {layer: change.shape[1] for each in concepts for layer, change in each.layers.items()}
    grams = {
        each.content_hash: {layer: gram(number, width) for layer, width in widths.items()}
        for number, each in enumerate(concepts)
    }
    return InputGrams(grams, {layer: gram(99, width) for layer, width in widths.items()})


ANNA = concept("anna", {KEY: LowRank(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 0.0]]))}, slot=3)
REX = concept(
    "rex",
    {
        KEY: LowRank(torch.tensor([[0.0], [4.0]]), torch.tensor([[1.0, 1.0]])),
        VALUE: LowRank(torch.tensor([[2.0]]), torch.tensor([[5.0]])),
    },
)


def test_sum_written_out():
    merged = merge([(ANNA, 1.0), (REX, 0.5)], algorithm="sum")
    assert merged.layers[KEY].up.tolist() == [[1, 0], [2, 4]]
    assert merged.layers[KEY].low_rank.up.tolist() == [[1, 0], [2, 2]]
    assert merged.layers[KEY].down.tolist() == [[3, 0], [1, 1]]
    assert merged.layers[KEY].delta().tolist() == [[3, 0], [8, 2]]
    assert merged.layers[VALUE].delta().tolist() == [[5]]
    assert list(merged.tokens) == ["<anna>", "<rex>"]


def test_mean_written_out_counts_every_concept():
    merged = merge([(ANNA, 1.0), (REX, 0.5)], algorithm="mean")
    assert merged.layers[KEY].delta().tolist() == [[1.5, 0], [4, 1]]
    assert merged.layers[VALUE].delta().tolist() == [[2.5]]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_scale_multiplies_the_whole(algorithm):
    inputs = inputs_of(ANNA, REX)
    whole = merge([(ANNA, 1.0), (REX, 0.5)], algorithm=algorithm, inputs=inputs)
    half = merge([(ANNA, 1.0), (REX, 0.5)], algorithm=algorithm, scale=0.5, inputs=inputs)
    for layer in (KEY, VALUE):
        assert torch.equal(half.layers[layer].delta(), 0.5 * whole.layers[layer].delta())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_order_changes_no_bit(algorithm):
    pairs = [(random_concept(name, seed), 0.1 * (seed + 3)) for seed, name in enumerate(("rex", "anna", "beach"))]
    inputs = inputs_of(*(part for part, _ in pairs))
    results = [merge(order, algorithm=algorithm, inputs=inputs) for order in itertools.permutations(pairs)]
    for other in results[1:]:
        assert other.recipe == results[0].recipe
        for layer, change in results[0].layers.items():
            assert torch.equal(other.layers[layer].up, change.up)
            assert torch.equal(other.layers[layer].down, change.down)


def test_concepts_of_one_name_are_ordered_by_content():
    twins = [(concept("anna", random_concept("anna", seed).layers, tokens={}), 1.0) for seed in (0, 1)]
    first, second = merge(twins, algorithm="sum"), merge(twins[::-1], algorithm="sum")
    assert torch.equal(first.layers[KEY].up, second.layers[KEY].up)


def test_one_concept_comes_back_exactly():
    rex = random_concept("rex", 5)
    merged = merge([(rex, 1.0)])
    assert set(merged.layers) == set(rex.layers)
    for layer, change in rex.layers.items():
        assert torch.equal(merged.layers[layer].up, change.up)
        assert torch.equal(merged.layers[layer].delta(), change.delta())
    assert torch.equal(vectors_of(merged.tokens)["<rex>"], vectors_of(rex.tokens)["<rex>"])


@pytest.mark.parametrize("algorithm", [AUTO, *ALGORITHMS])
def test_strength_zero_is_the_base_tokens_included(algorithm):
    merged = merge([(REX, 0.0), (ANNA, 0.0)], algorithm=algorithm)
    assert merged.layers == {} and merged.tokens == {}
    assert [item.strength for item in merged.recipe.concepts] == [0.0, 0.0]
    assert merged.recipe.absent_names == ("anna", "rex")


def test_scale_zero_is_the_base_too():
    merged = merge([(ANNA, 1.0), (REX, 1.0)], scale=0.0)
    assert merged.layers == {} and merged.tokens == {} and merged.recipe.scale == 0.0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_concept_at_strength_zero_is_as_if_it_was_not_there(algorithm):
    inputs = inputs_of(*(every := [random_concept(name, seed) for seed, name in enumerate(("anna", "bob", "rex"))]))
    anna, bob, rex = every
    told = {"algorithm": algorithm, "inputs": inputs}
    with_it, without = merge([(anna, 1.0), (bob, 0.0), (rex, 0.5)], **told), merge([(anna, 1.0), (rex, 0.5)], **told)
    assert set(with_it.tokens) == {"<anna>", "<rex>"}
    for layer, change in without.layers.items():
        assert torch.equal(with_it.layers[layer].delta(), change.delta())


def test_unasked_it_does_what_the_command_line_does_where_all_is_stored(tmp_path, monkeypatch):
    rows = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)).half()
    pairs = [(replace(one, layers={KEY: one.layers[KEY]}, inputs=rows), 1.0) for one in (ANNA, REX)]
    monkeypatch.setattr(foreign_store, "cache_folder", lambda: tmp_path)
    with pytest.raises(ConfigurationError, match=r"there is none of base 'vignette' \(abababababab\) under foreign"):
        merge(pairs)
    foreign_store.store_foreign_gram(BASE.hash, foreign_store.ForeignGram(gram(9, 2), "key"))
    merged = merge(pairs)
    assert (merged.recipe.algorithm, merged.recipe.options["foreign"]) == ("least-squares", 3.0)
    inputs = InputGrams(
        {one.content_hash: {KEY: RowGram(rows)} for one, _ in pairs},
        {KEY: foreign_store.stored_foreign_gram(BASE.hash).gram},
    )
    told = merge(pairs, algorithm="least-squares", options={"foreign": 3.0}, inputs=inputs)
    assert torch.equal(merged.layers[KEY].delta(), told.layers[KEY].delta())
    assert merged.recipe.inputs == inputs.content_hash
    with pytest.raises(ConfigurationError, match="option 'ridge' is given for algorithm 'auto', which chooses its own"):
        merge(pairs, options={"ridge": 1.0})
    lacking = replace(pairs[0][0], inputs=None, path=Path("loud/anna.safetensors"))
    with pytest.raises(
        ConfigurationError, match=r"'least-squares' needs .* none of the prompts of anna \(loud/anna.safe"
    ):
        merge([(lacking, 1.0), pairs[1]])


def test_a_damaged_store_counts_as_none(tmp_path, monkeypatch):
    monkeypatch.setattr(foreign_store, "cache_folder", lambda: tmp_path)
    foreign_store.store_foreign_gram("ef" * 32, foreign_store.ForeignGram(gram(9, 2), "key"))
    (file,) = (tmp_path / "foreign-inputs").iterdir()
    assert foreign_store.stored_foreign_gram("ef" * 32).key == "key"
    foreign_store.store_foreign_gram("ef" * 32, foreign_store.ForeignGram(gram(8, 2), "other words"))
    assert foreign_store.stored_foreign_gram("ef" * 32) is None  # which of both is meant?
    assert torch.equal(foreign_store.stored_foreign_gram("ef" * 32, "other words").gram, gram(8, 2))
    assert foreign_store.stored_foreign_gram("ef" * 32, "neither") is None
    foreign_store._path("ef" * 32, "other words").unlink()
    file.write_bytes(file.read_bytes()[:40])
    assert foreign_store.stored_foreign_gram("ef" * 32) is None
    monkeypatch.setattr(foreign_store, "cache_folder", lambda: file)  # a file: nothing can be stored in it
    foreign_store.store_foreign_gram("ef" * 32, foreign_store.ForeignGram(gram(9, 2), "key"))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16))
def test_fifteen_concepts_equal_the_float64_sum(dtype):
    """No cross terms, strengths neither squared nor shared; half-precision factors are scaled in float32."""
    concepts = []
    for seed in range(15):
        layers = random_concept("x", seed).layers.items()
        halved = {name: LowRank(change.up.to(dtype), change.down.to(dtype)) for name, change in layers}
        concepts.append((concept(f"concept-{seed}", halved), 0.3 + 0.07 * seed))
    merged = merge(concepts, algorithm="sum", scale=0.6)
    for layer in (KEY, VALUE):
        exact = sum(
            0.6 * strength * part.layers[layer].up.double() @ part.layers[layer].down.double()
            for part, strength in concepts
        )
        assert merged.layers[layer].up.dtype == torch.float32
        assert merged.layers[layer].rank == 60
        assert (merged.layers[layer].delta() - exact).norm() < 1e-6 * exact.norm()


def test_recipe_says_what_was_merged():
    recipe = merge([(REX, 0.5), (ANNA, 1)], algorithm="sum", scale=0.9).recipe
    assert json.loads(json.dumps(recipe.to_json())) == {
        "algorithm": "sum",
        "options": {},
        "inputs": None,
        "scale": 0.9,
        "concepts": [
            {"name": "anna", "kind": "person", "strength": 1.0, "content_hash": ANNA.content_hash, "slot": 3},
            {"name": "rex", "kind": "person", "strength": 0.5, "content_hash": REX.content_hash, "slot": None},
        ],
        "base": {"family": "vignette", "hash": "ab" * 32, "name": "vignette"},
        "package_version": __version__,
    }


def test_recipe_holds_all_options_and_which_inputs():
    assert merge([(REX, 1.0)], algorithm="dare", options={"drop": 0.5}).recipe.options == {"drop": 0.5, "seed": 0}
    inputs = inputs_of(ANNA, REX)
    recipe = merge([(ANNA, 1.0), (REX, 1.0)], algorithm="ssr", inputs=inputs).recipe
    assert recipe.inputs == inputs.content_hash and recipe.options == {"ridge": 1e-4}
    assert inputs.content_hash != inputs_of(REX, ANNA).content_hash
    assert merge([(ANNA, 1.0)], inputs=inputs).recipe.inputs is None  # the sum took no notice of them


@pytest.mark.parametrize("algorithm", ("least-squares", "ssr"))
def test_inputs_of_strangers_change_nothing_and_do_not_stand_in_for_missing_ones(algorithm):
    anna, rex, boro = (random_concept(name, seed) for seed, name in enumerate(("anna", "rex", "boro")))
    pairs, every = [(anna, 1.0), (rex, 1.0)], inputs_of(anna, rex, boro)
    own = InputGrams({key: every.concepts[key] for key in (anna.content_hash, rex.content_hash)}, every.foreign)
    first, second = (merge(pairs, algorithm=algorithm, inputs=inputs) for inputs in (own, every))
    assert first.recipe == second.recipe
    assert torch.equal(first.layers[KEY].delta(), second.layers[KEY].delta())
    missing = InputGrams({key: every.concepts[key] for key in (anna.content_hash, boro.content_hash)})
    with pytest.raises(ConfigurationError, match="of 2 concepts that are merged, 1 have a Gram matrix"):
        merge(pairs, algorithm=algorithm, inputs=missing)


def test_a_concept_that_leaves_a_layer_alone_is_heard_by_least_squares():
    """Anna changes only keys; on her inputs the merge shall leave the values alone."""
    eye = torch.eye(1)
    inputs = InputGrams(
        {ANNA.content_hash: {KEY: torch.eye(2), VALUE: 3 * eye}, REX.content_hash: {KEY: torch.eye(2), VALUE: eye}}
    )
    merged = merge([(ANNA, 1.0), (REX, 1.0)], algorithm="least-squares", options={"ridge": 0}, inputs=inputs)
    torch.testing.assert_close(merged.layers[VALUE].delta(), torch.tensor([[10.0 / 4]]))


def test_a_base_may_have_two_names():
    renamed = concept("rex", {}, base=BaseIdentity(BASE.family, BASE.hash, "a copy"))
    assert set(merge([(ANNA, 1.0), (renamed, 1.0)]).tokens) == {"<anna>", "<rex>"}


OTHER_BASE = BaseIdentity("sd1", "cd" * 32, "some model")
NARROW = LowRank(torch.ones(2, 1), torch.ones(1, 5))


@pytest.mark.parametrize(
    ("pairs", "options", "message"),
    [
        ([], {}, "a merge of 0 concepts was asked for; at least 1"),
        ([(ANNA, 1.0)], {"algorithm": "tied"}, "merging algorithm is 'tied'; allowed are sum, mean, ties"),
        ([(ANNA, 1.0)], {"algorithm": "ssr"}, "merging algorithm 'ssr' needs Gram matrices of the layers' inputs"),
        (
            [(ANNA, 1.0)],
            {"algorithm": "sum", "options": {"density": 1}},
            "merging algorithm 'sum' has no option 'density'",
        ),
        ([(ANNA, math.nan)], {}, "concept anna: strength is nan; allowed are finite numbers"),
        ([ANNA], {}, r"a merge of Concept was asked for; allowed are \(concept, strength\) pairs"),
        ([(ANNA, "1")], {}, "concept anna: strength is '1'; allowed are finite numbers"),
        ([(ANNA, 1.0)], {"scale": "1"}, "scale is '1'; allowed are finite numbers"),
        ([(ANNA, 1.0)], {"scale": math.inf}, "scale is inf; allowed are finite numbers"),
        ([(ANNA, 1.0)], {"scale": 10**400}, "scale is 10+; allowed are finite numbers"),
        (
            [(ANNA, 1.0), (ANNA, 0.5)],
            {},
            "concept anna is in the merge twice; allowed is once, with the sum of the strengths",
        ),
        (
            [(REX, 1.0), (concept("bob", {}, tokens={"<rex>": torch.ones(4)}), 1.0)],
            {},
            "token <rex> is claimed by concepts bob and rex; one is allowed",
        ),
        (
            [(ANNA, 1.0), (concept("bob", {}, base=OTHER_BASE), 1.0)],
            {},
            r"anna belongs to base 'vignette' \(family vignette, hash abababababab\) and concept bob to 'some model' "
            r"\(family sd1, hash cdcdcdcdcdcd\); one base is allowed",
        ),
        (
            [(ANNA, 1.0), (concept("bob", {KEY: NARROW}), 1.0)],
            {"algorithm": "sum"},
            r"layer unet.attn2.to_k has shape \(2, 5\) in bob but \(2, 2\)",
        ),
    ],
)
def test_what_is_refused_is_named(pairs, options, message):
    with pytest.raises(ConfigurationError, match=message):
        merge(pairs, **options)


def test_concepts_that_share_a_slot_are_logged(caplog):
    bob, lake = (concept(name, {}, slot=3) for name in ("bob", "lake"))
    merge([(ANNA, 1.0), (REX, 1.0), (concept("cup", {}, slot=4), 1.0), (bob, 0.0)], algorithm="sum")
    assert caplog.text == ""
    merge([(lake, 1.0), (bob, 1.0)])
    assert "concepts bob, lake share slot 3, so their changes meet" in caplog.text


ROWS = {"method": "orthogonal", "basis": "slot", "rank": "proportional", "slots": 16}


def partitioned(name, slot, **adapter):
    changed = concept(name, {}, slot=slot)
    return replace(changed, manifest=replace(changed.manifest, adapter={**ROWS, **adapter}))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"slots": 32}, "bob: basis=slot, slots=16; lake: basis=slot, slots=32"),
        ({"rank": 20}, "lake: basis=slot, rank=20"),
        ({"method": "blockwise", "blocks": "rows"}, "lake: blockwise, blocks=rows, slots=16"),
    ],
)
def test_slots_of_different_partitions_are_logged(caplog, other, told):
    """Slot 1 of 16 holds slots 2 and 3 of 32; the same number of both need not meet at all."""
    merge([(partitioned("bob", 1), 1.0), (partitioned("lake", 1, **other), 1.0)])
    assert "slots of different partitions, so their changes may meet" in caplog.text and told in caplog.text
    assert "share slot" not in caplog.text


def test_slots_of_one_rank_are_one_partition_whatever_their_number(caplog):
    merge([(partitioned("bob", 1, rank=4), 1.0), (partitioned("lake", 2, rank=4, slots=99), 1.0)])
    assert caplog.text == ""


LAYERS = ("unet.down.attn2", "unet.up.attn2")


def layerwise_concept(name: str, layers: tuple[str, ...] = LAYERS, changes: dict | None = None) -> Concept:
    tokens = tokens_of({f"<{name}>": torch.arange(8.0).view(2, 4)}, layers)
    return replace(concept(name, changes or {}), tokens=tokens)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_shared_layerwise_and_lone_tokens_come_together_whatever_the_algorithm(algorithm):
    rex, bob = layerwise_concept("rex", changes=random_concept("rex", 1).layers), layerwise_concept("bob")
    every = [random_concept("anna", 0), rex, bob, concept("tom", {})]
    grams = {layer: torch.eye(width) for layer, width in ((KEY, 64), (VALUE, 48))}
    inputs = InputGrams({each.content_hash: grams for each in every}, grams)
    merged = merge([(each, 1.0) for each in every], algorithm=algorithm, inputs=inputs)
    assert {token: tuple(vector.shape) for token, vector in vectors_of(merged.tokens).items()} == {
        "<anna>": (4,), "<bob>": (2, 4), "<rex>": (2, 4), "<tom>": (4,),
    }  # fmt: skip
    assert merged.tokens["<rex>"] is rex.tokens["<rex>"] and set(merged.layers) == {KEY, VALUE}
    assert len({item.content_hash for item in merged.recipe.concepts}) == 4
    alone = merge([(bob, 1.0), (every[3], 0.5)], algorithm=algorithm, inputs=inputs)
    assert alone.layers == {} and alone.tokens == {**bob.tokens, **every[3].tokens}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_keys_and_values_stay_as_they_are_whatever_the_algorithm_and_strength(algorithm):
    added = {f"<{name}>": {layer: torch.randn(2, 4) for layer in LAYERS} for name in ("bob", "tom")}
    own = tokens_of(dict.fromkeys(added, torch.ones(4)), keys_values=added)
    bob, tom = (replace(concept(name, {}), tokens={f"<{name}>": own[f"<{name}>"]}) for name in ("bob", "tom"))
    pairs = [(bob, 0.5), (rex := layerwise_concept("rex"), 1.0), (tom, 0.2)]
    inputs = InputGrams({each.content_hash: {} for each, _ in pairs})
    merged = merge(pairs, algorithm=algorithm, scale=2.0, inputs=inputs)
    assert merged.tokens == {**own, **rex.tokens}


@pytest.mark.parametrize("layers", [LAYERS[::-1], LAYERS[:1]])
def test_a_merge_compares_no_layers_of_tokens_as_the_base_does(layers):
    anna, bob = layerwise_concept("anna"), layerwise_concept("bob", layers)
    assert merge([(anna, 1.0), (REX, 1.0), (bob, 1.0)]).tokens == {**anna.tokens, **REX.tokens, **bob.tokens}
