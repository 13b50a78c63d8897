"""Adapts a depth network to recordings without truth, to rendered clips with it, or to both.

It runs unchanged on a CPU, a GPU or many (accelerate).

Every draw follows from the seed and the number of the step, and the number of steps is fixed once it is known how long
one takes. So a run that is killed and called again gives the weights that it would have given.
"""

from __future__ import annotations

import csv
import io
import math
import pickle
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foundation_adapters.augment import augment_group
from foundation_adapters.learner import Base, Learner
from foundation_adapters.material import Material, NDArrayInt, ask
from foundation_adapters.recordings import Recording
from foundation_adapters.self_supervision import SUPERVISED, Group, Weights, group_losses, relative_error
from video_io.errors import InputError

CHECKPOINT, LOG, BROKEN = "checkpoint.pt", "log.csv", "broken_batch.pt"
_MEASURED_STEPS = (3, 13)  # the steps that tell how long one takes
_LEAST_STEPS = 20
_OVERTIME = 1.1
# Held-out frames are neighbours of those learnt from: smaller differences of their gain say little, and at the end of
# the training the rate has fallen and the average is over the most steps.
_AS_GOOD = 0.8
_CHECKED_FRAMES = 32
Progress = Callable[[str, int, int | None], None]
Log = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Config:
    """How to adapt.

    Attributes:
        method: "gdvlora", "dvlora", "lora", "dora", or "full" for all weights that tell depth.
        rank: of the adapter.
        train_heads: whether the depth head learns too, as a whole.
        weights: of the losses on recordings.
        known_weights: of the losses on clips with truth: no image has to be compared with another.
        known_share: of the steps, those on clips with truth, where there are recordings too.
        steps: how many; None for as many as fit into `minutes`, but not more than `most_steps`.
        minutes: of wall-clock time.
        frames: of a group, which is what one step looks at.
        sizes: the shares of the working size at which the network sees the frames, one drawn a step.
        learning_rate, full_learning_rate: of AdamW, for adapters, and for weights that have learnt before (the depth
            head, or with "full" all); weight_decay.
        first_phase: share of the steps in the first phase of a method with two.
        warmup: steps in which the rate rises, in every phase.
        average: decay of the moving average of what learns, which is what is kept.
        checks: how often the held-out frames are looked at.
        bf16: matrix products in half precision, for devices that are fast at it; poses and losses stay in single.
        seed: every draw follows from it.
        checkpoint_s: seconds between checkpoints.
    """

    method: str = "gdvlora"
    rank: int = 4
    train_heads: bool = True
    weights: Weights = field(default_factory=Weights)
    known_weights: Weights = SUPERVISED
    known_share: float = 0.5
    steps: int | None = None
    most_steps: int = 1500
    minutes: float = 10.0
    frames: int = 4
    sizes: tuple[float, ...] = (1.0,)
    learning_rate: float = 1e-3
    full_learning_rate: float = 1e-4
    weight_decay: float = 0.01
    first_phase: float = 0.7
    warmup: int = 20
    average: float = 0.98
    most_gradient: float = 1.0
    checks: int = 8
    bf16: bool = False
    seed: int = 0
    checkpoint_s: float = 60.0


@dataclass(frozen=True)
class Adapted:
    """What came of it.

    Attributes:
        learner: with the best weights that were seen, in single precision.
        before, after: relative error against the run's own depth on the held-out frames: of the base, of what is kept.
        steps, best_step: steps taken, and the one whose weights are kept (0: none was better than the base).
        trainable: how many numbers learn. step_s: median seconds a step. peak_mb: the process's peak memory.
    """

    learner: Learner
    before: float
    after: float
    steps: int
    best_step: int
    trainable: int
    step_s: float
    peak_mb: float

    def figures(self) -> dict[str, float]:
        return {k: v for k, v in self.__dict__.items() if k != "learner"}


def adapt(
    base: Base,
    learn: Sequence[Recording],
    check: Sequence[Recording],
    work: Path,
    config: Config = Config(),
    progress: Progress = lambda *_: None,
    log: Log = lambda _: None,
) -> Adapted:
    """Train an adapter on `learn`; which of its checkpoints is kept is decided on `check` alone.

    That is the last one, unless it gains less than four fifths of what the best one does; then the best.

    Args:
        base: the network, which is changed in place (an adapter is put around it).
        learn, check: recordings of different clips or times.
        work: a folder for the checkpoint and log.csv; with a checkpoint of the same configuration in it, training goes
            on from there.
        progress: called with "adapting", steps done, and how many there are, where that is known.
        log: called with each row of log.csv.

    Raises:
        InputError: nothing to learn from; a loss that is no number (the batch is saved in `work`); another
            configuration's checkpoint; a full disk.
    """
    if not any(len(r) for r in learn) or not any(len(r) for r in check):
        raise InputError("no frames to learn from, or none to check with: give recordings in which the camera moves")
    run = _Run(base, learn, check, work, config, log)
    resumed = run.resume()
    run.forget_later_rows()
    if not resumed:
        run.check()
    try:
        while run.plan is None or run.step < run.plan:
            run.learn()
            progress("adapting", run.step, run.plan)
    except KeyboardInterrupt:
        run.save()
        raise
    run.save()
    return run.finished()


# -- the run ----------------------------------------------------------------------------------------------------------


class _Run:
    """The state of a training run."""

    def __init__(
        self, base: Base, learn: Sequence[Recording], check: Sequence[Recording], work: Path, config: Config,
        log: Log = lambda _: None,
    ):  # fmt: skip
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        self.config, self.work, self.log = config, work, log
        # In a phase some tensors have no gradient: on several machines their absence must not be waited for.
        kwargs = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.accelerator = Accelerator(mixed_precision="bf16" if config.bf16 else "no", kwargs_handlers=[kwargs])
        torch.manual_seed(config.seed)
        self.learner = Learner(base, config.method, config.rank, config.train_heads)
        rates = config.learning_rate, config.full_learning_rate
        optimiser = torch.optim.AdamW(self.learner.groups(config.weight_decay, *rates), betas=(0.9, 0.99))
        self.module, self.optimiser = self.accelerator.prepare(self.learner, optimiser)
        self.material = Material([r for r in learn if len(r)], self.accelerator.device, config.known_share)
        self.held_out = Material([r for r in check if len(r)], self.accelerator.device)
        self.average = self.learner.values()
        self.best, self.best_step, self.scores = self.average, 0, []
        self.step, self.plan, self.seconds = 0, config.steps, 0.0
        self.took: list[float] = []
        self._saved_s, self._rows = time.monotonic(), []
        self._phase = ""

    # One step. ------------------------------------------------------------------------------------------------------

    def learn(self) -> None:
        begun = time.monotonic()
        self._enter_phase()
        rng = np.random.default_rng([self.config.seed, self.step, self.accelerator.process_index])
        recording, group, chosen = self.material.draw(rng, self.config.frames)
        parts = self._forward(recording, group, chosen, rng)
        self.optimiser.zero_grad(set_to_none=True)
        if not torch.isfinite(parts["total"]):
            self._broken(group, {name: float(value.detach()) for name, value in parts.items()}, recording, chosen)
        self.accelerator.backward(parts["total"])
        parts["norm"] = self.accelerator.clip_grad_norm_(self.learner.parameters(), self.config.most_gradient)
        told = {name: float(value.detach()) for name, value in parts.items()}
        if not math.isfinite(told["norm"]):
            self._broken(group, told, recording, chosen)
        for settings in self.optimiser.param_groups:
            settings["lr"] = settings["rate"] * self._share_of_rate()
        self.optimiser.step()
        self._follow()
        self.step += 1
        spent = time.monotonic() - begun
        self.took.append(spent)
        self.seconds += spent
        self._plan()
        self._rows.append({"step": self.step, "lr": max(s["lr"] for s in self.optimiser.param_groups), **told})
        if self.plan and (self.step % max(1, self.plan // self.config.checks) == 0 or self.step == self.plan):
            self.check()
        if time.monotonic() - self._saved_s > self.config.checkpoint_s:
            self.save()

    def _forward(
        self, recording: Recording, group: Group, chosen: NDArrayInt, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        rgb = torch.from_numpy(recording.rgb[chosen]).permute(0, 3, 1, 2).float().div(255)
        seen = augment_group(rgb, torch.Generator().manual_seed(int(rng.integers(2**62)))).to(group.rgb)
        share = float(rng.choice(self.config.sizes))
        mirror = (bool(rng.random() < 0.5), bool(rng.random() < 0.5))
        with self.accelerator.autocast():
            found = ask(self.module, seen, recording.camera, share, tuple(group.mask.shape[-2:]), mirror)
        weights = self.config.known_weights if recording.known else self.config.weights
        return group_losses(*found, group, weights)

    def _phases(self) -> tuple[str, int, int | None]:
        """The phase of this step, the step at which it began, and the one at which it ends."""
        names = self.learner.phases
        if len(names) == 1:
            return names[0], 0, self.plan
        turn = None if self.plan is None else round(self.config.first_phase * self.plan)
        if turn is None or self.step < turn:
            return names[0], 0, turn
        return names[1], turn, self.plan

    def _enter_phase(self) -> None:
        name = self._phases()[0]
        if name != self._phase:
            self.learner.set_phase(name)
            self._phase = name

    def _share_of_rate(self) -> float:
        """Linear rise to 1, then a half cosine to a twentieth, in every phase."""
        _, begun, end = self._phases()
        rise = min(1.0, (self.step - begun + 1) / self.config.warmup)
        if end is None:
            return rise
        fall = (self.step - begun) / max(end - begun, 1)
        return rise * (0.05 + 0.95 * (1 + math.cos(math.pi * min(fall, 1.0))) / 2)

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(self.config.average, (self.step + 1) / (self.step + 10))
        for name, tensor in self.learner.tensors.items():
            self.average[name].lerp_(tensor, 1 - decay)

    def _plan(self) -> None:
        """Once it is known how long a step takes, how many fit into the time. Then it stays, unless the machine gets
        so slow that the time is exceeded: what has been learnt by then has to do."""
        if self.plan is not None:
            alone = self.accelerator.num_processes == 1 and self.config.steps is None
            if alone and self.seconds > _OVERTIME * 60 * self.config.minutes:
                self.plan = min(self.plan, max(self.step, _LEAST_STEPS))
            return
        if self.step < _MEASURED_STEPS[1]:
            return
        one = float(np.median(self.took[-(_MEASURED_STEPS[1] - _MEASURED_STEPS[0]) :]))
        left = self.config.minutes * 60 - self.seconds
        # Five per cent for looking at the held-out frames. All processes take the first one's word.
        from accelerate.utils import broadcast_object_list

        told = [int(np.clip(self.step + 0.95 * left / one, _LEAST_STEPS, self.config.most_steps))]
        self.plan = broadcast_object_list(told)[0]
        self.save()

    def _broken(self, group: Group, told: dict[str, float], recording: Recording, chosen: NDArrayInt) -> None:
        """Keep the batch that gave no number, and stop: the weights are still those of the last good step."""
        frames = {"recording": recording.name, "frames": chosen.tolist(), "step": self.step, "losses": told}
        path = self.work / BROKEN
        self.save()
        with _disk(self.work):
            _write(path, {**frames, "group": asdict(group) | {"camera": group.camera.to_dict()}})
        bad = ", ".join(k for k, v in told.items() if not math.isfinite(v))
        raise InputError(
            f"training stopped at step {self.step}: {bad} of frames {chosen.tolist()} of '{recording.name}' is no "
            f"number (the batch is in {path}); leave that recording out, or lower the learning rate"
        )

    # Looking at the held-out frames. ----------------------------------------------------------------------------------

    def check(self) -> None:
        """Hold the moving average against the held-out frames, and keep it if it is the best so far."""
        begun, own = time.monotonic(), self.learner.values()
        self.learner.take(self.average)
        score = held_out_error(self.module, self.held_out)
        self.learner.take(own)
        if not self.scores or score < min(self.scores):
            self.best, self.best_step = {k: v.clone() for k, v in self.average.items()}, self.step
        self.scores.append(score)
        self.seconds += time.monotonic() - begun
        self._write_log(score)

    def _write_log(self, score: float) -> None:
        """A row of means since the last one."""
        names = list(dict.fromkeys(k for row in self._rows for k in row)) or ["step"]
        means = {k: float(np.mean([row[k] for row in self._rows if k in row])) for k in names if self._rows}
        row = {**means, "step": self.step, "seconds": round(self.seconds, 1), "held_out": score}
        self._rows = []
        if not self.accelerator.is_main_process:
            return
        path, columns = self.work / LOG, _columns(self.config.weights, self.config.known_weights)
        with _disk(self.work):
            self.log({k: float(v) for k, v in row.items() if k in columns})
            new = not path.exists()
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, columns, restval="")
                if new:
                    writer.writeheader()
                writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items() if k in columns})

    # On disk. ---------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write what is needed to go on, whole or not at all."""
        self._saved_s = time.monotonic()
        if not self.accelerator.is_main_process:
            return
        state = {
            "config": _as_plain(self.config),
            "tensors": self.learner.values(),
            "average": self.average,
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
            "numbers": (self.step, self.plan, self.seconds, self.best_step),
            "scores": self.scores,
            "took": self.took,
        }
        with _disk(self.work):
            _write(self.work / "checkpoint.part", state)
            (self.work / "checkpoint.part").replace(self.work / CHECKPOINT)

    def resume(self) -> bool:
        """Go on from the checkpoint in the folder, if there is one.

        Raises:
            InputError: it is of another configuration, or broken.
        """
        path = self.work / CHECKPOINT
        if not path.is_file():
            return False
        try:
            state = torch.load(path, weights_only=True, map_location=self.accelerator.device)
            told = state["config"]
        except (OSError, RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(f"{path} can't be read ({type(error).__name__}): remove it to begin anew") from error
        if told != _as_plain(self.config):
            raise InputError(f"{path} is of another configuration: remove it to begin anew")
        try:
            self.learner.take(state["tensors"])
            self.average, self.best = state["average"], state["best"]
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.plan, self.seconds, self.best_step = state["numbers"]
            self.scores, self.took = state["scores"], state["took"]
        except (RuntimeError, KeyError, ValueError) as error:
            raise InputError(f"{path} is of another network ({error!r}): remove it to begin anew") from error
        return True

    def forget_later_rows(self) -> None:
        """Leave in the log what was written up to this step: a run that was killed has gone on after its checkpoint."""
        path = self.work / LOG
        if not self.accelerator.is_main_process or not path.exists():
            return
        with _disk(self.work):
            lines = path.read_text().splitlines(keepends=True) if self.step else []
            kept = [line for n, line in enumerate(lines) if not n or int(line.split(",")[0]) <= self.step]
            path.write_text("".join(kept)) if kept else path.unlink()

    def finished(self) -> Adapted:
        after, gain = min(self.scores), self.scores[0] - min(self.scores)
        if gain > 0 and self.scores[0] - self.scores[-1] >= _AS_GOOD * gain:
            self.best, self.best_step, after = self.average, self.step, self.scores[-1]
        self.learner.take(self.best)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if self.accelerator.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated() / 2**20
        count = sum(t.numel() for t in self.learner.tensors.values())
        took = float(np.median(self.took)) if self.took else math.nan
        return Adapted(self.learner, self.scores[0], after, self.step, self.best_step, count, took, memory)


def held_out_error(learner: nn.Module, material: Material) -> float:
    """Mean relative error against the run's own depth, one scale a frame, at the full working size."""
    found: list[float] = []
    with torch.no_grad():
        for number, recording in enumerate(material.recordings):
            count = max(1, round(_CHECKED_FRAMES * len(recording) / len(material._frames)))
            at = np.unique(np.linspace(0, len(recording) - 1, count).round().astype(int))
            for chosen in np.split(at, range(2, len(at), 2)):
                group = material.group(number, chosen)
                rgb = torch.from_numpy(recording.rgb[chosen]).permute(0, 3, 1, 2).float().div(255).to(group.rgb)
                size = tuple(group.mask.shape[-2:])
                log_distance, _ = ask(learner, rgb, recording.camera, 1.0, size, (False, False))
                found += relative_error(log_distance, group.distance, group.confidence)
    return float(np.mean(found)) if found else math.nan


def _columns(*weights: Weights) -> list[str]:
    on = [f.name for f in fields(Weights) if any(getattr(w, f.name) for w in weights)]
    return ["step", "seconds", "lr", "held_out", "total", "norm", *on]


def _as_plain(config: Config) -> dict[str, Any]:
    """Plain values; lists for tuples, as a file gives them back."""
    plain = asdict(config)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}


def _write(path: Path, state: dict[str, Any]) -> None:
    """`torch.save`, whose own words on a full disk ("unexpected pos") tell nothing of it."""
    held = io.BytesIO()
    torch.save(state, held)
    path.write_bytes(held.getbuffer())


class _disk:
    """Says in a sentence where a folder can't be written."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise InputError(
                f"{self.folder} can't be written ({error}): free some space or choose another place; what was written "
                "before is kept"
            ) from error
