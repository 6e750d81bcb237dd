"""The training loop: exact resume, however many processes, and a record that can be watched.

Everything random is a function of (seed, iteration): the sampler, the augmentation of each image and what the family's
loss draws. A run that is killed therefore resumes on the curve that it would have drawn, and several processes draw the
curve of one, up to rounding.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from mdpose_edge.common.files import file_sha256, refuse_url, write_whole
from mdpose_edge.common.processes import check_shared_memory
from mdpose_edge.common.sole import sole_writer
from mdpose_edge.datasets.instances import training_classes
from mdpose_edge.datasets.keypoints import without_partner
from mdpose_edge.datasets.layout import locate, training_keypoints
from mdpose_edge.errors import ConfigError, MdposeError, TrainingError
from mdpose_edge.families.backbone import freeze_backbone
from mdpose_edge.families.base import Finished, Finishing
from mdpose_edge.families.registry import training_of
from mdpose_edge.spec import KeypointSpec
from mdpose_edge.train.config import TrainConfig
from mdpose_edge.train.data import Batch, training_batches
from mdpose_edge.train.distributed import World, joined_world
from mdpose_edge.train.finish import fit_images
from mdpose_edge.train.precision import faster_precision
from mdpose_edge.train.signals import Interrupted, StopSignal
from mdpose_edge.train.start import begin, spec_of_run
from mdpose_edge.train.state import (
    CONFIG_FILE,
    CONFIG_HEAD,
    LOG_FILE,
    MODEL_FILE,
    RESUME_FILE,
    check_folder,
    remove_leftovers,
    restore_state,
    save_model,
    save_state,
)
from mdpose_edge.train.step import Step, Stepper
from mdpose_edge.train.validation import Validation, Validator
from mdpose_edge.train.watch import TrainProgress, Watch

TIMED_IMAGES = 4
"""In the passes that decide on the precision."""

__all__ = ["CONFIG_FILE", "LOG_FILE", "MODEL_FILE", "RESUME_FILE", "Interrupted", "TrainProgress", "train"]


def train(
    config: TrainConfig,
    data_dir: Path,
    out: Path,
    *,
    split: str = "train",
    resume: bool | Literal["auto"] = False,
    validation: Validation | None = None,
    report: Callable[[TrainProgress], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> Path:
    """Train a model, in the processes that torchrun started or in this one.

        train(load_config(Path("configs/dla34_736.yaml")), Path("path/to/coco"), Path("runs/dla34"))

    Args:
        config: everything that decides the run.
        data_dir: data in COCO's layout.
        out: the run's folder; takes config.yaml, log.csv, eval.csv, last.safetensors (to resume), model.safetensors,
            curves.png, and pictures/ and tensorboard/ where the configuration asks for them.
        split: "train" means DIR/train2017.
        resume: go on from last.safetensors in `out`; "auto" does so where there is one, and starts otherwise.
        validation: what to evaluate on every `config.eval_every` iterations and at the end.
        report: called after each iteration, in the main process.
        note: called with a sentence on what was taken from `config.init` or chosen by the run, in the main process.

    Returns:
        The finished model, `out`/model.safetensors; or `out`/last.safetensors where a SIGTERM ended the run early.

    Raises:
        Interrupted: a Ctrl-C ended the run early, its checkpoint written; a second one is a plain KeyboardInterrupt.
        ConfigError: `out` holds another run, or evaluations by another protocol, or the configuration cannot work.
        DataError: the data cannot be read.
        CheckpointError: nothing to resume from, the checkpoint is of another configuration, or none can be written.
        TrainingError: the loss is not finite or has diverged, or another process failed.
        OutputError: another run writes into `out`.
    """
    with joined_world() as world, StopSignal() as stop, ExitStack() as stack:
        run = _Run(config, data_dir, out, split, resume, validation, world, stack, note, stop)
        with world.together():
            if world.is_main:
                names = None if run.validator is None else run.validator.figure_names
                run.watch = stack.enter_context(Watch(config, out, run.start, world.device, report, names))
        if not run.resumes:
            run.choose_precision(note)
        return run.go(stop)


class _Run:
    """One run in one process."""

    def __init__(
        self,
        config: TrainConfig,
        data_dir: Path,
        out: Path,
        split: str,
        resume: bool | Literal["auto"],
        validation: Validation | None,
        world: World,
        stack: ExitStack,
        note: Callable[[str], None] | None,
        stop: StopSignal,
    ) -> None:
        self.config, self.out, self.world, self.note = config, out, world, note
        self.train_split = data_dir, split
        self.watch: Watch | None = None
        resumes = self.resumes = _resumes(out, resume, world)
        with world.together():
            if config.workers:
                check_shared_memory(where="workers", do="read without workers: --set workers=0", error=TrainingError)
            keypoints = training_keypoints(data_dir, split, config.data.format, config.data.keypoints)
            self.family = training_of(config.family)
            classes = training_classes(data_dir, split, config.data.format, config.data.classes, keypoints)
            self.spec = spec_of_run(config, keypoints, classes)
            self.family.check_loss(self.spec, config.loss)
            _check_flips(self.spec.keypoints, config.augment.flip_prob)
            world.share_of(config.batch_size, config.accumulate)
            batches_from = training_batches(
                config,
                self.spec,
                data_dir,
                split,
                rank=world.rank,
                ranks=world.size,
                stopped=lambda: stop.received is not None,
                note=note if world.is_main else None,
            )
            annotations = locate(data_dir, split, config.data.format).annotation_file
            self.data_sha256 = file_sha256(annotations) if world.is_main else ""
            self.validator: Validator | None = None
            if validation is not None and config.eval_every:
                self.validator = Validator(validation, self.spec, world, config.workers, config.data.format)
            torch.manual_seed(config.seed)
            network = begin(config, self.spec, is_start=world.is_main and not resumes, note=note)
            if config.frozen_stride:
                freeze_backbone(network, config.frozen_stride)
        world.synchronise(network)
        network = network.to(world.device).to(memory_format=torch.channels_last)
        self.stepper = Stepper(config, self.spec, network, world, out / RESUME_FILE)
        with world.together():
            self.start = restore_state(out, self.stepper, world, self.data_sha256) if resumes else 0
        with world.together():
            if world.is_main:
                out.mkdir(parents=True, exist_ok=True)
                stack.enter_context(sole_writer(out))
                remove_leftovers(out)
                text = CONFIG_HEAD + yaml.safe_dump(config.to_dict(), sort_keys=False)
                write_whole(out / CONFIG_FILE, text.encode())
        self.batches: Generator[Batch] = stack.enter_context(closing(batches_from(self.start)))

    def choose_precision(self, note: Callable[[str], None] | None) -> None:
        """Take what is faster on this CPU, where the configuration leaves it open; a resumed run keeps it."""
        if self.config.precision != "auto" or self.world.device.type != "cpu" or self.stepper.precision != "bf16":
            return
        images = min(TIMED_IMAGES, self.config.batch_size)
        sample = torch.zeros(images, self.spec.input.height, self.spec.input.width, 3, dtype=torch.uint8)

        def decide() -> bytes:
            precision, seconds = faster_precision(self.stepper.network.train(), sample, self._heads)
            if note is not None:
                speeds = ", ".join(f"{images / taken:.3g} images/s in {name}" for name, taken in seconds.items())
                note(f"precision: {precision} ({speeds})")
            return precision.encode()

        chosen = self.world.from_main(decide)
        self.stepper.compute_in("bf16" if chosen == b"bf16" else "fp32")

    def _heads(self, outputs: Any) -> tuple[torch.Tensor, ...]:
        return self.family.heads(outputs, self.spec)

    def go(self, stop: StopSignal) -> Path:
        """Train to the end, or to a signal; give the file that holds the outcome."""
        self.stepper.network.train()
        self._evaluate(self.start, only_if_missing=True)
        for iteration in range(self.start, self.config.schedule.iterations):
            begin = time.perf_counter()
            batch, persons, stops = self._next_batch(stop)
            waited = time.perf_counter() - begin
            if stops is not None:
                return self._stop(iteration, stops)
            assert batch is not None
            is_due = (iteration + 1) % self.config.log_every == 0
            measures = is_due and self.world.is_main
            step = self.stepper.step(iteration, batch, persons, measure=measures)
            seconds = time.perf_counter() - begin
            self._conclude(iteration, step, self.config.batch_size / seconds, waited / seconds, batch)
        with self.world.together():
            if self.world.is_main:
                save_model(self.out, self.stepper, self._finished())
                self._draw()
        return self.out / MODEL_FILE

    def _finished(self) -> Finished | None:
        """Fit what the family fits to a trained network, on training images."""
        if not isinstance(self.family, Finishing):
            return None
        count = self.family.fit_images(self.config.loss)
        if not count:
            return None
        images = fit_images(self.stepper.best_network, self.spec, self.config, self.train_split, count)
        with closing(images):
            finished = self.family.finish(self.spec, images, self.config.loss, self.config.seed)
        if self.note is not None:
            self.note(finished.note)
        return finished

    def _next_batch(self, stop: StopSignal) -> tuple[Batch | None, int, int | None]:
        """Return this process's part of the next batch, the persons in all parts, and the signal that any was sent.

        There is no batch where a signal came first, and the workers give nothing.

        Raises:
            InputError, DataError: an image cannot be used; where that is so in another process, TrainingError.
        """
        try:
            batch = next(self.batches, None)
        except MdposeError as error:
            self.world.sum([0.0, 0.0, 0.0, 1.0])
            self.world.raise_together(error)
            raise
        stops = [float(stop.received == number) for number in (signal.SIGINT, signal.SIGTERM)]
        own = 0.0 if batch is None else float(self.family.count(batch.targets))
        persons, interrupts, terms, failures = self.world.sum([own, *stops, 0.0])
        if failures:
            self.world.raise_together(None)
        return batch, int(persons), signal.SIGINT if interrupts else signal.SIGTERM if terms else None

    def _conclude(self, iteration: int, step: Step, images_per_s: float, data_wait: float, batch: Batch) -> None:
        """Do what follows an update: record it, and write a checkpoint, evaluate and paint where it is time."""
        done = iteration + 1
        is_last = done == self.config.schedule.iterations
        if self.watch is not None:
            self.watch.record(iteration, step, images_per_s, data_wait)
        if done % self.config.checkpoint_every == 0 or is_last:
            self._save(done)
        if is_last or (self.config.eval_every and done % self.config.eval_every == 0):
            self._evaluate(done)
        if self.watch is not None:
            self.watch.picture(done, self.stepper.best_network, self.spec, batch)
            self.watch.publish()

    def _save(self, done: int) -> None:
        """Write a checkpoint, unless the run is going astray: the last good one is worth more then.

        Raises:
            TrainingError: the run has diverged, or its weights are not finite.
            CheckpointError: it cannot be written.
        """
        with self.world.together():
            if self.watch is not None:
                self.watch.log.flush()
                self.watch.health.check(done, self.out / RESUME_FILE)
                if self.watch.health.is_healthy:
                    save_state(self.out, self.stepper, done, self.data_sha256)

    def _evaluate(self, done: int, *, only_if_missing: bool = False) -> None:
        """Evaluate after so many iterations; on resume, where a kill came between a checkpoint and its evaluation."""
        if self.validator is None:
            return
        if only_if_missing:
            is_due = done > 0 and (done % self.config.eval_every == 0 or done == self.config.schedule.iterations)
            missing = self.watch is not None and done not in self.watch.evaluated
            if not is_due or not self.world.sum([float(missing)])[0]:
                return
        figures = self.validator(self.stepper.best_network)
        if self.watch is not None and figures is not None:
            self.watch.figures(done, figures)

    def _stop(self, done: int, number: int) -> Path:
        self._save(done)
        self._draw()
        if number == signal.SIGINT:
            raise Interrupted(self.out / RESUME_FILE)
        return self.out / RESUME_FILE

    def _draw(self) -> None:
        if self.watch is not None:
            self.watch.draw()


def _resumes(out: Path, resume: bool | Literal["auto"], world: World) -> bool:
    """Decide, in the main process and for all, whether the run goes on; refuse a URL or another's folder."""

    def decide() -> bytes:
        refuse_url(out, where=str(out), error=ConfigError)
        goes_on = (out / RESUME_FILE).is_file() if resume == "auto" else resume
        if resume != "auto" or (out / MODEL_FILE).is_file():  # a run killed before its first checkpoint has a log
            check_folder(out, goes_on)
        return b"1" if goes_on else b"0"

    return world.from_main(decide) == b"1"


def _check_flips(keypoints: KeypointSpec, flip_prob: float) -> None:
    """Refuse to mirror pictures where a left keypoint would be labelled as the right one that it becomes."""
    lonely = without_partner(keypoints)
    if lonely and flip_prob > 0:
        expected = f"0, as {', '.join(lonely)} would be mislabelled in a mirror: no counterpart under flips"
        do = "set it to 0, or add the counterparts to the keypoint set"
        raise ConfigError("augment.flip_prob", expected=expected, got=str(flip_prob), do=do)
