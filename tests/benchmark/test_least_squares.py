"""What merges by least squares cost and how exact they are, on small shapes."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks import least_squares, least_squares_worker
from benchmarks.least_squares import answer, cases, dense_change, largest_difference, random_members
from orthoplex.errors import ConfigurationError

SHAPES = {f"unet.{number}.attn2.to_k": (8 + number, 24) for number in range(3)}


@pytest.fixture
def members(tmp_path):
    """A file of three random concepts."""
    path = tmp_path / "members.safetensors"
    save_file(random_members(SHAPES, 3, 2, 7), path)
    return path


def test_the_merge_of_layers_is_that_of_a_dense_solve(members):
    merged = least_squares_worker.of_layers({"members": str(members)})()
    needed = least_squares.load_file(members)
    changes = {layer: stack.delta() for layer, stack in merged.items()}
    exact = {layer: dense_change(layer, needed, 1e-4) for layer in SHAPES}
    assert largest_difference(changes, exact) < 1e-5
    other = {layer: dense_change(layer, needed, 1e-2) for layer in SHAPES}
    assert largest_difference(changes, other) > 1e-3


def test_a_dense_solve_weighs_foreign_inputs(members):
    needed = least_squares.load_file(members)
    layer = next(iter(SHAPES))
    foreign = {"foreign": torch.eye(24), "weight": torch.tensor(1e9)}
    assert dense_change(layer, {**needed, **foreign}, 1e-4).norm() < 1e-3 * dense_change(layer, needed, 1e-4).norm()


def test_the_largest_difference_is_of_one_layer():
    wanted = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([100.0, 0.0])}
    assert largest_difference({"a": torch.tensor([3.0, 4.5]), "b": wanted["b"]}, wanted) == pytest.approx(0.1)


def test_changes_of_other_layers_are_not_compared():
    with pytest.raises(ConfigurationError, match="changes of 0 layers are compared with those of 1; allowed are the"):
        largest_difference({}, {"a": torch.ones(1)})


def test_members_are_concepts_that_store_their_inputs(members, pico):
    (first, *rest) = least_squares_worker.concepts_of({"members": str(members)}, pico)
    assert [first.name, *(concept.name for concept in rest)] == ["c00", "c01", "c02"]
    assert first.inputs is not None and first.inputs.shape == (7, 24)
    assert {layer: change.shape for layer, change in first.layers.items()} == SHAPES


def test_cases_of_the_shipped_concepts(tmp_path):
    first, second = cases(["vignette", "vignette, auto"], tmp_path, tmp_path)
    assert len(first.job["shipped"]) == 12
    assert (first.job["algorithm"], second.job["algorithm"]) == ("least-squares", "auto")


@pytest.mark.parametrize("name", ["rounds", "calls"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(ConfigurationError, match=f"least squares {name} is 0; allowed: 1 or more"):
        least_squares.main([f"--{name}", "0"])


def test_a_merge_that_fails_says_why():
    done = subprocess.CompletedProcess([], 1, "", "Traceback\nKeyError: 'seconds'\n")
    with pytest.raises(ConfigurationError, match="merge by old failed: KeyError: 'seconds'; allowed are checkouts"):
        answer(done, Path("old"))


def test_a_package_from_elsewhere_is_refused(tmp_path):
    done = subprocess.CompletedProcess([], 0, json.dumps({"package": str(tmp_path / "new" / "orthoplex")}), "")
    with pytest.raises(ConfigurationError, match=r"package is .*new/orthoplex; allowed is one in .*old"):
        answer(done, tmp_path / "old")
    assert answer(done, tmp_path / "new")["package"].startswith(str(tmp_path))


@pytest.mark.slow
def test_the_command_on_the_shipped_concepts(tmp_path):
    output = tmp_path / "least-squares.json"
    least_squares.main(["--cases", "vignette, auto", "--rounds", "1", "--calls", "2", "--output", str(output)])
    (row,) = json.loads(output.read_text())["merges"]
    assert row["layers"] == row["layers_compared"] == 14
    assert max(row["largest_relative_differences"].values()) < 1e-5
    assert min(row["seconds"]["now"]["warm"].values()) > 0
