"""The wheel holds every file of the embedded base: patterns of pyproject.toml beside what lies in the folder."""

import glob
import tomllib
from pathlib import Path

from orthoplex import vignette

FOLDER = Path(vignette.__file__).parent
PYPROJECT = FOLDER.parent.parent / "pyproject.toml"


def test_package_data_covers_every_file_of_the_vignette():
    settings = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns = settings["package-data"]["orthoplex.vignette"]
    packed = {name for pattern in patterns for name in glob.glob(pattern, root_dir=FOLDER, recursive=True)}
    files = {path.relative_to(FOLDER) for path in FOLDER.rglob("*") if path.is_file()}
    lacking = sorted(str(path) for path in files - set(map(Path, packed)) if "__pycache__" not in path.parts)
    assert not lacking
    assert len(packed) > 100  # pictures, concepts, weights
