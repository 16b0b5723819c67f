"""What a plain installation must be able to do, and what an import brings along."""

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import orthoplex
from orthoplex import activations, concepts, files, models, training
from tests.pico import make_concept

ROOT = Path(__file__).parents[1]
EXTRAS = ("evaluation", "charts", "costs", "faces", "prompts")
QUICK = ("steps=2", "batch_size=2", "slots=4", "sample_every=0", "num_inference_steps=1")


@pytest.fixture(scope="module")
def hidden():
    """Code that hides every package that only an extra brings, and what such packages bring in turn."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    packages = [entry.split(">")[0].replace("-", "_") for extra in EXTRAS for entry in extras[extra]]
    assert {"matplotlib", "peft", "compel"} <= {*packages}
    return f"import sys; sys.modules.update(dict.fromkeys({[*packages, 'sklearn', 'scipy']!r}))\n"


def python(code, *arguments, folder=ROOT):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("room", "absent"),
    [
        ("orthoplex", ("torch", "numpy", "typer")),
        ("orthoplex.vignette", ("torch", "numpy", "typer")),
        ("orthoplex.files", ("torch", "numpy", "safetensors", "PIL")),
        ("orthoplex.options", ("torch", "numpy", "safetensors", "PIL")),
        ("orthoplex.concepts", ("torch", "numpy", "safetensors", "PIL")),
        ("orthoplex.cli", ("torch", "numpy", "safetensors", "PIL")),
        ("orthoplex.merging", ("diffusers", "transformers", "matplotlib", "peft")),
        ("orthoplex.models", ("torch", "diffusers", "transformers")),
        ("orthoplex.activations", ("torch", "diffusers", "transformers")),
        ("orthoplex.training", ("torch", "diffusers", "transformers")),
        ("orthoplex.benchmark", ("matplotlib", "sklearn")),
    ],
)
def test_an_import_brings_no_more_than_it_needs(room, absent):
    loaded = json.loads(python(f"import json, {room}; print(json.dumps(list(sys.modules)))"))
    assert room in loaded and not {*absent} & {*loaded}


@pytest.mark.parametrize("room", [activations, concepts, files, models, training], ids=lambda room: room.__name__)
def test_names_that_are_imported_when_asked_for_are_there(room):
    assert all(getattr(room, name) is not None for name in room.__all__)
    modules = {path.stem for path in Path(room.__file__).parent.glob("*.py")}
    assert not modules & {*room.__all__}  # an imported module would stand in the place of the name
    with pytest.raises(AttributeError, match=f"module '{room.__name__}' has no attribute 'nothing'"):
        _ = room.nothing


def test_a_merge_of_the_shipped_files_builds_no_network(tmp_path):
    code = """
import json
from pathlib import Path
from orthoplex import vignette
from orthoplex.activations import merge_to_folder
names = [sample.name for sample in vignette.sample_concepts()]
files = [(vignette.concept_file(name, method="orthogonal"), 1.0) for name in names]
merged = merge_to_folder("vignette", files, Path("merged"))
print(json.dumps([merged.recipe.algorithm, list(sys.modules)]))
"""
    algorithm, loaded = json.loads(python("import sys\n" + code, folder=tmp_path))
    assert algorithm == "least-squares" and not {"diffusers", "transformers", "peft", "accelerate"} & {*loaded}
    assert (tmp_path / "merged" / "recipe.json").is_file()


def test_merging_generating_and_erasure_load_nothing_of_training(pico, pico_folder, tmp_path):
    concepts.save_concept(make_concept(pico, "anna", selection="cross-attention-kv"), tmp_path / "anna.safetensors")
    base = ("--base", str(pico_folder))
    calls = [
        ["silence", "anna.safetensors", "--output", "quiet.safetensors", *base],
        ["merge", "quiet.safetensors", "anna.safetensors@0", "--output", "merged", *base],
        ["generate", "<anna>", "--output", "a.png", "--concept", "quiet.safetensors", "--steps", "1", *base],
    ]
    code = """
import json
from orthoplex.cli import app
for arguments in json.loads(sys.argv[1]):
    app(arguments, standalone_mode=False)
print(json.dumps(list(sys.modules)))
"""
    loaded = json.loads(python("import sys\n" + code, json.dumps(calls), folder=tmp_path).splitlines()[-1])
    assert (tmp_path / "merged" / "model_index.json").is_file() and (tmp_path / "a.png").is_file()
    assert "orthoplex.activations" in loaded and not [name for name in loaded if name.startswith("orthoplex.training")]


def test_the_demo_can_be_imported_without_extras_and_its_encoder_names_one(hidden):
    code = """
import orthoplex.benchmark.demo_run
from orthoplex.benchmark.settings import EncoderSettings
from orthoplex.errors import MissingExtraError
try:
    EncoderSettings().build()
except MissingExtraError as error:
    print(error.extra)
"""
    assert python(hidden + code) == "evaluation\n"


def test_an_experiment_without_charts_names_the_extra_before_any_work(hidden, tmp_path):
    code = """
from orthoplex.benchmark import run
from orthoplex.errors import MissingExtraError
try:
    next(run("nowhere.toml", results="results", work="work"))
except MissingExtraError as error:
    print(error.extra)
"""
    assert python(hidden + code, folder=tmp_path) == "charts\n"


def test_the_way_to_a_picture_needs_no_extra(hidden, pico_folder, tmp_path):
    """Train, inspect, merge and generate, one after the other, on a tiny pipeline."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, pixels in enumerate(np.random.default_rng(3).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(pictures / f"{number}.png")
    base = ("--base", str(pico_folder))
    options = [part for entry in (*QUICK, "erasure=0") for part in ("--set", entry)]
    calls = [
        ["train", "pictures", "--name", "anna", "--class-word", "person", *base, *options],
        ["inspect", "anna.safetensors"],
        ["merge", "anna.safetensors", "--output", "merged", *base],
        ["generate", "<anna>", "--output", "a.png", "--concept", "anna.safetensors", "--steps", "1", *base],
    ]
    code = """
import json
from orthoplex.cli import app
for arguments in json.loads(sys.argv[1]):
    app(arguments, standalone_mode=False)
"""
    python(hidden + code, json.dumps(calls), folder=tmp_path)
    assert (tmp_path / "merged" / "model_index.json").is_file() and (tmp_path / "a.png").is_file()


PACKAGES = sorted(path.parent for path in Path(orthoplex.__file__).parent.rglob("__init__.py"))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_no_package_defines_a_name_of_a_module_in_it(package):
    """Importing the module later would put it in the place of the name; a name that comes from it is safe."""
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ImportFrom):
            names = {alias.asname or alias.name for alias in node.names}
            defined |= names - {(node.module or "").rpartition(".")[2]}
    modules = {path.stem for path in package.glob("*.py")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    assert not defined & modules
