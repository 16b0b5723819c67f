"""How fast a bank is, and whether its ledger holds while writers are killed.

    python -m benchmarks.bank --output results/bank.json

Listing is timed with 10,000 concepts, as a call and as a whole command beside the shortest one. For the torture, two
processes add small concepts with slots from the ledger of one bank; one of them is killed at a random moment and begun
anew, a hundred times. Both write down what they were told. Afterwards the ledger is read, no slot may have been given
twice, and everything that was told must be there.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from orthoplex.adapters import LowRank
from orthoplex.benchmark.machine import machine
from orthoplex.concepts import BaseIdentity, Concept, Manifest, load_concept
from orthoplex.concepts.bank import Bank, BankCache, BankEntry, StoredFile, add_concept
from orthoplex.concepts.bank.ledger import _line
from orthoplex.files import check_writable, write_json

BASE = BaseIdentity(family="sd1", hash="ab" * 32, name="base")
ADAPTER = {"method": "orthogonal", "basis": "slot", "rank": 1}
PARTITION = "basis=slot, rank=1"
WIDTH = 1 << 14
"""Inputs of the one layer: more slots than the torture gives."""
WORKER = """
import sys, time
from pathlib import Path
from benchmarks.bank import PARTITION, small_concept
from orthoplex.concepts.bank import Bank, add_concept
bank, worker, told, pause = Bank(sys.argv[1]), sys.argv[2], open(sys.argv[3], "a"), Path(sys.argv[4])
told.write("ready\\n"); told.flush()
for number in range(10**6):
    while pause.exists():
        time.sleep(0.001)
    name = f"{worker}-{number}"
    slot = bank.reserve(name, PARTITION)
    told.write(f"slot {name} {slot}\\n"); told.flush()
    entry = add_concept(bank, small_concept(name, slot))
    told.write(f"added {name} {entry.content_hash}\\n"); told.flush()
"""
LONGEST_LIFE = 0.3
"""Seconds that a writer has at most from its first slot until it is killed."""


def small_concept(name: str, slot: int | None = None) -> Concept:
    """Return a concept of one narrow layer, whose content is its name's."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    change = LowRank(torch.randn(2, 1, generator=generator), torch.zeros(1, WIDTH))
    manifest = Manifest(
        name=name,
        kind="person",
        class_word="person",
        trigger=f"<{name}>",
        base=BASE,
        method="orthogonal",
        slot=slot,
        adapter={} if slot is None else {**ADAPTER, "slot": slot},
    )
    return Concept(manifest, {"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k": change})


def times(action: Callable[[], object], rounds: int) -> dict[str, float]:
    """Return the fastest and the median of some calls."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return {"fastest": min(seconds), "median": statistics.median(seconds)}


def listing(folder: Path, count: int, rounds: int) -> dict[str, Any]:
    """Time how a bank of many concepts is listed; no file of theirs is there."""
    Bank.create(folder, BASE)
    entry = BankEntry("a", "person", "person", "<a>", "0" * 64, 4, None, "", None, (StoredFile("a", 1, "0" * 64),))
    entries = [replace(entry, name=f"c{number}", trigger=f"<c{number}>") for number in range(count)]
    lines = [_line({"fact": "add", "entry": item.to_json(), "base": asdict(BASE)}) for item in entries]
    with (folder / "ledger.jsonl").open("ab") as file:
        file.write(b"".join(lines))  # at once: each alone would wait for the disk
    assert len(Bank(folder)) == count

    def command(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "orthoplex", *arguments], check=True, capture_output=True)

    opened = Bank(folder)
    return {
        "concepts": count,
        "open": times(lambda: Bank(folder), rounds),
        "call": times(lambda: list(Bank(folder)), rounds),
        "list_again": times(lambda: list(opened), rounds),
        "command": times(lambda: command("bank", "list", str(folder), "--json"), rounds),
        "shortest_command": times(lambda: command("--version"), rounds),
    }


def adding(folder: Path, count: int) -> dict[str, Any]:
    """Time how concepts are added, loaded and found in memory."""
    bank = Bank.create(folder)
    concepts = [small_concept(f"c{number}") for number in range(count)]
    began = time.perf_counter()
    for concept in concepts:
        add_concept(bank, concept)
    seconds = time.perf_counter() - began
    cache = BankCache(bank)
    first, second = iter(range(count)), iter(range(count))
    misses = times(lambda: cache.load(f"c{next(first)}"), count)
    hits = times(lambda: cache.load(f"c{next(second)}"), count)
    return {"added_a_second": count / seconds, "load": misses, "load_from_memory": hits}


def kill(folder: Path, kills: int) -> list[Path]:
    """Let two processes add, kill one again and again, and return the files of what they were told."""
    bank_folder, rng = folder / "bank", random.Random(0)
    Bank.create(bank_folder)
    told = [folder / f"told-{number}.txt" for number in range(kills + 1)]
    pause = folder / "pause"  # nobody adds while a writer starts

    def start(worker: int) -> subprocess.Popen[bytes]:
        arguments = [str(bank_folder), f"w{worker}", str(told[worker]), str(pause)]
        return subprocess.Popen([sys.executable, "-c", WORKER, *arguments])

    def check(process: subprocess.Popen[bytes], worker: int) -> None:
        if process.poll() is not None:
            raise RuntimeError(f"writer w{worker} ended by itself with exit code {process.returncode}")

    def wait(process: subprocess.Popen[bytes], worker: int, text: str) -> None:
        while not told[worker].exists() or text not in told[worker].read_text():
            check(process, worker)
            time.sleep(0.001)

    pause.touch()
    with start(0) as steady:
        try:
            wait(steady, 0, "ready")
            for number in range(1, kills + 1):
                pause.touch()
                with start(number) as killed:
                    try:
                        wait(killed, number, "ready")
                        pause.unlink()
                        wait(killed, number, "slot")
                        time.sleep(rng.uniform(0, LONGEST_LIFE))
                        check(killed, number)
                    finally:
                        killed.kill()
                check(steady, 0)
        finally:
            steady.kill()
    return told


def torture(folder: Path, kills: int) -> dict[str, Any]:
    """Kill writers, and look at what is left."""
    told = kill(folder, kills)
    lines = [line.split() for path in told for line in path.read_text().splitlines()]
    slots = {name: int(value) for kind, name, value in (line for line in lines if len(line) == 3) if kind == "slot"}
    added = {name: value for kind, name, value in (line for line in lines if len(line) == 3) if kind == "added"}
    bank = Bank(folder / "bank")
    lost = [name for name, value in added.items() if name not in bank or bank[name].content_hash != value]
    unlike = [entry.name for entry in bank if load_concept(bank.path(entry.name)).content_hash != entry.content_hash]
    owners = Counter(item.slot for item in [*bank, *bank.reservations] if item.slot is not None)
    problems = bank.verify()
    cleaned = bank.clean()
    return {
        "kills": kills,
        "slots_told_to_killed_writers": sum(not name.startswith("w0-") for name in slots),
        "concepts_told_to_the_steady_writer": sum(name.startswith("w0-") for name in added),
        "slots_told": len(slots),
        "slots_told_twice": len(slots) - len(set(slots.values())),
        "slots_with_two_owners": sum(count > 1 for count in owners.values()),
        "concepts_told": len(added),
        "concepts_in_the_bank": len(bank),
        "concepts_told_and_lost": len(lost),
        "concepts_of_other_content": len(unlike),
        "files_left_over": len(cleaned),
        "other_problems": sum(not problem.is_left_over for problem in problems),
        "problems_after_cleaning": len(bank.verify()),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", type=int, default=10_000)
    parser.add_argument("--added", type=int, default=200)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("results/bank.json"))
    options = parser.parse_args(arguments)
    check_writable(options.output)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured = {
            "listing": listing(folder / "many", options.concepts, options.rounds),
            "adding": adding(folder / "added", options.added),
            "torture": torture(folder, options.kills),
        }
    write_json(options.output, {"command": "python -m benchmarks.bank", "machine": machine(), **measured})
    sys.stdout.write(f"{options.output}: {measured}\n")


if __name__ == "__main__":
    main()
