"""Timed merges whose Gram matrices come from the work folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from torch import Tensor

from orthoplex.activations import merge_for
from orthoplex.benchmark.workspace import Workspace
from orthoplex.concepts import Concept
from orthoplex.merging import AUTO, Merge
from orthoplex.models import Foldable


def timed_merge(
    workspace: Workspace,
    pairs: Sequence[tuple[Concept, float]],
    *,
    algorithm: str = AUTO,
    options: Mapping[str, object] | None = None,
    scale: float = 1.0,
    use_stored: bool = True,
) -> tuple[Merge, float]:
    """Return `merge_for` on the workspace's base, and the seconds of it, as if nothing were known yet.

    Args:
        workspace: The base, and where Gram matrices are kept with the time that they took.
        pairs: The concepts with their strengths.
        algorithm: See `merge_for`.
        options: See `merge_for`.
        scale: See `merge_for`.
        use_stored: True takes Gram matrices from the work folder; False leaves them to `merge_for`.
    """
    corrections = [0.0]

    def gather(change: Foldable | None, layers: Sequence[str], prompts: Sequence[str]) -> Mapping[str, Tensor]:
        asked = time.perf_counter()
        gathered = workspace.grams(change, layers, prompts)
        corrections.append(gathered.seconds - (time.perf_counter() - asked))
        return gathered.grams

    started = time.perf_counter()
    merge = merge_for(
        workspace.base, pairs, algorithm=algorithm, options=options, scale=scale, gather=gather if use_stored else None
    )
    return merge, time.perf_counter() - started + sum(corrections)
