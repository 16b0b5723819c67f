"""Measurements and summaries on features whose answers can be read off."""

import math
from dataclasses import replace

import pytest
from torch import tensor

from orthoplex.benchmark.measurement import (
    NOT_PROMPTED,
    ConceptFeatures,
    ConceptText,
    Measurement,
    References,
    TextValue,
    ceilings,
    gallery_of,
    measure,
    recognition,
    threshold_of,
)
from orthoplex.benchmark.summary import compare, summarise
from orthoplex.errors import ConfigurationError

EAST, NORTH, UP = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]
HALF = math.sqrt(0.5)
DIAGONAL = [HALF, HALF, 0.0]
ANNA, REX, NOBODY = frozenset({"anna"}), frozenset({"rex"}), frozenset()


def references():
    return {
        "anna": References("person", tensor([EAST, EAST]), tensor([EAST])),
        "rex": References("person", tensor([NORTH, NORTH]), tensor([NORTH])),
        "boro": References("subject", tensor([DIAGONAL]), tensor([UP])),
    }


def shown():
    return {
        "anna": ConceptFeatures(
            base=tensor([UP, UP]), single=tensor([EAST, EAST]), merged={2: tensor([EAST, NORTH])}, met={2: REX}
        ),
        "rex": ConceptFeatures(
            base=tensor([UP, UP]), single=tensor([NORTH, NORTH]), merged={2: tensor([NORTH, NORTH])}, met={2: ANNA}
        ),
    }


def test_concepts_are_told_apart_within_their_kind():
    assert list(gallery_of("anna", references())) == ["anna", "rex"]
    assert list(gallery_of("boro", references())) == ["boro"]


def test_measure():
    anna, rex = measure("slots", 3, shown(), references())
    assert anna == Measurement(
        variant="slots", size=2, seed=3, concept="anna", kind="person",
        base_alignment=0.0, single_alignment=1.0, merged_alignment=0.5,
        base_recognised=1.0,  # looks like neither: the tie goes to the first name
        single_recognised=1.0, merged_recognised=0.5, bleed=0.5, base_identity=None,
        single_identity=1.0, merged_identity=0.5,  # impostors score 0 (base) and 0 (rex), so the threshold is 0
        single_as={"anna": 1.0}, merged_as={"anna": 0.5, "rex": 0.5},
    )  # fmt: skip
    assert (rex.merged_alignment, rex.merged_recognised, rex.merged_identity) == (1.0, 1.0, 1.0)


def test_an_impostor_as_good_as_the_concept_leaves_no_identity():
    pictures = {
        "anna": ConceptFeatures(base=tensor([EAST]), single=tensor([EAST]), merged={1: tensor([EAST])}, met={1: NOBODY})
    }
    assert measure("v", 0, pictures, references())[0].single_identity == 0.0


def test_ceilings_are_what_real_pictures_reach():
    limits = ceilings(references())
    assert limits["anna"] == {"alignment": 1.0, "recognised": 1.0}
    assert limits["boro"] == {"alignment": 0.0, "recognised": None}  # it has no other to be taken for


def row(concept, seed, *, base=0.2, single=0.8, merged=0.6, variant="v", size=2, recognised=(1.0, 0.5)):
    alone, together = recognised
    taken_for = {concept: together, "stranger": 1 - together}
    numbers = (base, single, merged, 0.25, alone, together, 0.125, None, 0.5, 0.25)
    return Measurement(variant, size, seed, concept, "person", *numbers, {concept: alone}, taken_for)


def test_every_size_of_merges_is_measured():
    met = {2: NOBODY, 5: REX}
    pictures = {"anna": ConceptFeatures(tensor([UP]), tensor([EAST]), {2: tensor([EAST]), 5: tensor([NORTH])}, met)}
    small, large = measure("v", 0, pictures, references())
    assert (small.size, small.merged_alignment, small.merged_as) == (2, 1.0, {"anna": 1.0})
    assert (large.size, large.merged_alignment, large.merged_as) == (5, 0.0, {"rex": 1.0})
    assert (small.bleed, large.bleed) == (0.0, 1.0)
    assert small.single_alignment == large.single_alignment


def test_recognition_is_prompted_against_recognised_averaged_over_seeds():
    rows = [row("a", 0, recognised=(1, 0.5)), row("a", 1, recognised=(1, 1.0)), row("b", 0), row("b", 1)]
    rows[2] = replace(rows[2], merged_as={"a": 0.25, "b": 0.75})
    rows[3] = replace(rows[3], merged_as={"b": 0.25, "stranger": 0.5, "someone": 0.25})
    prompted, columns, matrix = recognition(rows, "person")
    assert (prompted, columns) == (("a", "b"), ("a", "b", NOT_PROMPTED))
    assert matrix.tolist() == [[0.75, 0.0, 0.25], [0.125, 0.5, 0.375]]
    assert recognition([replace(row("a", 0), merged_as={"a": 1.0})], "person")[1] == ("a",)


def test_summary_of_means_and_ratios():
    rows = [
        row("a", 0),
        row("a", 1, merged=0.4),
        row("b", 0, single=0.4, merged=0.4),
        row("b", 1, single=0.4, merged=0.2),
    ]
    summary = summarise(rows)
    assert summary.variant == "v"
    assert summary.single_alignment.value == pytest.approx(0.6)
    assert summary.merged_alignment.value == pytest.approx(0.4)
    assert summary.alignment_retention is not None
    assert summary.alignment_retention.value == pytest.approx(0.4 / 0.6)
    assert summary.gain_retention is not None
    assert summary.gain_retention.value == pytest.approx(0.2 / 0.4)
    assert summary.base_recognised.value == 0.25
    assert summary.recognised_retention is not None
    assert summary.recognised_retention.value == pytest.approx(0.5)
    # retention is .5/.6 with seed 0 and .3/.6 with seed 1; two numbers deviate by |difference|/sqrt(2)
    assert summary.seed_deviation == pytest.approx((0.5 / 0.6 - 0.3 / 0.6) / math.sqrt(2))


def test_a_ratio_without_a_base_is_left_out():
    summary = summarise([row("a", 0, base=0.9, recognised=(0.0, 0.0))])
    assert summary.recognised_retention is None
    assert summary.gain_retention is None
    assert summary.seed_deviation is None
    assert summary.bleed.value == 0.125


def test_a_summary_needs_every_concept_with_every_seed_once():
    with pytest.raises(ConfigurationError, match="3 measurements of 2 concepts and 2 seeds"):
        summarise([row("a", 0), row("a", 1), row("b", 0)])
    with pytest.raises(ConfigurationError, match="2 measurements of 1 concepts"):
        summarise([row("a", 0), row("a", 0)])
    with pytest.raises(ConfigurationError, match=r"2 variants \[\('v', 2\), \('w', 2\)\]"):
        summarise([row("a", 0), row("a", 0, variant="w")])
    with pytest.raises(ConfigurationError, match="0 variants"):
        summarise([])


def test_impostors_are_the_bases_pictures_and_real_ones_of_the_others_of_the_kind():
    assert threshold_of("anna", references(), tensor([UP])) == 0.0
    assert threshold_of("anna", references(), tensor([DIAGONAL])) == pytest.approx(HALF)  # the base's come near
    gallery = references() | {"near": References("person", tensor([DIAGONAL]), tensor([DIAGONAL]))}
    assert threshold_of("anna", gallery, tensor([UP])) == pytest.approx(HALF)  # a real one does
    assert threshold_of("boro", references(), tensor([UP])) == 0.0  # the only one of its kind


def test_many_real_impostors_do_not_let_the_bases_pictures_pass():
    gallery = references() | {f"{n}": References("person", tensor([NORTH] * 8), tensor([NORTH] * 8)) for n in range(20)}
    pictures = {"anna": ConceptFeatures(tensor([DIAGONAL] * 6), tensor([EAST]), {1: tensor([EAST])}, {1: NOBODY})}
    anna = measure("v", 0, pictures, gallery)[0]
    assert anna.single_identity == 1.0
    alike = {"anna": replace(pictures["anna"], single=tensor([DIAGONAL]))}  # as near as the base's own pictures are
    assert measure("v", 0, alike, gallery)[0].single_identity == 0.0


def test_a_published_threshold_is_passed_by_the_base_too():
    pictures = {"anna": replace(shown()["anna"], base=tensor([EAST, UP]))}
    (anna,) = measure("v", 0, pictures, references(), identity_cosine=0.5)
    assert (anna.base_identity, anna.single_identity) == (0.5, 1.0)


def test_where_there_is_nothing_to_choose_nothing_is_recognised_nor_bleeds():
    pictures = {"boro": ConceptFeatures(tensor([UP]), tensor([DIAGONAL]), {1: tensor([DIAGONAL])}, {1: NOBODY})}
    boro = measure("v", 0, pictures, references())[0]
    assert {boro.base_recognised, boro.single_recognised, boro.merged_recognised, boro.bleed} == {None}
    summary = summarise([boro])
    assert (summary.single_recognised, summary.recognised_retention, summary.bleed) == (None, None, None)
    assert compare([boro], [boro]).merged_recognised is None
    both = summarise([boro, row("anna", 0, size=1)])  # one that has a choice is told of alone
    assert both.single_recognised is not None and both.single_recognised.value == 1.0


def test_the_threshold_is_the_same_for_every_variant():
    """Another concept that looks like this one in one variant does not make this one harder to identify there."""
    pictures = shown()
    pictures["rex"] = replace(pictures["rex"], single=tensor([EAST, EAST]))
    anna = measure("v", 0, pictures, references())[0]
    assert anna.single_identity == measure("v", 0, shown(), references())[0].single_identity == 1.0
    gallery = references()
    gallery["twin"] = References("person", tensor([EAST]), tensor([EAST]))  # a real one does
    assert measure("v", 0, pictures, gallery)[0].single_identity == 0.0


def test_only_what_members_of_the_merge_take_more_than_alone_is_bleed():
    gallery = references() | {"mia": References("person", tensor([UP]), tensor([UP]))}
    single, merged = tensor([EAST, EAST, EAST, NORTH]), tensor([EAST, NORTH, NORTH, UP])
    for met, bleed in ((REX, 0.25), (REX | {"mia"}, 0.5), (frozenset({"mia"}), 0.25), (NOBODY, 0.0)):
        pictures = {"anna": ConceptFeatures(tensor([UP]), single, {2: merged}, {2: met})}
        assert measure("v", 0, pictures, gallery)[0].bleed == bleed


def test_a_gain_that_may_be_nothing_has_no_retention():
    rows = [row(name, 0, single=single, merged=0.5) for name, single in (("a", 0.9), ("b", 0.1), ("c", 0.15))]
    summary = summarise(rows)
    assert summary.gain_retention is None and summary.alignment_retention is not None


def test_two_variants_are_compared_concept_by_concept():
    first = [row("a", 0, merged=0.2), row("b", 0, merged=0.8)]
    second = [row("b", 0, merged=0.9, variant="w"), row("a", 0, merged=0.3, variant="w")]
    found = compare(second, first)
    assert (found.variant, found.other, found.size) == ("w", "v", 2)
    gain = found.merged_alignment  # the same for both concepts: nothing is uncertain, though they differ much
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.single_alignment.value == found.merged_identity.value == 0.0


def test_text_alignment_is_taken_over_for_every_size():
    text = ConceptText(TextValue(0.5), TextValue(0.75, 0.5), {2: TextValue(0.25, -0.5), 5: TextValue(0.0)})
    pictures = ConceptFeatures(
        tensor([UP]), tensor([EAST]), {2: tensor([EAST]), 5: tensor([NORTH])}, {2: NOBODY, 5: NOBODY}, text
    )
    small, large = measure("v", 0, {"anna": pictures}, references())
    assert (small.base_text, small.single_text, small.merged_text) == (0.5, 0.75, 0.25)
    assert (small.base_choice, small.single_choice, small.merged_choice) == (None, 0.5, -0.5)
    assert (large.merged_text, large.merged_choice) == (0.0, None)


def test_text_is_summarised_over_the_concepts_that_have_it():
    rows = [
        replace(row("a", 0), base_text=0.25, single_text=0.75, merged_text=0.5),
        replace(row("b", 0), base_text=0.75, single_text=0.25, merged_text=0.25, single_choice=0.5, merged_choice=0.25),
        row("c", 0),
    ]
    rows[1] = replace(rows[1], base_choice=0.0)
    summary = summarise(rows)
    assert summary.base_text is not None and summary.base_text.value == 0.5
    assert summary.text_retention is not None and summary.text_retention.value == pytest.approx(0.375 / 0.5)
    assert summary.single_choice is not None and summary.single_choice.value == 0.5
    assert summary.choice_retention is not None and summary.choice_retention.value == 0.5
    without = summarise([row("a", 0)])
    assert (without.base_text, without.merged_text, without.text_retention, without.choice_retention) == (None,) * 4


def test_text_that_nothing_is_left_of_alone_has_no_retention():
    rows = [replace(row("a", 0), base_text=0.5, single_text=0.0, merged_text=0.5)]
    assert summarise(rows).text_retention is None


def test_a_published_threshold_judges_instead_of_impostors():
    pictures = {
        "anna": ConceptFeatures(
            base=tensor([EAST]), single=tensor([EAST, DIAGONAL]), merged={1: tensor([NORTH])}, met={1: NOBODY}
        )
    }
    (strict,) = measure("v", 0, pictures, references(), identity_cosine=0.8)
    (mild,) = measure("v", 0, pictures, references(), identity_cosine=0.5)
    assert (strict.single_identity, mild.single_identity, mild.merged_identity) == (0.5, 1.0, 0.0)
