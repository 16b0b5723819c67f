"""``orthoplex merge`` into one LoRA file: what it writes, says and refuses."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

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


def distance(path: Path, *files: tuple[Path, float]) -> float:
    """The distance of a written file to the sum in float64, beside the size of the sum."""
    merged, sources = read_lora(path), [(read_lora(file), strength) for file, strength in files]
    errors, sizes = [], []
    for layer in merged.layers:
        exact = sum(s * file.layers[layer].up.double() @ file.layers[layer].down.double() for file, s in sources)
        errors.append((merged.layers[layer].up.double() @ merged.layers[layer].down.double() - exact).norm() ** 2)
        sizes.append(exact.norm() ** 2)
    for name, tensor in merged.differences.items():
        exact = sum(s * file.differences[name].double() for file, s in sources)
        errors.append((tensor.double() - exact).norm() ** 2)
        sizes.append(exact.norm() ** 2)
    return float((sum(errors) / sum(sizes)) ** 0.5)


def weak(path: Path, seed: int, alpha: float = 1.0, rank: int = 128) -> Path:
    """A half-precision file of a high rank and alpha 1, as a training at a low rate leaves it."""
    generator = torch.Generator().manual_seed(seed)
    module = "lora_unet_" + K.partition(".")[2].replace(".", "_")
    out, width = SIZES[K]
    tensors = {
        f"{module}.lora_up.weight": (torch.randn(out, rank, generator=generator) * 2e-4).half(),
        f"{module}.lora_down.weight": (torch.randn(rank, width, generator=generator) * 0.05).half(),
        f"{module}.alpha": torch.tensor(alpha).half(),
    }
    save_file(tensors, path)
    return path


@pytest.mark.parametrize(
    ("alpha", "strength", "written_type"),
    [(1.0, 1.0, "F32"), (1.0, 0.1, "F32"), (20.0, 1.0, "F16")],
)
def test_small_numbers_are_never_lost(run, tmp_path, alpha, strength, written_type):
    """Rank 128 and alpha 1 make half-precision numbers of 2e-6, of which float16 has but few digits."""
    files = [weak(tmp_path / f"{seed}.safetensors", seed, alpha) for seed in (1, 2)]
    output = tmp_path / "m.safetensors"
    given = [f"{file}@{strength}" for file in files]
    result = run("merge", *given, "--output", output)
    assert result.exit_code == 0 and types(output) == {written_type}, result.stderr
    error = distance(output, *((file, strength) for file in files))
    if written_type == "F32":
        assert error < 1e-7 and "written in float32: float16 would round" in result.stderr
    else:
        said = float(re.findall(r"rounded once to float16: (\S+) of the change", result.stderr)[0])
        assert error < 3e-4 and said == pytest.approx(error, rel=0.05)
    half = run("merge", *given, "--output", output, "--overwrite", "--dtype", "float16")
    said = float(re.findall(r"rounded once to float16: (\S+) of the change", half.stderr)[0])
    error = distance(output, *((file, strength) for file in files))
    assert types(output) == {"F16"} and error < 3e-4 and said == pytest.approx(error, rel=0.05)


def test_numbers_of_too_many_sizes_for_half_precision_are_written_in_float32(run, tmp_path):
    path, output = tmp_path / "a.safetensors", tmp_path / "m.safetensors"
    module = "lora_unet_" + K.partition(".")[2].replace(".", "_")
    tensors = {
        f"{module}.lora_up.weight": torch.full((128, 2), 1e-7, dtype=torch.bfloat16).half() * 3,
        f"{module}.lora_down.weight": torch.full((2, 192), 1e-7, dtype=torch.bfloat16).half() * 3,
        f"{module}.alpha": torch.tensor(2.0).half(),
    }
    save_file(tensors, path)
    result = run("merge", f"{path}@0.3", "--output", output)
    assert result.exit_code == 0 and types(output) == {"F32"}, result.stderr
    assert "written in float32: float16 would round" in result.stderr
    assert distance(output, (path, 0.3)) < 1e-6


def test_a_truncation_that_cuts_says_nothing_of_rounding(run, pair, tmp_path):
    arguments = ["merge", f"{pair[0]}@0.8", pair[1], "--output", tmp_path / "m.safetensors", "--overwrite"]
    assert "rounded" not in run(*arguments, "--rank", 1).stderr
    assert "rounded once to float16" in run(*arguments, "--rank", 4).stderr


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
    assert result.stderr.count("rounded") == 1 and "float32 rounds less" in result.stderr
    said = float(re.findall(r"rounded once to float16: (\S+) of the change", result.stderr)[0])
    assert types(output) == {"F16"} and said == pytest.approx(distance(output, (pair[0], 0.8), (pair[1], 1)), rel=0.05)
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
        (["--base", "vignette", "--text-encoder", "0"], "--text-encoder is given and --base is vignette"),
        (["--base", "vignette", "--partial"], "--partial is given and --base is vignette"),
        (["--base", "vignette", "--blocks", "MIDD"], "--blocks is given and --base is vignette"),
        (["--base", "vignette", "--rank", "0"], "allowed"),
    ],
)
def test_refused(run, pair, tmp_path, options, message):
    result = run("merge", *pair, "--output", tmp_path / "m.safetensors", *options)
    assert result.exit_code == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "m.safetensors").exists()


def test_a_recipe_remembers_style_type_family_and_what_was_left_out(run, pair, tmp_path):
    tensors = load_file(pair[0]) | {"lora_unet_nothing.strange": torch.ones(2)}
    save_file(tensors, pair[0])
    first, again = tmp_path / "m.safetensors", tmp_path / "again" / "again.safetensors"
    options = ["--to", "comfy", "--dtype", "bfloat16", "--partial", "--family", "stable_diffusion"]
    made = run("merge", f"{pair[0]}@0.3", pair[1], "--output", first, *options)
    assert made.exit_code == 0 and "left out: 'lora_unet_nothing" in made.stderr, made.stderr
    result = run("merge", "--recipe", first, "--output", again)
    assert result.exit_code == 0 and "left out: 'lora_unet_nothing" in result.stderr, result.stderr
    assert load_file(first).keys() == load_file(again).keys() and types(again) == {"BF16"}
    assert json.loads(read_header(again).metadata[RECIPE_KEY])["settings"] == {
        "style": "comfy", "dtype": "bfloat16", "family": "stable_diffusion", "partial": True,
    }  # fmt: skip
    assert all(torch.equal(tensor, load_file(again)[key]) for key, tensor in load_file(first).items())


@pytest.mark.parametrize(
    "option", ["--scale=0.5", "--algorithm=mean", "--rank=4", "--text-encoder=0", "--only=attention", "--partial"]
)
def test_options_that_a_recipe_says_are_refused_beside_it(run, pair, tmp_path, option):
    result = run("merge", "--recipe", pair[0], "--output", tmp_path / "m.safetensors", option)
    name = option.partition("=")[0]
    assert result.exit_code == 2 and f"{name} is given and --recipe is" in result.stderr


def test_a_recipe_overwrites_neither_itself_nor_its_files(run, pair, tmp_path):
    first = tmp_path / "m.safetensors"
    assert run("merge", *pair, "--output", first).exit_code == 0
    for output in (first, *pair):
        before = output.read_bytes()
        result = run("merge", "--recipe", first, "--output", output, "--overwrite")
        assert result.exit_code == 2 and "is one of the files that are merged" in result.stderr
        assert output.read_bytes() == before


def test_the_style_is_that_of_the_first_file_as_given(run, pair, tmp_path):
    write_lora(replace(read_lora(pair[1]), differences={}), tmp_path / "z.safetensors", style="diffusers")
    files, output = (tmp_path / "z.safetensors", pair[0]), tmp_path / "m.safetensors"
    result = run("merge", *files, "--output", output)
    assert result.exit_code == 2 and "--to names the style, which is else that of the first file" in result.stderr
    assert run("merge", *files, "--output", output, "--only", "attention").exit_code == 0
    assert read_lora(output).style == "diffusers"
    assert run("merge", *reversed(files), "--output", output, "--overwrite").exit_code == 0
    assert read_lora(output).style == "kohya"


@pytest.mark.parametrize(
    ("tail", "options", "reason"),
    [
        ("@0", [], "every file has strength 0"),
        (";blocks=NONE", [], "strengths and block weights of all changed layers are 0"),
        ("", ["--blocks", "NONE"], "strengths and block weights of all changed layers are 0"),
        ("", ["--scale", 0], "the strength of the whole is 0"),
    ],
)
def test_a_merge_that_leaves_nothing_is_refused(run, pair, tmp_path, tail, options, reason):
    tail = f"@1{tail}" if tail.startswith(";") else tail
    result = run("merge", *(f"{path}{tail}" for path in pair), "--output", tmp_path / "m.safetensors", *options)
    assert result.exit_code == 2 and f"the merge leaves nothing: {reason}" in result.stderr, result.stderr
    assert not (tmp_path / "m.safetensors").exists()


def test_suffixes_of_outputs(run, pair, tmp_path):
    assert run("merge", *pair, "--output", tmp_path / "m.SAFETENSORS").exit_code == 0
    assert types(tmp_path / "m.SAFETENSORS") == {"F16"}
    for name in ("m.ckpt", "m.pt", "m.Gguf"):
        result = run("merge", *pair, "--output", tmp_path / name)
        assert result.exit_code == 2 and "allowed are a LoRA file, as in m.safetensors, and a folder" in result.stderr
        assert not (tmp_path / name).exists()


def test_the_recipe_and_trigger_words_are_inspected(run, tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        path = written(tmp_path, name, seed)
        save_file(load_file(path), path, {"modelspec.trigger_phrase": f"word {name}"})
    output = tmp_path / "m.safetensors"
    files = [tmp_path / "b.safetensors", f"{tmp_path / 'a.safetensors'}@0.8:0.5"]
    assert run("merge", *files, "--output", output).exit_code == 0
    shown = " ".join(run("inspect", output).stdout.split())
    assert "word b, word a" in shown and "sum of a (0.8; te=0.5), b (1)" in shown


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
