"""Configuration files: strict, and in the words of the key at fault."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mdpose_edge.errors import ConfigError, MdposeError
from mdpose_edge.train.config import TrainConfig, load_config, read_config
from mdpose_edge.train.network import make_spec

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


def test_round_trip_through_yaml() -> None:
    config = TrainConfig(seed=5, init="a.safetensors")
    assert read_config(yaml.safe_load(yaml.safe_dump(config.to_dict())), "a.yaml") == config


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_describes_a_network(path: Path) -> None:
    config = load_config(path)
    assert len(make_spec(config.network, config.input.spec()).outputs) == 3 * len(config.network.levels)


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
        pytest.param("pretrained: 1", "true or false at pretrained", id="number for truth"),
        pytest.param("optimizer: sgd", "a table at optimizer", id="text for a table"),
        pytest.param("optimizer: {name: lion}", r"one of sgd, adamw at optimizer\.name", id="unknown choice"),
        pytest.param("schedule: {milestones: 5}", r"a list at schedule\.milestones", id="number for a list"),
        pytest.param("- 1", "a table at the top", id="list at the top"),
        pytest.param("a: [1", "expected YAML", id="not YAML"),
        pytest.param("batch_size: 0", "batch_size: expected at least 1, got 0", id="no batch"),
        pytest.param("group_size: 0", "group_size: expected at least 1, got 0", id="no group"),
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
