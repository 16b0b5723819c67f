"""Every knob of training, in one frozen dataclass; a TOML file and ``key=value`` overrides map onto it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from orthoplex.activations.erasure_options import ErasureOptions
from orthoplex.adapters import METHODS, AdapterConfig, Basis, Blocks, check_config
from orthoplex.concepts.tokens import RARE_WORD, learnings
from orthoplex.errors import ConfigurationError
from orthoplex.models import Precision
from orthoplex.options import check_field_names, check_fields, option, read_entries, read_flat_toml
from orthoplex.options.spellings import SPELLINGS, in_own_spelling
from orthoplex.training.config_checks import check_together
from orthoplex.training.presets import DEFAULT_PRESET, preset_of

_LARGEST = 1e6
"""Of factors that meet numbers of float32: their products must stay finite."""
Optimizer = Literal["adamw", "adamw-8bit"]
TokenStart = Literal["class word", "rare word", "rare and class word"]


@dataclass(frozen=True)
class TrainingConfig:
    """How one concept is trained; by default as ``orthoplex train`` does, and as the shipped concepts were.

    Attributes:
        method: A name in ``orthoplex.adapters.METHODS``.
        basis: Where the frozen directions of ``orthogonal`` and ``dual`` come from.
        blocks: Which factor of ``blockwise`` lives on a block: ``"rows"`` (of up) or ``"columns"`` (of down).
        slot: The slot of bases ``slot`` and ``half``, or the block of ``blockwise``; ``"auto"`` derives it from the
            concept's id.
        slots: How many concepts every layer shall hold; sets the proportional rank, the number of blocks and the range
            of automatic slots.
        rank: Directions per layer, or ``"proportional"``: ``⌊in_features / slots⌋``; ``full`` has none.
        alpha: The change is multiplied by ``alpha / rank``; None means 1; ``full`` ignores it.
        down_scale: Length of every frozen direction.
        duals: How many directions of the token vectors ``dual`` has.
        dual_ridge: Damping of the dual directions of method ``dual``, as a share of the mean energy of an input.
        layers: Which U-Net layers change: ``cross-attention-kv``, ``cross-attention``, ``attention`` or ``linear``;
            ``none`` for no weight at all: only the token vectors learn.
        text_encoder: True changes the text encoder's layers of the same selection, too.
        learning_rate: Of the weights; None takes the method's own, four times as much where keys and values of
            cross-attention learn alone.
        text_encoder_learning_rate: Of the text encoder's weights; None takes that of the U-Net's.
        token_learning_rate: Of the token vectors.
        num_vectors: How many tokens the concept has: ``<name>``, ``<name>_1``, ….
        token_vectors: ``"shared"``: every token has one learned vector, for all layers; ``"layer-wise"``: one for each
            cross-attention layer of the U-Net (P+, arXiv 2303.09522), which start equal; ``"keys-and-values"``: one
            that stays as it starts, and for each of these layers a learned vector more for its key and for its value;
            ``"values"``: the same with keys locked to the class word's (Perfusion, arXiv 2305.01644, in part);
            ``"masked-lora"``: one that stays as it starts, and for each of these layers a learned LoRA of its keys and
            values, which works at the token's positions only (TARA, arXiv 2508.08812, in part);
            ``"frozen"``: one that stays as it starts, so that only weights learn; ``"rare word"``: none: a rare word of
            the base's own vocabulary calls the concept, for text encoders that cannot get new words.
        token_start: Where token vectors start: ``"class word"``: at its embedding; ``"rare word"``: at a random one,
            drawn from the spread of all embeddings; ``"rare and class word"``: all tokens but the last as rare words,
            the last as the class word.
        trigger_form: ``"token"``: ``<name>``; ``"token class"``: ``<name> class_word``.
        token_norm_limit: Longest length of a token vector; None for no limit.
        steps: Optimizer steps.
        token_steps: The first of them, in which the token vectors learn alone; in the others the weights do, alone.
            0 lets both learn at once, except for ``dual``, whose directions follow the vectors; None is a third of the
            steps for ``dual`` and 0 for all others.
        batch_size: Pictures per step.
        weight_decay: AdamW's decoupled decay of the weights (not of the token vectors).
        gradient_clip: Largest norm of the gradient of each parameter group; 0 for no limit.
        warmup: Steps over which the learning rate rises linearly.
        schedule: ``"constant"`` or ``"cosine"`` (to zero at the last step).
        seed: Decides noise, timesteps, batches and starting values.
        min_snr_gamma: Weight of the loss by ``min(SNR, gamma)`` (arXiv 2303.09556); None for uniform weights.
        noise_offset: Standard deviation of an added constant per latent channel.
        caption_dropout: Share of captions replaced by the empty prompt.
        flip: True also trains on mirrored pictures; most people and places are not their mirror image.
        erasure: Weight of the penalty on the update's output for foreign inputs; 0 for none.
        erasure_form: ``"activation"``: the output that the changed layers add there, mean over all foreign prompts;
            ``"prediction"``: how far the network's prediction moves there, on a few of them at a time;
            ``"closed-form"``: not while training, but solved for once at its end (``with_erasure``), or before the
            last ``erasure_steps``.
        erasure_steps: Of the closed form: the last steps, in which the weights learn alone, in directions that are
            silent already; 0 solves at the end, after which nothing is learned again. None is
            three tenths of the steps where it can be (with frozen directions, on keys and values of cross-attention)
            and token vectors learn, so that they differ from the class word's.
        erasure_rate: The learning rate of the last ``erasure_steps``, as a factor of that of the others.
        erasure_share: Share of steps that erasure takes part in, evenly spread over those in which weights learn.
        erasure_prompts: How many foreign prompts there are.
        erasure_batch_size: Foreign inputs a step, for the prediction form; each costs what a picture of the batch does.
        prior_pictures: Pictures the base itself makes of foreign prompts, for erasure and prior preservation;
            0 takes pure noise as foreign latents. None are made where erasure sees the text alone.
        prior_weight: Extra share of the batch, and weight of its loss, that is prior pictures; 0 for none.
        sample_every: Steps between sample pictures, which are also made before the first step; 0 for none.
        sample_prompts: Prompts of the sample pictures (``{trigger}`` is substituted); empty for the kind's templates.
        num_inference_steps: Denoising steps of sample pictures.
        prior_inference_steps: Denoising steps of prior pictures; few are enough for what layers see.
        guidance_scale: Guidance of sample and prior pictures.
        checkpoint_every: Steps between checkpoints; 0 for only when interrupted.
        mixed_precision: Of training and its pictures: ``"no"``, ``"bf16"`` (autocast) or ``"auto"`` (where it is fast).
        thumbnail: The small picture in the file: ``"photo"``, the first training picture; ``"generated"``, a sample
            picture of the finished concept; ``"none"``; ``"auto"``: generated for a person, else the photo.
        gradient_checkpointing: True computes parts of the networks a second time instead of storing them: less memory,
            more time, the same result.
        optimizer: ``"adamw"``, or ``"adamw-8bit"``, whose state has a byte a number for tensors from 4096 numbers (the
            extra ``quantised``).
        gradient_accumulation_steps: Batches per optimizer step, each computed on its own; erasure counts once a step.
        report_to: ``"tensorboard"`` also writes event files, ``<stem>.tensorboard/`` beside the log (the extra
            ``tensorboard``).
        mask_weight: How much of a picture's loss counts where its mask is black, as a share of where it is white; 1
            ignores masks.
        resolution: Width and height of the pictures that are trained on, in pixels; None is the base's own.
        buckets: True lets pictures keep their shape: each is scaled and cut to the nearest of several sizes of the
            resolution's area, and every batch is of one size.
        preset: The paper whose training this is, a name in ``presets.PRESETS``. ``from_mapping`` and ``from_toml`` take
            its options where none are given; here it is a remark.

    Raises:
        ConfigurationError: For a value of the wrong type or outside its range.
    """

    method: str = "orthogonal"
    basis: Basis = "slot"
    blocks: Blocks = "rows"
    slot: int | Literal["auto"] = option("auto", lowest=0)
    slots: int = 16
    rank: int | Literal["proportional"] = "proportional"
    alpha: float | None = None
    down_scale: float = 0.5
    duals: int = 2
    dual_ridge: float = option(1e-3, above=0, highest=_LARGEST)
    layers: Literal["cross-attention-kv", "cross-attention", "attention", "linear", "none"] = "cross-attention-kv"
    text_encoder: bool = False
    learning_rate: float | None = option(None, above=0, highest=_LARGEST)
    text_encoder_learning_rate: float | None = option(None, above=0, highest=_LARGEST)
    token_learning_rate: float = option(5e-3, lowest=0, highest=_LARGEST)
    num_vectors: int = option(2, lowest=1, highest=16)
    token_vectors: str = "shared"
    token_start: TokenStart = "class word"
    trigger_form: Literal["token", "token class"] = "token class"
    token_norm_limit: float | None = option(None, above=0)
    steps: int = option(200, lowest=1)
    token_steps: int | None = option(None, lowest=0)
    batch_size: int = option(8, lowest=1)
    weight_decay: float = option(0.01, lowest=0, highest=_LARGEST)
    gradient_clip: float = option(1.0, lowest=0)
    warmup: int = option(5, lowest=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    seed: int = option(0, lowest=0, highest=2**62)
    min_snr_gamma: float | None = option(None, above=0)
    noise_offset: float = option(0.0, lowest=0)
    caption_dropout: float = option(0.0, lowest=0, highest=1)
    flip: bool = False
    erasure: float = option(30.0, lowest=0, highest=_LARGEST)
    erasure_form: Literal["activation", "prediction", "closed-form"] = "closed-form"
    erasure_steps: int | None = option(None, lowest=0)
    erasure_rate: float = option(1.0, above=0, highest=_LARGEST)
    erasure_share: float = option(1.0, above=0, highest=1)
    erasure_prompts: int = option(128, lowest=1)
    erasure_batch_size: int = option(3, lowest=1)
    prior_pictures: int = option(24, lowest=0)
    prior_weight: float = option(0.0, lowest=0, highest=1)
    sample_every: int = option(0, lowest=0)
    sample_prompts: tuple[str, ...] = ()
    num_inference_steps: int = option(20, lowest=1)
    prior_inference_steps: int = option(10, lowest=1)
    guidance_scale: float = option(4.0, lowest=0)
    checkpoint_every: int = option(0, lowest=0)
    mixed_precision: Precision = "auto"
    thumbnail: Literal["auto", "photo", "generated", "none"] = "auto"
    gradient_checkpointing: bool = False
    gradient_accumulation_steps: int = option(1, lowest=1)
    optimizer: Optimizer = "adamw"
    report_to: Literal["none", "tensorboard"] = "none"
    mask_weight: float = option(0.1, lowest=0, highest=1)
    resolution: int | None = option(None, lowest=1)
    buckets: bool = False
    preset: str = DEFAULT_PRESET

    def __post_init__(self) -> None:
        """Refuse values of the wrong type or outside their range."""
        check_fields(self)
        check_config(self.adapter)  # which refuses what only adapters know about
        check_together(self)

    @property
    def reads_tokens(self) -> bool:
        """True if the method's directions follow the token vectors."""
        return METHODS[self.method].reads_tokens

    @property
    def keys_values_alone(self) -> bool:
        """True if keys and values of cross-attention learn, and no other layer."""
        return self.layers == "cross-attention-kv" and not self.text_encoder

    @property
    def steps_after_erasure(self) -> int:
        """The number of the last steps that learn in directions after erasure; see ``erasure_steps``."""
        if self.erasure_steps is not None:
            return self.erasure_steps
        learns_embedding = self.token_moves == "embedding"  # others say no more than the class word
        has_frozen = METHODS[self.method].has_frozen_directions
        if not (self.solves_erasure and learns_embedding and has_frozen and self.keys_values_alone):
            return 0
        return min(round(_SHARE_AFTER_ERASURE * self.steps), self.steps - 1 - self.first_steps)

    @property
    def token_moves(self) -> str:
        """The part of the tokens that learns: ``"embedding"``, ``"keys and values"`` or ``"nothing"``."""
        return learnings()[self.token_vectors].moves

    @property
    def num_tokens(self) -> int:
        """The number of the concept's tokens: none where a rare word calls it."""
        return 0 if self.token_vectors == RARE_WORD else self.num_vectors

    @property
    def first_steps(self) -> int:
        """The number of steps in which token vectors learn alone."""
        if self.layers == "none":
            return self.steps
        if self.token_steps is not None:
            return self.token_steps
        return max(1, self.steps // 3) if self.reads_tokens else 0

    @property
    def solves_erasure(self) -> bool:
        """True if erasure is solved for, and is no part of the loss."""
        return self.erasure > 0 and self.erasure_form == "closed-form"

    @property
    def solves_at_end(self) -> bool:
        """True if erasure is solved for after all steps."""
        return self.solves_erasure and self.steps_after_erasure == 0

    @property
    def while_training(self) -> "TrainingConfig":
        """The configuration that the steps follow: without erasure that is solved for after them."""
        return replace(self, erasure=0.0, erasure_form="activation") if self.solves_at_end else self

    @property
    def trains_erasure(self) -> bool:
        """True if erasure is a part of the loss."""
        return self.erasure > 0 and self.erasure_form != "closed-form"

    @property
    def uses_foreign_prompts(self) -> bool:
        """True if the training uses foreign prompts."""
        return self.erasure > 0 or self.prior_weight > 0 or self.reads_tokens

    @property
    def weight_learning_rate(self) -> float:
        """The learning rate of the weights, the method's own where none is given."""
        if self.learning_rate is not None:
            return self.learning_rate
        factor = _KEYS_VALUES_ALONE if self.keys_values_alone else 1.0
        return factor * METHODS[self.method].learning_rate

    @property
    def recorded_learning_rate(self) -> float:
        """The learning rate in records: of the weights, or of the token vectors where no weight learns."""
        return self.token_learning_rate if self.layers == "none" else self.weight_learning_rate

    @property
    def adapter(self) -> AdapterConfig:
        """The part that concerns the change of each weight."""
        return AdapterConfig(
            method=self.method,
            rank=self.rank,
            alpha=self.alpha,
            basis=self.basis,
            blocks=self.blocks,
            slot=None if self.slot == "auto" else self.slot,
            slots=self.slots,
            down_scale=self.down_scale,
            duals=self.duals,
        )

    @property
    def erasure_options(self) -> ErasureOptions:
        """The part that concerns erasure, foreign prompts and prior pictures."""
        return ErasureOptions(
            weight=self.erasure,
            num_prompts=self.erasure_prompts,
            seed=self.seed,
            batch_size=self.batch_size,
            prior_pictures=self.prior_pictures,
            prior_inference_steps=self.prior_inference_steps,
            guidance_scale=self.guidance_scale,
            mixed_precision=self.mixed_precision,
        )

    @staticmethod
    def from_mapping(values: Mapping[str, Any], *, defaults: Mapping[str, Any] | None = None) -> "TrainingConfig":
        """Build a configuration from plain values.

        Args:
            values: Option to value.
            defaults: The options that a base's family has other defaults of (``models.training_defaults``).

        Raises:
            ConfigurationError: For an unknown key (names the nearest valid one) or a value that is not allowed.
        """
        given = in_own_spelling(values)
        options = {**(defaults or {}), **preset_of(given.get("preset", DEFAULT_PRESET)).options, **given}
        check_field_names(options, TrainingConfig, "training")
        return TrainingConfig(**options)

    @staticmethod
    def recorded(values: Mapping[str, Any]) -> "TrainingConfig":
        """Read the training options of a concept file, without those that this version does not have.

        An option that is missing in the file is newer than the file: it takes the value of training without it.
        """
        known = {key: value for key, value in values.items() if key in _names()}
        if not known.get("text_encoder"):
            known.pop("text_encoder_learning_rate", None)  # which earlier versions allowed
        return TrainingConfig.from_mapping({**_WITHOUT, **known})

    @staticmethod
    def from_toml(
        path: str | Path | None, *, overrides: Sequence[str] = (), defaults: Mapping[str, Any] | None = None
    ) -> "TrainingConfig":
        """Read a configuration from the top-level keys of a TOML file, if there is one, and ``key=value`` entries.

        Entries replace the file's values, and these ``defaults``, before anything is checked, so they may mend what the
        file alone could not be.

        Raises:
            ConfigurationError: When the file cannot be read, or a key or value is not allowed; names the file.
        """
        changes = _read(overrides)
        if path is None:
            return TrainingConfig.from_mapping(changes, defaults=defaults)
        try:
            return TrainingConfig.from_mapping(
                {**in_own_spelling(read_flat_toml(Path(path))), **changes}, defaults=defaults
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"configuration {path}: {error}") from error

    def with_overrides(self, overrides: Sequence[str]) -> "TrainingConfig":
        """Return a copy with ``key=value`` entries applied; values are read as TOML, bare words as text.

        A preset among them replaces all options that it has, but for those that are entries. Options that still have
        the values of the preset before it get their defaults first.

        Raises:
            ConfigurationError: For an entry without ``=``, an unknown key, or a value that is not allowed.
        """
        changes = _read(overrides)
        if "preset" not in changes:
            return replace(self, **changes)
        own, before = preset_of(changes["preset"]).options, preset_of(self.preset).options
        defaults = {item.name: item.default for item in fields(self) if item.name in before}
        unchanged = {name: defaults[name] for name, value in before.items() if getattr(self, name) == value}
        return replace(self, **{**unchanged, **own, **changes})

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain JSON values."""
        return {**asdict(self), "sample_prompts": list(self.sample_prompts)}


_WITHOUT = {"layers": "attention", "erasure": 0.0, "erasure_form": "activation", "erasure_steps": 0}
_WITHOUT |= {"thumbnail": "photo", "mask_weight": 1.0}
_SHARE_AFTER_ERASURE = 0.3
_KEYS_VALUES_ALONE = 4.0
"""How much faster keys and values of cross-attention learn where no other layer does."""


def _names() -> list[str]:
    return [item.name for item in fields(TrainingConfig)]


def _read(entries: Sequence[str]) -> dict[str, Any]:
    return in_own_spelling(read_entries(entries, [*_names(), *SPELLINGS], "training"))
