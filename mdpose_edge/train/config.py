"""Training configuration: a YAML file read strictly, with `--set key=value` on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from mdpose_edge.common.strict import read_dataclass
from mdpose_edge.common.yaml_files import load_yaml
from mdpose_edge.errors import ConfigError
from mdpose_edge.families.registry import FAMILIES, training_of
from mdpose_edge.spec import InputSpec


@dataclass(frozen=True)
class InputConfig:
    """The network input; what is not set here is as in `spec.InputSpec`."""

    height: int = 736
    width: int = 736
    resize: Literal["stretch", "letterbox"] = "stretch"

    def spec(self) -> InputSpec:
        """Describe the input as it travels with the artifact."""
        return InputSpec(height=self.height, width=self.width, resize=self.resize)


@dataclass(frozen=True)
class DataConfig:
    """Whose annotations, and which keypoints of them."""

    format: Literal["coco", "crowdpose", "ochuman", "instances"] | None = None
    """None takes the only one that is in the folder, and of COCO's people and instances the people."""
    keypoints: str | None = None
    """coco17, crowdpose14, ochuman19, or a YAML file (docs/data.md); None takes the format's own."""
    classes: tuple[str, ...] | None = None
    """Of instances, the names of the categories to find, in this order; None takes all of the file."""

    def __post_init__(self) -> None:
        if self.classes is not None and (not self.classes or len(set(self.classes)) < len(self.classes)):
            got = ", ".join(self.classes) or "none"
            raise ConfigError("data.classes", expected="names that differ", got=got, do="name each category once")


@dataclass(frozen=True)
class AugmentConfig:
    """Random views of a training image (the paper's supplement and code)."""

    rotation_deg: float = 30.0
    """Rotation about the image centre, uniform in plus or minus this."""
    rotation_prob: float = 0.6
    expand: float = 2.0
    """The canvas grows by up to this factor, filled with the image's mean colour."""
    expand_prob: float = 0.5
    crop_min: float = 0.3
    """Each side of a random crop is at least this share of the canvas."""
    crop_max: float = 1.0
    """And at most this."""
    crop_prob: float = 5 / 6
    flip_prob: float = 0.5
    clip_boxes: bool = False
    """A view that cuts a person off takes the centre of what it shows of the box; else people whose centre it cuts off
    are left out."""
    mosaic: int = 4
    """A mosaic has 2 to this many tiles a side, each a view of an image of its own: people of small size."""
    mosaic_prob: float = 0.0
    paste_prob: float = 0.0
    """One to three people, cut out of other pictures of the data by their outlines, are pasted into the view."""
    colour_prob: float = 0.0
    """Other brightness, contrast, saturation and hue."""
    dark_prob: float = 0.0
    """Low light: dark, and noisy as a sensor is then."""
    grey_prob: float = 0.0
    blur_prob: float = 0.0
    """Out of focus, or moved along a line."""
    erase_prob: float = 0.0
    """A rectangle over part of a person hides it."""

    def __post_init__(self) -> None:
        for key in (key.name for key in fields(self) if key.name.endswith("_prob")):
            _in_range(f"augment.{key}", getattr(self, key), 0.0, 1.0)
        _in_range("augment.mosaic", self.mosaic, 2, 8)
        _in_range("augment.crop_min", self.crop_min, 0.05, 1.0)
        _in_range("augment.crop_max", self.crop_max, self.crop_min, 1.0)
        _in_range("augment.expand", self.expand, 1.0, 10.0)
        _in_range("augment.rotation_deg", self.rotation_deg, 0.0, 180.0)


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer; the defaults are the paper's."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    """SGD only."""
    weight_decay: float = 5e-5
    clip_norm: float = 7.0
    """Largest L2 norm of the gradient; it is scaled down to this."""

    def __post_init__(self) -> None:
        _above_zero("optimizer.lr", self.lr)
        _above_zero("optimizer.clip_norm", self.clip_norm)
        _in_range("optimizer.momentum", self.momentum, 0.0, 1.0)
        _in_range("optimizer.weight_decay", self.weight_decay, 0.0, 1.0)


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves."""

    iterations: int = 360_000
    kind: Literal["step", "cosine"] = "step"
    milestones: tuple[int, ...] = (300_000, 340_000)
    """Iterations at which a step schedule multiplies the rate by 0.1."""
    warmup: int = 0
    """Iterations of linear warm-up."""

    def __post_init__(self) -> None:
        _at_least("schedule.iterations", self.iterations, 1)
        _at_least("schedule.warmup", self.warmup, 0)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run, apart from where its data and output lie."""

    input: InputConfig = field(default_factory=InputConfig)
    data: DataConfig = field(default_factory=DataConfig)
    family: str = "mdpose"
    """Which kind of model: a name in families/registry.py."""
    network: Any = None
    """The family's own table of options (its `Training.network_config`); None takes all defaults."""
    loss: Any = None
    """Likewise (`Training.loss_config`)."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    batch_size: int = 32
    pretrained: bool | str = True
    """Start the backbone from ImageNet weights, through timm; text names a .safetensors file that holds them."""
    init: str | None = None
    """A checkpoint to start from, or the name of a shipped one, people: what fits by name and shape is taken; its
    input size may differ."""
    init_only: str | None = None
    """Take only weights whose names begin so from `init`: "backbone." for the trunk alone, also of another family."""
    frozen_stride: Literal[0, 8, 16, 32] = 0
    """The backbone up to its map of this stride keeps its weights and batch statistics, 0 for none of it: faster, and
    what it has learned elsewhere stays."""
    negatives: bool = False
    """Images without people take part; the paper's loss says nothing of them, `loss.count_weight` lets them count."""
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the network. "auto": on a GPU bf16 where it computes in it, else fp16; on a CPU what is faster of
    fp32 and bf16, found by trying at the start and kept when the run resumes."""
    workers: int = 4
    """Processes that decode and augment images; 0 does it in the training process."""
    accumulate: int = 1
    """Forward and backward passes that share one update: each takes an equal part of the process's images, with batch
    statistics of its own."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, which then becomes the finished model; null for none."""
    compile: bool = False
    """Run the network through torch.compile."""
    log_every: int = 20
    """Iterations between looks at the GPU and at the family's own figures, and between flushes of log.csv."""
    checkpoint_every: int = 1000
    """Iterations between checkpoints to resume from."""
    eval_every: int = 0
    """Iterations between evaluations on the split that --val names; 0 for none."""
    picture_every: int = 0
    """Iterations between pictures of predictions beside the truth; 0 for none."""
    tensorboard: bool = False
    """Write scalars and pictures for TensorBoard (the extra `watch`)."""
    divergence: float = 10.0
    """The run stops as diverged when its mean loss is so far above that of its start; nats where it is a likelihood."""

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ConfigError("family", expected=f"one of {', '.join(FAMILIES)}", got=self.family, do="correct it")
        training = training_of(self.family)
        for key, kind in (("network", training.network_config), ("loss", training.loss_config)):
            if getattr(self, key) is None:
                object.__setattr__(self, key, kind())
        for key in ("batch_size", "accumulate", "log_every", "checkpoint_every"):
            _at_least(key, getattr(self, key), 1)
        for key in ("workers", "eval_every", "picture_every"):
            _at_least(key, getattr(self, key), 0)
        if self.batch_size % self.accumulate:
            raise ConfigError(
                "accumulate",
                expected=f"a divisor of batch_size {self.batch_size}",
                got=str(self.accumulate),
                do="change it",
            )
        if self.ema is not None and not 0 < self.ema < 1:
            raise ConfigError("ema", expected="a number between 0 and 1, or null", got=str(self.ema), do="change it")
        _above_zero("divergence", self.divergence)
        if self.init_only is not None and self.init is None:
            raise ConfigError(
                "init_only", expected="a checkpoint under init", got="none", do="name one, or leave it out"
            )
        _in_range("seed", self.seed, 0, 2**32 - 1)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as YAML and JSON write it."""
        return asdict(self)


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a configuration file.

    Args:
        path: YAML; keys as in TrainConfig, all optional.
        overrides: "dotted.key=value" pairs, values as YAML.

    Raises:
        ConfigError: no such file, not YAML, an unknown key, or a value of the wrong kind.
    """
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise ConfigError(str(path), expected="a configuration file", got=got, do="give one of configs/*.yaml")
    try:
        data = load_yaml(yaml, path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), expected="YAML", got=" ".join(str(error).split()), do="correct it") from error
    for override in overrides:
        _override(data, override)
    return read_config(data, str(path))


def read_config(data: Mapping[str, Any], where: str) -> TrainConfig:
    """Build a configuration from plain data, strictly."""
    config = read_dataclass(TrainConfig, data, where=where, error=ConfigError, defaults=True)
    training = training_of(config.family)
    tables = {
        key: read_dataclass(kind, data[key], where=where, error=ConfigError, defaults=True, path=key)
        for key, kind in (("network", training.network_config), ("loss", training.loss_config))
        if data.get(key) is not None
    }
    return replace(config, **tables)


def _override(data: Any, override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not isinstance(data, dict):
        raise ConfigError("--set", expected="key=value", got=override, do="write it like --set optimizer.lr=0.001")
    *parents, last = dotted.split(".")
    for key in parents:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise ConfigError("--set", expected=f"a table at {key}", got=override, do="correct the key")
    try:
        data[last] = load_yaml(yaml, text)
    except yaml.YAMLError as error:
        raise ConfigError("--set", expected="a YAML value", got=override, do="quote or correct it") from error


def _in_range(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(key, expected=f"a number in [{low:.10g}, {high:.10g}]", got=str(value), do="change it")


def _at_least(key: str, value: int, low: int) -> None:
    if value < low:
        raise ConfigError(key, expected=f"at least {low}", got=str(value), do="raise it")


def _above_zero(key: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(key, expected="a number above 0", got=str(value), do="change it")
