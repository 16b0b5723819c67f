"""What a base's layers see of the text under foreign prompts: one matrix a base, computed once and stored.

All keys and values of cross-attention see the same features of the text, so a base has one Gram matrix ``G₀ = E[x xᵀ]``
of them. Whoever has the base at hand computes it; from then on merges of its concepts need no model. The embedded base
brings its own.
"""

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from orthoplex import vignette
from orthoplex.errors import OutputError
from orthoplex.files import cache_folder, write_tensors

_NAME = "gram"


@dataclass(frozen=True, eq=False)
class ForeignGram:
    """What layers that read the text see under a base's foreign prompts.

    Attributes:
        gram: ``E[x xᵀ]``, ``(in, in)`` float32.
        key: Stands for the prompts, and for what the base's words mean; see ``prompts_key``.
    """

    gram: Tensor
    key: str


def prompts_key(prompts: Sequence[str], ids: Tensor, embeddings: Tensor) -> str:
    """Stand for prompts and the words that a base reads in them, which the base's hash leaves out.

    Args:
        prompts: The n prompts.
        ids: Their token ids, ``(n, length)``.
        embeddings: The embeddings of these tokens, all numbers of a prompt side by side, ``(n, numbers)``.
    """
    digest = hashlib.sha256("\n".join(prompts).encode())
    digest.update(ids.cpu().contiguous().numpy().tobytes())
    digest.update(embeddings.detach().half().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def stored_foreign_gram(base_hash: str, key: str | None = None) -> ForeignGram | None:
    """Return what is stored for a base.

    Bases of one hash may differ in what the hash leaves out, their words. Without a key, what is stored is returned
    only if there is one such thing.

    Args:
        base_hash: The hash of the base's identity.
        key: See ``prompts_key``; None for callers that have no base at hand.

    Returns:
        What is stored; None where nothing is, more than one thing is, or it is damaged.
    """
    folder = cache_folder() / "foreign-inputs"
    paths = [_path(base_hash, key)] if key is not None else sorted(folder.glob(f"{base_hash}-*.safetensors"))
    read = (_read(path, base_hash) for path in (vignette.foreign_inputs_file(), *paths))
    stored = {item.key: item for item in read if item is not None and key in (None, item.key)}
    return next(iter(stored.values())) if len(stored) == 1 else None


def store_foreign_gram(base_hash: str, gram: ForeignGram, path: Path | None = None) -> None:
    """Store what a base answers; where that cannot be written, it is merely computed again the next time.

    Args:
        base_hash: The hash of the base's identity.
        gram: What is stored.
        path: The file; None for the one in the user's cache folder.
    """
    with contextlib.suppress(OutputError):
        file = _path(base_hash, gram.key) if path is None else path
        write_tensors({_NAME: gram.gram}, file, {"base": base_hash, "key": gram.key})


def _path(base_hash: str, key: str) -> Path:
    return cache_folder() / "foreign-inputs" / f"{base_hash}-{key[:16]}.safetensors"


def _read(path: Path, base_hash: str) -> ForeignGram | None:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("base") != base_hash or "key" not in metadata:
                return None
            return ForeignGram(file.get_tensor(_NAME), metadata["key"])
    except (OSError, SafetensorError):
        return None
