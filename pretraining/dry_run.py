"""Try `make base-gpu` without a GPU: `python -m pretraining.dry_run`.

In a fresh checkout of the last commit, with nothing but the file of drawings, it trains for a few steps on the CPU,
is killed, goes on from what it had packed alone, ends and packs its weights. The record goes to `--output`. This
checkout's `.venv` is used as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from orthoplex.files import write_json
from pretraining import assets
from pretraining.checkpoint import kept_number
from pretraining.packing import LOG, RUN, WEIGHTS

#: few samples, each step logged and kept, nothing compiled
SETTINGS = ("DEVICE=cpu", "WORKERS=2", "MORE=--painted-window 64 --eager --log-every 1 --save-every 1")


def fresh_checkout(folder: Path) -> None:
    """The last commit, with the link to this checkout's environment."""
    archive = subprocess.run(["git", "archive", "HEAD"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    (folder / ".venv").symlink_to(Path(".venv").resolve())
    (folder / "work").mkdir()


def lines(folder: Path) -> list[dict]:
    """The training's log."""
    log = folder / "work" / LOG
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def killed(command: list[str], folder: Path, after: int) -> int:
    """Run until the log has so many lines, then kill all its processes; returns the samples in the checkpoint.

    Raises:
        RuntimeError: When it ends before.
    """
    process = subprocess.Popen(command, cwd=folder, start_new_session=True)
    while len(lines(folder)) < after:
        if process.poll() is not None:
            raise RuntimeError(f"{shlex.join(command)} ended after {len(lines(folder))} lines; allowed are {after}")
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return kept_number(folder / "work" / "denoiser.pt", "samples")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("results/vignette/next/gpu-dry-run.json"))
    parser.add_argument("--samples", type=int, default=512)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.monotonic()
        fresh_checkout(folder)
        art = assets.pack(folder / "work" / "art.tar.xz")
        make = ["make", "-o", "pretraining-env", "base-gpu", f"SAMPLES={options.samples}", "PACKED=packed", *SETTINGS]
        kept = killed(make, folder, after=2)
        pack = [".venv/bin/python", "-m", "pretraining.train", "pack", "--packed", "packed"]
        subprocess.run(pack, cwd=folder, check=True)
        (folder / "work" / "denoiser.pt").unlink()
        subprocess.run(make, cwd=folder, check=True)
        told = {
            "command": shlex.join(make),
            "bytes_of_drawings": art,
            "samples_when_killed": kept,
            "restarted_from_packed_files_at": json.loads((folder / "packed" / RUN).read_text())["restarted"],
            "samples_at_the_end": json.loads((folder / "packed" / RUN).read_text())["samples"],
            "bytes_of_packed_weights": (folder / "packed" / WEIGHTS).stat().st_size,
            "log": lines(folder),
            "seconds": round(time.monotonic() - began),
        }
        write_json(options.output, told)
        print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
