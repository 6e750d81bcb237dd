"""Configuration files: strict, and in the words of the key at fault."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml

from mdpose_edge.errors import ConfigError, MdposeError
from mdpose_edge.families.mdpose.network import MDPoseNetwork, make_spec
from mdpose_edge.families.registry import training_of
from mdpose_edge.spec import COCO_KEYPOINTS
from mdpose_edge.train.config import TrainConfig, load_config, read_config

CONFIGS = Path(__file__).parents[3] / "configs"


def config_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load_config(config_file(tmp_path, "")) == TrainConfig()


def test_keys_and_overrides_reach_their_places(tmp_path: Path) -> None:
    path = config_file(tmp_path, "batch_size: 8\noptimizer: {lr: 1, name: adamw}\n")
    config = load_config(path, ["optimizer.lr=0.002", "schedule.milestones=[5, 7]", "seed=3", "init=a.safetensors"])
    assert (config.batch_size, config.seed, config.init) == (8, 3, "a.safetensors")
    assert (config.optimizer.name, config.optimizer.lr) == ("adamw", 0.002)
    assert config.schedule.milestones == (5, 7)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("2E+1", 20.0), (".5", 0.5), ("1_0", 10.0), ("010", 10.0), ("0x10", 16.0), ("+3", 3.0)],
)
def test_numbers_are_what_they_look_like(tmp_path: Path, text: str, value: float) -> None:
    assert load_config(config_file(tmp_path, ""), [f"optimizer.clip_norm={text}"]).optimizer.clip_norm == value
    path = config_file(tmp_path, f"optimizer: {{clip_norm: {text}}}\nschedule: {{milestones: [010, 1_0]}}")
    assert load_config(path).optimizer.clip_norm == value
    assert load_config(path).schedule.milestones == (10, 10)


@pytest.mark.parametrize("text", ["1:30", "1e-", "ten"])
def test_what_is_no_number_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=f"expected a number at optimizer.lr, got '{text}'"):
        load_config(config_file(tmp_path, ""), [f"optimizer.lr={text}"])


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the key batch_size twice"):
        load_config(config_file(tmp_path, "batch_size: 8\nseed: 1\nbatch_size: 4\n"))


@pytest.mark.parametrize("pretrained", [True, False, "a.safetensors"])
def test_round_trip_through_yaml(pretrained: bool | str) -> None:
    config = TrainConfig(seed=5, init="a.safetensors", pretrained=pretrained, ema=0.9998)
    assert read_config(yaml.safe_load(yaml.safe_dump(config.to_dict())), "a.yaml") == config


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_describes_a_network(path: Path) -> None:
    config = load_config(path)
    spec = training_of(config.family).make_spec(config.network, config.input.spec(), COCO_KEYPOINTS)
    assert spec.family == config.family and len(spec.outputs) > 1


@pytest.mark.parametrize(
    ("name", "parameters", "components"),
    [
        pytest.param("dla34_736", 21.5e6, 92**2 + 46**2 + 23**2, id="DLA-34"),
        pytest.param("resnet50_896", 35.8e6, 112**2 + 56**2 + 28**2 + 14**2 + 7**2, id="ResNet-50, five levels"),
        pytest.param("resnet101_896", 54.8e6, 112**2 + 56**2 + 28**2 + 14**2 + 7**2, id="ResNet-101, five levels"),
    ],
)
def test_recipes_of_the_paper_build_their_networks(name: str, parameters: float, components: int) -> None:
    config = load_config(CONFIGS / f"{name}.yaml")
    spec = make_spec(config.network, config.input.spec())
    with torch.device("meta"):
        network = MDPoseNetwork(spec, auxiliary_center=True)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(parameters, rel=0.02)
    assert sum(math.prod(spec.head_shape(head)) for head in spec.heads if head.channels == 1) == components
    assert config.pretrained is True and (config.batch_size, config.loss.group_size) == (32, 3)


def test_paper_configuration_states_every_key_and_is_the_default() -> None:
    path = CONFIGS / "dla34_736.yaml"
    assert load_config(path) == TrainConfig()
    stated, known = yaml.safe_load(path.read_text(encoding="utf-8")), TrainConfig().to_dict()
    assert stated.keys() == known.keys()
    for table in ("input", "network", "augment", "optimizer", "schedule"):
        assert stated[table].keys() == known[table].keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("batchsize: 8", "the unknown key batchsize", id="unknown key"),
        pytest.param("optimizer: {rate: 1}", r"the unknown key optimizer\.rate", id="unknown nested key"),
        pytest.param("batch_size: eight", "a whole number at batch_size, got 'eight'", id="text for a number"),
        pytest.param("batch_size: 8.5", "a whole number at batch_size", id="fraction for a whole number"),
        pytest.param("batch_size: true", "a whole number at batch_size", id="truth for a number"),
        pytest.param("pretrained: 1", "true or false or text at pretrained", id="number for truth"),
        pytest.param("optimizer: sgd", "a table at optimizer", id="text for a table"),
        pytest.param("optimizer: {name: lion}", r"one of sgd, adamw at optimizer\.name", id="unknown choice"),
        pytest.param("schedule: {milestones: 5}", r"a list at schedule\.milestones", id="number for a list"),
        pytest.param("- 1", "a table at the top", id="list at the top"),
        pytest.param("a: [1", "expected YAML", id="not YAML"),
        pytest.param("batch_size: 0", "batch_size: expected at least 1, got 0", id="no batch"),
        pytest.param("accumulate: 5", "accumulate: expected a divisor of batch_size 32, got 5", id="uneven passes"),
        pytest.param("ema: 1", "ema: expected a number between 0 and 1, or null, got 1", id="no averaging"),
        pytest.param("eval_every: -1", "eval_every: expected at least 0, got -1", id="negative period"),
        pytest.param("divergence: 0", "divergence: expected a number above 0", id="no divergence"),
        pytest.param(
            "loss: {count_weight: -1}", r"loss.count_weight: expected a number in \[0, 100\]", id="negative count"
        ),
        pytest.param("loss: {group_size: 0}", "loss.group_size: expected at least 1, got 0", id="no group"),
        pytest.param("workers: -1", "workers: expected at least 0, got -1", id="negative workers"),
        pytest.param("seed: -1", r"seed: expected a number in \[0, 4294967295\]", id="negative seed"),
        pytest.param("schedule: {iterations: 0}", r"schedule\.iterations: expected at least 1", id="no iterations"),
        pytest.param("schedule: {warmup: -1}", r"schedule\.warmup: expected at least 0", id="negative warm-up"),
        pytest.param("optimizer: {lr: 0}", r"optimizer\.lr: expected a number above 0", id="no learning rate"),
        pytest.param("optimizer: {lr: .nan}", r"optimizer\.lr: expected a number above 0", id="learning rate NaN"),
        pytest.param("optimizer: {clip_norm: -1}", r"optimizer\.clip_norm: expected a number above 0", id="clip"),
        pytest.param(
            "optimizer: {momentum: 1.5}", r"optimizer\.momentum: expected a number in \[0, 1\]", id="momentum"
        ),
        pytest.param("augment: {flip_prob: 2}", r"augment\.flip_prob: expected a number in \[0, 1\]", id="probability"),
        pytest.param("augment: {crop_min: 0}", r"augment\.crop_min: expected a number in \[0.05, 1\]", id="crop"),
        pytest.param("network: {levels: [p3]}", r"network\.levels: expected p3, p4, p5", id="levels"),
    ],
)
def test_bad_file_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(config_file(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_input_that_no_stride_divides_names_the_next_size(tmp_path: Path) -> None:
    config = load_config(config_file(tmp_path, "input: {width: 730}"))
    with pytest.raises(MdposeError, match=r"input\.width: expected a multiple of .*use 728"):
        make_spec(config.network, config.input.spec())


def test_missing_file_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a configuration file, got a folder"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="expected a configuration file, got no such file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match="expected YAML"):
        load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        pytest.param("seed", "--set: expected key=value, got seed", id="no value"),
        pytest.param("seed.x=1", "--set: expected a table at seed", id="table in place of a value"),
        pytest.param("seed=[1", "--set: expected a YAML value", id="not YAML"),
        pytest.param("optimizer.rate=1", r"the unknown key optimizer\.rate", id="unknown key"),
        pytest.param("optimizer.lr=fast", r"a number at optimizer\.lr", id="wrong kind"),
    ],
)
def test_bad_override_is_one_sentence(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(config_file(tmp_path, "seed: 1"), [override])
    assert "\n" not in str(caught.value)
