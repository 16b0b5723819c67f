"""``orthoplex doctor``."""

from __future__ import annotations

import json


def test_doctor_speaks_in_lines_and_in_json(run):
    result = run("doctor")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and len(lines) >= 10, result.stderr
    assert lines[0].startswith("orthoplex ") and lines[-1].startswith("too large: ")
    values = json.loads(run("doctor", "--json").stdout)
    assert {"versions", "devices", "extras", "fits", "hub_names", "disk_free_bytes"} <= values.keys()
    assert {fit["version"] for fit in values["fits"]} >= {"sd1", "sdxl", "flux1", "krea2"}
