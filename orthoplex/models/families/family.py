"""The interface of families of bases; nothing above ``models`` reaches into a pipeline."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from orthoplex.concepts import BaseIdentity
from orthoplex.concepts.layer_table import LayerTable, Sees, component_of, layer_table
from orthoplex.errors import BaseModelError, ConfigurationError, PromptError
from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.item_sizes import ItemSizes
from orthoplex.models.families.layouts.layout import Layout
from orthoplex.models.families.pictures import PictureRequest, Pictures, PictureStep
from orthoplex.models.gradient_checkpointing import recomputed
from orthoplex.models.inference_steps import StepRange
from orthoplex.models.layer_names import SELECTIONS, all_linear_layers
from orthoplex.models.memory_format import channels_first, channels_last
from orthoplex.models.prompts.prompt import Prompt
from orthoplex.models.schedules import Sampler, Schedule
from orthoplex.models.weight_files import WeightFiles
from orthoplex.models.words.words import Reader, Words


@final
@dataclass(frozen=True, eq=False)
class Layer:
    """A layer of a base that a concept may change, and the kind of its input."""

    linear: nn.Linear
    sees: Sees


class Family(ABC):
    """A loaded pipeline, as the rest of the package sees it.

    Latents are ``(n, c, h, w)`` for callers, however a denoiser packs them; prompts are ``Conditioning``.
    """

    changed: ClassVar[tuple[str, ...]]
    """The components that concepts may change; the base's hash is that of their weights."""
    weighed: ClassVar[tuple[str, ...]]
    """The components with weights, in the order in which they are loaded."""
    text_encoders: ClassVar[tuple[str, ...]]
    """Those of the changed components that read prompts."""
    feature_encoder: ClassVar[str]
    """The text encoder whose positions are those of ``Conditioning.features``."""
    tokenizers: ClassVar[tuple[str, ...]]
    """The components that are tokenizers, in the order of ``readers``."""
    layout: ClassVar[Layout]
    """The layers of such bases, and what they are called: the layer table is written from it."""

    def __init__(self, pipeline: Any, identity: BaseIdentity) -> None:  # noqa: ANN401  (pipelines share no typed parent)
        """Take a pipeline.

        Args:
            pipeline: Of the class that ``FAMILIES`` has for this family.
            identity: Which base it is.

        Raises:
            BaseModelError: When there is no table of the layers of such bases.
        """
        table = layer_table(identity.family)
        if table is None:
            raise BaseModelError(
                f"base '{identity.name}' is of family '{identity.family}', whose layers no table knows; allowed are "
                "those in orthoplex/concepts/layers"
            )
        self.pipeline, self.identity, self.table = pipeline, identity, table

    pipeline: Any
    identity: BaseIdentity
    table: LayerTable

    # loading

    @classmethod
    @abstractmethod
    def load(
        cls,
        folder: Path,
        index: Mapping[str, Any],
        files: Mapping[str, WeightFiles | None],
        dtype: torch.dtype,
    ) -> Any:  # noqa: ANN401  (pipelines share no typed parent)
        """Load a pipeline, complete or not at all, that draws no bars.

        Args:
            folder: The pipeline folder.
            index: The values of its ``model_index.json``.
            files: Component of ``weighed`` to its files, or None to let the library search.
            dtype: Data type of the weights.

        Raises:
            BaseModelError: If a weight is missing or of another shape; a ``ProblemsError`` where several are wrong.
            Exception: Whatever the libraries raise for a damaged folder.
        """

    @classmethod
    @abstractmethod
    def parts(cls) -> tuple[str, ...]:
        """Return the components that are read of a folder: those with weights, then the others, as tokenizers."""

    @classmethod
    @abstractmethod
    def version(cls, pipeline: Any) -> str:  # noqa: ANN401  (pipelines share no typed parent)
        """Return which version of the family a pipeline is, as concepts name it: a version of the layer table."""

    @classmethod
    @abstractmethod
    def check(cls, pipeline: Any) -> None:  # noqa: ANN401  (pipelines share no typed parent)
        """Refuse a loaded pipeline whose parts do not belong together.

        Raises:
            BaseModelError: Says what does not fit; a ``ProblemsError`` where several things do not.
        """

    # layers

    def components(self) -> dict[str, nn.Module]:
        """The components that concepts may change, by name."""
        return {component: self.pipeline.components[component] for component in self.changed}

    @property
    @abstractmethod
    def denoiser(self) -> nn.Module:
        """The network that predicts."""

    @abstractmethod
    def select(self, selection: str, *, text_encoder: bool) -> dict[str, nn.Linear]:
        """Return the linear layers of one of ``SELECTIONS``, in the order of the model; none where there are none."""

    @final
    def layers(self, selection: str, *, text_encoder: bool = False) -> dict[str, Layer]:
        """Return the layers of a selection, by name, in the order of the model.

        Args:
            selection: ``cross-attention-kv`` (keys and values of the text), ``cross-attention`` (with queries and
                output), ``attention`` (self-attention too), or ``linear`` (every linear layer of the blocks).
            text_encoder: Also the text encoders' layers of the same kind.

        Raises:
            ConfigurationError: For an unknown selection, or one that the base has no layer of.
        """
        if selection not in SELECTIONS:
            raise ConfigurationError(f"layer selection '{selection}' is unknown, allowed are {', '.join(SELECTIONS)}")
        chosen = self.select(selection, text_encoder=text_encoder)
        if not any(component_of(name) not in self.text_encoders for name in chosen):
            available = [other for other in SELECTIONS if self.select(other, text_encoder=False)]
            raise ConfigurationError(
                f"base '{self.identity.name}' has no layers '{selection}', allowed are {', '.join(available) or 'none'}"
            )
        return {name: Layer(linear, self.table.sees(name)) for name, linear in chosen.items()}

    @final
    def every_layer(self) -> dict[str, nn.Linear]:
        """Every linear layer that a concept's file may name."""
        return all_linear_layers(self.components())

    @final
    def feature_layers(self) -> dict[str, nn.Linear]:
        """The denoiser's layers that see the text alone; none in a base that mixes text and picture throughout."""
        return {name: linear for name, linear in self.every_layer().items() if self.table.reads_features(name)}

    @abstractmethod
    def cross_attention(self) -> Mapping[str, nn.Module]:
        """The cross-attention layers by name, in the order in which the denoiser uses them; none in other denoisers.

        Each is called with the keyword ``encoder_hidden_states`` and has linear layers ``to_k`` and ``to_v``. Only in
        such layers can tokens have vectors, or keys and values, of single layers.
        """

    @final
    def is_text_encoders(self, layer: str) -> bool:
        """Return True if a layer, by its name, is a text encoder's."""
        return component_of(layer) in self.text_encoders

    @final
    def text_layers(self, layers: Iterable[str]) -> frozenset[str]:
        """Those of some layers that see the text alone."""
        return frozenset(layer for layer in layers if self.table.sees(layer) == "text")

    def reader_of(self, layer: str) -> str:
        """Return the text encoder of a text layer's positions; empty for those of ``Conditioning.features``."""
        return component_of(layer) if self.is_text_encoders(layer) else ""

    @final
    def see_text_alone(self, layers: Iterable[str]) -> bool:
        """Return True if no layer among these sees pictures."""
        return all(self.table.sees(layer) == "text" for layer in layers)

    # text

    @property
    @abstractmethod
    def readers(self) -> Sequence[Reader]:
        """The text encoders with their tokenizers, in the order in which their features lie side by side."""

    @final
    @property
    def words(self) -> Words:
        """How the text encoders read prompts, with the tokens that are in the base now."""
        return Words(self.readers, seen=self.feature_encoder)

    @final
    def condition(self, prompts: Sequence[str] | Tensor) -> Conditioning:
        """Return texts, or token ids ``(n, length)`` of ``words.ids``, as the denoiser takes them, with gradients."""
        return self.encode(prompts if isinstance(prompts, Tensor) else self.words.ids(prompts))

    @abstractmethod
    def encode(self, ids: Tensor) -> Conditioning:
        """Return token ids of prompts, ``(n, length)``, as the denoiser takes them; see ``condition``."""

    def condition_weighted(self, prompt: Prompt) -> Conditioning:
        """Return one prompt with weights, ``BREAK`` or any length as the denoiser takes it; some families read none.

        Raises:
            PromptError: If the family reads plain prompts alone, or a concept has more vectors than an encoder reads.
            MissingExtraError: If a package for it is not installed.
        """
        base = f"base '{self.identity.name}'"
        if not prompt.is_plain:
            raise PromptError(
                f"{prompt.shown} has weights or BREAK, which {base} does not read; write the words alone, with "
                r"'\(' for a bracket that is text"
            )
        room = self.words.room(prompt.text)
        raise PromptError(f"{prompt.shown} has {room.length} tokens, {base} reads at most {room.limit}")

    def with_sizes(self, conditioning: Conditioning, sizes: Sequence[ItemSizes]) -> Conditioning:
        """Return prompts that hold the sizes of their pictures; most denoisers read none.

        Args:
            conditioning: Of n prompts.
            sizes: Of the n pictures.
        """
        return conditioning

    @final
    @torch.no_grad()
    def requested(self, prompt: Prompt) -> str | Conditioning:
        """Return a prompt as a ``PictureRequest`` takes it; a plain one stays text.

        It reads with the concepts, and on the weights, that are in the base now.

        Raises:
            PromptError: See ``condition_weighted``.
            MissingExtraError: See ``condition_weighted``.
        """
        is_plain = prompt.is_plain and self.words.reads_whole(prompt.text)
        return prompt.text if is_plain else self.condition_weighted(prompt)

    @property
    @abstractmethod
    def text_width(self) -> int:
        """The number of features at a position of ``Conditioning.features``."""

    @property
    @abstractmethod
    def passes_features(self) -> bool:
        """True if layers that see the text read ``Conditioning.features`` unchanged."""

    # pictures

    @property
    @abstractmethod
    def resolution(self) -> int:
        """Width and height, in pixels, of pictures: those that the base was made for, or ``use_resolution``."""

    @property
    @abstractmethod
    def pixels_per_latent(self) -> int:
        """Width and height, in pixels, of one position of the latents."""

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of the latents of one picture at ``resolution``, ``(c, h, w)``."""

    @abstractmethod
    def use_resolution(self, pixels: int | None) -> int | None:
        """Let pictures be of another resolution, until it is called again; return the one before, None for the own.

        Args:
            pixels: Width and height; None for the base's own.

        Raises:
            ConfigurationError: If such pictures have no latents; names what is allowed.
        """

    @abstractmethod
    def latents(self, pixels: Tensor) -> Tensor:
        """Return the mean latents of pictures, as the denoiser sees them, ``(n, c, h, w)`` float32.

        Args:
            pixels: ``(n, 3, height, width)`` in [-1, 1].
        """

    @abstractmethod
    def pixels(self, latents: Tensor) -> Tensor:
        """Return the pictures of latents, ``(n, 3, height, width)``, about in [-1, 1]."""

    @final
    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw noise for pictures of the base's resolution, ``(count, c, h, w)`` float32, on the CPU."""
        return torch.randn(count, *self.latent_shape, generator=generator)

    @property
    @abstractmethod
    def schedule(self) -> Schedule:
        """The schedule that the base was trained on.

        Raises:
            BaseModelError: When the pipeline's scheduler tells of none that a loss is defined for.
        """

    @abstractmethod
    def check_inference_steps(self, name: str, value: int) -> None:
        """Refuse a number of inference steps that the base cannot do; nothing is drawn.

        Args:
            name: What the option is called.
            value: The number of steps, at least 1.

        Raises:
            ConfigurationError: Names option, value and the numbers that are allowed.
        """

    @property
    @abstractmethod
    def allowed_inference_steps(self) -> StepRange:
        """The numbers of inference steps that the base can do; asking may take a second."""

    @property
    @abstractmethod
    def least_guidance(self) -> float:
        """The ``guidance_scale`` that is no guidance: 1 in most pipelines, 0 in some."""

    @property
    @abstractmethod
    def sampler(self) -> Sampler:
        """The scheduler that makes pictures, in words."""

    @abstractmethod
    def predict(self, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the denoiser's prediction, ``(n, c, h, w)`` in the denoiser's data type; gradients flow through it.

        Args:
            noisy: Noised latents, ``(n, c, h, w)``.
            times: ``(n,)``, as ``schedule`` draws them, or ``()`` for all.
            conditioning: Of n prompts.
        """

    @abstractmethod
    def picture(self, request: PictureRequest) -> Iterator[PictureStep | Pictures]:
        """Make pictures: yield every denoising step as it is done, and last the pictures.

        A call that stops half-way leaves nothing in the pipeline. Call it, and iterate over it, within
        ``Base.locked()``. Nothing is printed.
        """

    # memory and identity

    @final
    def recomputed(self) -> AbstractContextManager[None]:
        """Inside, denoiser and text encoders compute parts a second time for gradients instead of storing them.

        Raises:
            ConfigurationError: If one of them cannot.
        """
        return recomputed([self.denoiser, *(reader.network for reader in self.readers)])

    @abstractmethod
    def convolutional(self) -> tuple[nn.Module, ...]:
        """The networks that are faster where convolutions keep the channels of a pixel together; they may be none."""

    @final
    def channels_last(self) -> None:
        """Lay the weights out as a CPU's convolutions read them faster; nothing on other devices."""
        channels_last(self.convolutional())

    @final
    def channels_first(self) -> None:
        """Lay the weights out as usual, whatever the device."""
        channels_first(self.convolutional())

    @abstractmethod
    def inputs_hash(self) -> str:
        """Hash everything besides the base's hashed weights that decides the inputs of a training; 24 hex digits."""

    @abstractmethod
    def outputs_hash(self) -> str:
        """Hash the autoencoder, which decides finished pictures besides; 64 hex digits."""
