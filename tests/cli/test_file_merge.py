"""``orthoplex merge`` into one LoRA file: what it writes, says and refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange import LoraFile, read_lora, write_lora
from orthoplex.files import read_header
from orthoplex.merging import RECIPE_KEY
from tests.concepts.exchange.corpus import CONV, SIZES, TEXT, K, V


def written(folder: Path, name: str, seed: int, dtype: torch.dtype = torch.float16, *, bias: bool = False) -> Path:
    """A LoRA file of vignette's shapes as kohya's scripts write it."""
    generator = torch.Generator().manual_seed(seed)
    layers = {
        layer: LowRank(
            torch.randn(out, 2, generator=generator).half(), torch.randn(2, width, generator=generator).half()
        )
        for layer, (out, width) in SIZES.items()
    }
    differences = {f"{CONV}.bias": torch.full((96,), float(seed))} if bias else {}
    lora = LoraFile(name, "kohya", "stable_diffusion", "vignette", layers, {CONV: (3, 3)}, differences)
    write_lora(lora, folder / f"{name}.safetensors", style="kohya", dtype=dtype)
    return folder / f"{name}.safetensors"


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    return written(tmp_path, "a", 1, bias=True), written(tmp_path, "b", 2, bias=True)


def delta(path: Path, layer: str) -> torch.Tensor:
    change = read_lora(path).layers[layer]
    return change.up.double() @ change.down.double()


def types(path: Path) -> set[str]:
    return {entry.dtype for entry in read_header(path).entries.values()}


def test_powers_of_two_are_exact_and_nothing_is_said(run, pair, tmp_path):
    output = tmp_path / "m.safetensors"
    result = run("merge", f"{pair[0]}@2", f"{pair[1]}@-0.5", "--output", output, "--verify")
    assert result.exit_code == 0 and not result.stderr, result.stderr
    assert types(output) == {"F16"} and "2 files merged by sum" in result.stdout
    torch.testing.assert_close(delta(output, K), 2 * delta(pair[0], K) - delta(pair[1], K) / 2, rtol=1e-12, atol=1e-12)
    assert "distance to the sum in float64, the furthest 5 of 6 layers" in result.stdout
    assert read_lora(output).differences[f"{CONV}.bias"][0] == 1


def test_the_rounding_of_the_type_that_is_written_is_said_once(run, pair, tmp_path):
    output = tmp_path / "m.safetensors"
    arguments = ["merge", f"{pair[0]}@0.8", pair[1], "--output", output, "--overwrite"]
    result = run(*arguments)
    assert result.stderr.count("rounded") == 1 and "to float16, by 0.05 %, or 3e-8, of themselves" in result.stderr
    assert "of 5 modules" in result.stderr and "float32 rounds less" in result.stderr and types(output) == {"F16"}
    result = run(*arguments, "--dtype", "float32")
    assert result.stderr.count("rounded") == 1 and "once to float32" in result.stderr and "a (0.8)" in result.stderr
    assert types(output) == {"F32"}
    torch.testing.assert_close(delta(output, V), 0.8 * delta(pair[0], V) + delta(pair[1], V), rtol=1e-6, atol=1e-5)


def test_files_of_several_types_are_written_in_float32(run, pair, tmp_path):
    other = written(tmp_path, "c", 3, torch.bfloat16)
    result = run("merge", pair[0], other, "--output", tmp_path / "m.safetensors")
    assert result.exit_code == 0 and not result.stderr and types(tmp_path / "m.safetensors") == {"F32"}


@pytest.mark.parametrize(
    "options", [["--algorithm", "mean"], ["--rank", 3], ["--energy", 0.9, "--scale", 0.5], ["--only", "attention"]]
)
def test_what_is_verified(run, pair, tmp_path, options):
    result = run("merge", *pair, "--output", tmp_path / "m.safetensors", "--verify", "--dtype", "float32", *options)
    assert result.exit_code == 0, result.stderr
    rows = [re.findall(r"\d\.\d\de[-+]\d\d", line) for line in result.stdout.splitlines()]
    errors = [(float(row[0]), float(row[1])) for row in rows if len(row) == 2]
    assert errors and all(error <= 1.01 * floor + 1e-6 for error, floor in errors)
    assert ("energy cut off" in result.stdout) == (options[0] in ("--rank", "--energy"))


def test_a_recipe_is_made_again_from_another_folder(run, pair, tmp_path):
    (tmp_path / "merged").mkdir()
    first, again = tmp_path / "merged" / "m.safetensors", tmp_path / "again" / "m.safetensors"
    again.parent.mkdir()
    assert run("merge", f"{pair[0]}@0.5:0", f"{pair[1]}@0.7;blocks=MIDD", "--output", first).exit_code == 0
    assert TEXT in read_lora(first).layers
    missing = run("merge", "--recipe", first, "--output", again)
    assert missing.exit_code == 2 and "of the recipe is not in" in missing.stderr
    result = run("merge", "--recipe", first, "--recipe-folder", tmp_path, "--output", again, "--verify")
    assert result.exit_code == 0, result.stderr
    assert first.read_bytes() == again.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--verify", "--algorithm", "ties"], "the algorithm is 'ties'; allowed for a verification are sum and mean"),
        (["--recipe-folder", "x"], "--recipe-folder is x, without a recipe"),
        (["--recipe", "x"], "--recipe x names the files of its merge"),
        (["--algorithm", "ssr"], "give their base with --base"),
        (["--base", "vignette", "--verify"], "--verify is given and --base is vignette; allowed is --verify without"),
        (["--base", "vignette", "--blocks", "MIDD"], "--blocks is given and --base is vignette"),
        (["--base", "vignette", "--rank", "0"], "allowed"),
    ],
)
def test_refused(run, pair, tmp_path, options, message):
    result = run("merge", *pair, "--output", tmp_path / "m.safetensors", *options)
    assert result.exit_code == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ("@x:0.5", "strength of {a} is 'x'; allowed are finite numbers"),
        ("@0.8:", "strength of {a} is ''; allowed are finite numbers"),
        ("@0.8:0.5:1", "allowed are one number, or two as in 0.8:0.5"),
        ("@te=x", "{a}: strength of text encoders is 'x'"),
        ("@0.8;0.5", "have a strength 2 times, 0.8 and 0.5"),
        ("@0.8:0.5;te=0.2", "have a strength of text encoders 2 times, 0.5 and 0.2"),
        (";blocks=MIDD", "strengths stand behind an @, as in {a}@1;blocks=MIDD"),
    ],
)
def test_strengths_behind_a_file_that_are_refused(run, pair, tmp_path, tail, message):
    result = run("merge", f"{pair[0]}{tail}", "--output", tmp_path / "m.safetensors")
    assert result.exit_code == 2 and message.format(a=pair[0]) in result.stderr, result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_options_of_files_are_refused_with_a_folder(run, pair, tmp_path):
    result = run("merge", *pair, "--output", tmp_path / "m", "--rank", 4)
    assert result.exit_code == 2 and "--rank is given and the output is" in result.stderr
    assert "allowed is --rank with an output that ends in .safetensors" in result.stderr


@pytest.mark.parametrize("algorithm", ["auto", "custom-diffusion", "sum"])
def test_with_a_base_own_concepts_become_one_file(run, concepts, pico_folder, tmp_path, algorithm):
    output = tmp_path / "m.safetensors"
    arguments = ["merge", concepts["anna"], f"{concepts['rex']}@0.5", "--base", pico_folder]
    result = run(*arguments, "--output", output, "--algorithm", algorithm, "--to", "diffusers", "--rank", 64)
    chosen = "least-squares" if algorithm == "auto" else algorithm
    assert result.exit_code == 0 and f"2 files merged by {chosen} in" in result.stdout, result.stderr
    header = read_header(output)
    recipe = json.loads(header.metadata[RECIPE_KEY])
    assert recipe["algorithm"] == chosen and recipe["base"]["hash"]
    assert {path.name for path in tmp_path.glob("m*.safetensors")} == {
        "m.safetensors", "m.anna.safetensors", "m.rex.safetensors",
    }  # fmt: skip
    if algorithm == "sum":
        tensors = load_file(output)
        layer, anna = next(iter(read_lora(concepts["anna"]).layers.items()))
        total = anna.delta() + 0.5 * read_lora(concepts["rex"]).layers[layer].delta()
        merged = tensors[f"{layer}.lora_B.weight"].float() @ tensors[f"{layer}.lora_A.weight"].float()
        torch.testing.assert_close(merged, total, rtol=1e-3, atol=1e-5)


def test_with_a_base_files_of_other_programs_become_a_file_or_a_folder(run, pair, tmp_path):
    """Convolutions keep their windows and biases are full differences."""
    output, folder = tmp_path / "m.safetensors", tmp_path / "folder"
    arguments = ["merge", *pair, "--base", "vignette", "--algorithm"]
    result = run(*arguments, "sum", "--output", output, "--to", "kohya", "--dtype", "float32")
    assert result.exit_code == 0, result.stderr
    merged = read_lora(output)
    assert merged.windows == {CONV: (3, 3)} and merged.version == "vignette"
    assert merged.differences[f"{CONV}.bias"].tolist() == [3.0] * 96
    for layer in (K, CONV, TEXT):
        exact = delta(pair[0], layer) + delta(pair[1], layer)
        torch.testing.assert_close(delta(output, layer), exact, rtol=1e-4, atol=1e-4)
    result = run(*arguments, "sum", "--output", folder)
    assert result.exit_code == 0 and "2 concepts merged by sum" in result.stdout, result.stderr
