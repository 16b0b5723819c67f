"""What a plain installation must be able to do."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_command_line_needs_no_optional_package():
    """Everything that only an extra brings is hidden; the door still opens."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {"scikit-learn": "sklearn"}
    hidden = [
        names.get(name, name.replace("-", "_"))
        for name in (
            entry.split(">")[0] for extra in ("evaluation", "charts", "costs", "faces") for entry in extras[extra]
        )
    ]
    code = f"import sys; sys.modules.update(dict.fromkeys({hidden!r})); import orthoplex.cli"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
