"""The trainer: what learns and what does not, the split, resuming, stopping, and what is said of bad input."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_recording import FISHEYE, PINHOLE, made

from foundation_adapters.adaptation import CHECKPOINT, LOG, Config, _Run, adapt
from foundation_adapters.adapter_files import load_adapter, merged, save_adapter
from foundation_adapters.augment import augment_group
from foundation_adapters.learner import FULL, NAME, Base, Learner, load_base, read_network
from foundation_adapters.material import Material, ask
from foundation_adapters.network import Network
from foundation_adapters.recordings import Recording, split
from foundation_adapters.self_supervision import Weights
from video_io.errors import InputError

QUICK = Config(steps=8, checks=2, frames=3, sizes=(1.0,), first_phase=0.5, warmup=2, learning_rate=3e-3)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return Network().state_dict()


@pytest.fixture
def base(weights: dict[str, torch.Tensor]) -> Base:
    """The shipped network's architecture with random weights."""
    network = Network()
    network.load_state_dict(weights)
    return Base(network.eval().requires_grad_(False), read_network, ("distance",))


def test_what_has_learnt_before_learns_at_its_own_rate() -> None:
    base = load_base("tiny")
    head = sum(p.numel() for p in base.network.distance.parameters())
    groups = Learner(base, "gdvlora", 4).groups(0.01, 1e-3, 1e-4)
    count = {g["rate"]: 0 for g in groups}
    for group in groups:
        count[group["rate"]] += sum(p.numel() for p in group["params"])
        assert group["lr"] == group["rate"] and all(p.ndim > 1 for p in group["params"]) == (group["weight_decay"] > 0)
    assert count[1e-4] == head and count[1e-3] > 0
    full = Learner(load_base("tiny"), FULL, 4).groups(0.01, 1e-3, 1e-4)
    assert sum(p.numel() for g in full if g["rate"] == 1e-3 for p in g["params"]) == 0


@pytest.mark.parametrize(("scores", "kept"), [([1.0, 0.5, 0.58], 8), ([1.0, 0.5, 0.62], 4), ([1.0, 1.1, 1.2], 0)])
def test_the_last_checkpoint_is_kept_unless_it_gains_clearly_less(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: list[float], kept: int
) -> None:
    told = iter(scores)
    monkeypatch.setattr("foundation_adapters.adaptation.held_out_error", lambda *_: next(told))
    adapted = run(base, tmp_path / "work")
    assert (adapted.best_step, adapted.after) == (kept, {8: scores[2], 4: scores[1], 0: scores[0]}[kept])


def run(base: Base, work: Path, config: Config = QUICK, stop_at: int | None = None):  # type: ignore[no-untyped-def]
    work.mkdir(exist_ok=True)

    def progress(stage: str, done: int, total: int | None) -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    learn, check = split([made(frames=14)])
    return adapt(base, learn, check, work, config, progress)


@pytest.mark.parametrize("method", ["gdvlora", "dvlora", "lora", "dora", FULL])
def test_every_tensor_that_learns_moves_and_no_other(method: str, tmp_path: Path) -> None:
    # With trained weights: through a random network of this depth hardly any gradient comes.
    base = load_base("tiny")
    weights = {name: value.clone() for name, value in base.network.state_dict().items()}
    start = Learner(replace(base), method, 4).values() if method == FULL else {}
    config = replace(QUICK, method=method, full_learning_rate=1e-3)
    work = tmp_path / "work"
    work.mkdir()
    learn, check = split([made(frames=14)])
    first: dict[str, torch.Tensor] = {}

    def remember(stage: str, done: int, total: int | None) -> None:
        if done == 1:
            first.update(torch.load(work / CHECKPOINT)["tensors"])

    adapted = adapt(base, learn, check, work, replace(config, checkpoint_s=0.0), remember)
    last = torch.load(work / CHECKPOINT)["tensors"]
    assert set(last) == set(adapted.learner.tensors)
    still = [name for name in last if torch.equal(last[name], (start or first)[name])]
    # Looked at after one step: A and B learn in the first phase, u, v and the gate in the second.
    assert still == []
    own = {id(t) for t in adapted.learner.tensors.values()}
    for name, tensor in adapted.learner.model.state_dict(keep_vars=True).items():
        plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".").replace(".original_module.", ".")
        if id(tensor) not in own and plain in weights:
            assert torch.equal(tensor, weights[plain]), name


def test_phases_follow_each_other(base: Base, tmp_path: Path) -> None:
    adapted = run(base, tmp_path / "work")
    after = {n for n, t in adapted.learner.tensors.items() if t.requires_grad}
    kinds = {n.split(".")[-2] for n in after if "gdvlora" in n}
    assert kinds == {"gdvlora_u", "gdvlora_v", "gdvlora_gate"}
    assert any("distance.modules_to_save" in n for n in after)


def test_stopped_and_called_again_gives_the_same_weights(
    base: Base, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    whole = run(base, tmp_path / "whole")
    for stop in (3, 6):  # in the first phase, and in the second
        work = tmp_path / f"stopped_{stop}"
        with pytest.raises(KeyboardInterrupt):
            run(_fresh(weights), work, stop_at=stop)
        again = run(_fresh(weights), work)
        assert again.best_step == whole.best_step
        assert again.after == whole.after
        for name, tensor in whole.learner.tensors.items():
            assert torch.equal(tensor, again.learner.tensors[name]), name
        rows = list(csv.DictReader((work / LOG).open()))
        assert [row["step"] for row in rows] == ["0", "4", "8"]


def _fresh(weights: dict[str, torch.Tensor]) -> Base:
    network = Network()
    network.load_state_dict(weights)
    return Base(network.eval().requires_grad_(False), read_network, ("distance",))


def test_it_learns_the_plane(tmp_path: Path) -> None:
    adapted = run(load_base("tiny"), tmp_path / "work", replace(QUICK, steps=30, average=0.8))
    # A plane with waves on it, which nothing that it was trained on looks like.
    assert adapted.after < 0.85 * adapted.before
    assert adapted.best_step > 0
    assert adapted.steps == 30


def test_another_configuration_does_not_go_on(base: Base, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    run(base, tmp_path / "work")
    with pytest.raises(InputError, match="another configuration"):
        run(_fresh(weights), tmp_path / "work", replace(QUICK, rank=2))


def test_a_broken_checkpoint_is_said(base: Base, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / CHECKPOINT).write_bytes(b"nothing")
    with pytest.raises(InputError, match="can't be read"):
        run(base, tmp_path / "work")


def test_what_is_no_number_stops_with_the_batch(base: Base, tmp_path: Path) -> None:
    broken = made(frames=14)
    broken.distance[:] = np.inf
    with pytest.raises(InputError, match=r"stopped at step 0: .*no number \(the batch is in") as error:
        adapt(base, [broken], [made(frames=4)], tmp_path, QUICK)
    assert "plane" in str(error.value)
    held = torch.load(tmp_path / "broken_batch.pt", weights_only=False)
    assert held["group"]["rgb"].shape == (3, 3, 32, 48)
    assert torch.isinf(held["group"]["distance"]).any()


def test_a_full_disk_is_said_in_a_sentence(base: Base, tmp_path: Path) -> None:
    (tmp_path / LOG).mkdir()  # a folder where the log should be: it can't be opened for writing
    with pytest.raises(InputError, match="can't be written"):
        run(base, tmp_path)


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(base: Base, tmp_path: Path, full_disk) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(KeyboardInterrupt):
        run(base, tmp_path, stop_at=3)
    kept = (tmp_path / CHECKPOINT).read_bytes()
    learn, check = split([made(frames=14)])
    again = _Run(load_base("tiny"), learn, check, tmp_path, QUICK)
    with full_disk(), pytest.raises(InputError, match=r"can't be written .*free some space"):
        again.save()
    assert (tmp_path / CHECKPOINT).read_bytes() == kept


def test_each_row_of_the_log_is_told(base: Base, tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    learn, check = split([made(frames=14)])
    adapt(base, learn, check, tmp_path, QUICK, log=rows.append)
    with (tmp_path / LOG).open() as file:
        written = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == [0, 4, 8] == [int(row["step"]) for row in written]
    assert rows[-1]["held_out"] == pytest.approx(float(written[-1]["held_out"]), rel=1e-4)
    assert "photometric" in rows[-1] and "total" in rows[-1]


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from foundation_adapters.curves import TensorBoard

    log = TensorBoard(tmp_path)
    log({"step": 4.0, "total": 0.5})
    log({"step": 8.0, "total": 0.25})
    log.close()
    told = EventAccumulator(str(tmp_path))
    told.Reload()
    assert [(e.step, e.value) for e in told.Scalars("training/total")] == [(4, 0.5), (8, 0.25)]


def test_without_tensorboard_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    from foundation_adapters import curves

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'endorecon\[tensorboard\]'"):
        curves.check()


def test_the_time_plans_the_steps(base: Base, tmp_path: Path) -> None:
    seen = []
    learn, check = split([made(frames=14)])
    config = replace(QUICK, steps=None, most_steps=70, minutes=1e-3)
    adapted = adapt(base, learn, check, tmp_path, config, lambda *told: seen.append(told))
    # A thousandth of a minute is over before the first steps are: the least that makes sense is done.
    assert adapted.steps == 20
    assert seen[0] == ("adapting", 1, None)
    assert seen[-1] == ("adapting", 20, 20)


def test_a_machine_that_gets_slow_ends_in_time(base: Base, tmp_path: Path) -> None:
    learn, check = split([made(frames=14)])
    run = _Run(base, learn, check, tmp_path, replace(QUICK, steps=None, minutes=10.0))
    run.step, run.plan, run.seconds = 300, 900, 660.0
    run._plan()
    assert run.plan == 900
    run.seconds = 661.0  # ten per cent over the time
    run._plan()
    assert run.plan == 300


def test_the_adapter_is_saved_and_read_back(base: Base, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    adapted = run(base, tmp_path / "work")
    save_adapter(adapted.learner.model, tmp_path / "adapter", "tiny", "yours", NAME, ("depth",))
    network = _fresh(weights).network
    again = merged(load_adapter(network, tmp_path / "adapter", "tiny"), tmp_path / "adapter")
    image, rays = torch.rand(1, 3, 64, 96), torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        expected, _ = adapted.learner(image, rays)
        found, _ = read_network(again, image, rays)
    assert torch.allclose(expected, found, atol=1e-4)


def test_depth_anything_can_be_adapted(checkpoint: Path, tmp_path: Path) -> None:
    base = load_base(str(checkpoint))
    torch.nn.init.constant_(base.network.head.conv3.bias, 1.0)
    adapted = run(base, tmp_path / "work")
    assert adapted.trainable == 8 * (4 * (32 + 128) + 4 + 1) + 4 * (128 + 32)
    assert np.isfinite(adapted.after)


def test_the_split_is_by_clip_or_by_time() -> None:
    clips = [made(frames=n, name=name) for n, name in ((10, "a"), (8, "b"), (12, "a"), (9, "c"))]
    learn, check = split(clips)
    assert {r.name for r in learn} == {"a", "c"}
    assert {r.name for r in check} == {"b"}
    learn, check = split([made(frames=6, name="a"), made(frames=14, name="a")])
    assert [len(r) for r in learn] == [6, 10]
    assert [len(r) for r in check] == [4]
    assert check[0].world_from_cam[0, 0, 3] > learn[1].world_from_cam[-1, 0, 3]
    with pytest.raises(InputError, match="only 5 frames can be learnt from"):
        split([made(frames=5)])


def test_neighbours_see_the_same_from_elsewhere() -> None:
    recording = made(frames=13, tilt=0.0)
    # Steps of 1 sideways and 0.5 forwards: 1.118 each, of a median distance of about 41: two steps make 3 per cent
    # (and 0.03 * 41 / 1.118 = 1.1); all are nearer than 35 per cent (12.8 steps).
    assert recording.neighbours[6].tolist() == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]
    turned = recording.world_from_cam.copy()
    turned[8, :3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    assert 8 not in replace(recording, world_from_cam=turned).neighbours[6]


def test_recordings_are_written_and_read(tmp_path: Path) -> None:
    recording = made(FISHEYE, frames=3)
    recording.save(tmp_path / "r.npz")
    again = Recording.load(tmp_path / "r.npz")
    assert again.camera == FISHEYE
    assert again.name == "plane"
    assert np.array_equal(again.rgb, recording.rgb)
    assert np.array_equal(again.distance, recording.distance)
    (tmp_path / "r.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="remove it, and it is made again"):
        Recording.load(tmp_path / "r.npz")
    with pytest.raises(ValueError, match="mask is"):
        replace(recording, mask=recording.mask[:2])


def test_frames_of_a_group_change_alike() -> None:
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 0.5 + 0.2
    changed = [augment_group(image.repeat(3, 1, 1, 1), torch.Generator().manual_seed(seed)) for seed in range(12)]
    assert any((c - image).abs().mean() > 0.02 for c in changed)
    for three in changed:
        # Only noise differs between the frames, and its mean is nought.
        assert (three.mean((2, 3)) - three.mean((2, 3))[:1]).abs().max() < 0.01


def test_a_mirrored_look_gives_the_same_map_for_a_network_of_the_rays() -> None:
    """A stand-in that says the ray's x: mirrored, it must say what it says unmirrored, at its place."""

    def say_x(image: torch.Tensor, rays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.nn.functional.interpolate(
            rays[:, :1].abs() + image.mean(1, keepdim=True)[:, :, ::2, ::2], scale_factor=2
        )
        return x[:, 0], x[:, 0]

    rgb = torch.rand(1, 3, 64, 96)
    plain, _ = ask(say_x, rgb, PINHOLE, 1.0, (64, 96), (False, False))
    for mirror in ((True, False), (False, True), (True, True)):
        found, _ = ask(say_x, rgb, PINHOLE, 1.0, (64, 96), mirror)
        assert found.shape == plain.shape
        # The image is taken at every second pixel, which mirrors by one pixel: means agree.
        assert torch.allclose(found.mean((1, 2)), plain.mean((1, 2)), atol=0.02)
    tilted = torch.linspace(0, 1, 96).expand(1, 3, 64, 96)
    left, right = (ask(say_x, tilted, PINHOLE, 1.0, (64, 96), (m, False))[0] for m in (False, True))
    assert (left - right).abs().max() < 0.03


def test_draws_follow_from_seed_and_step() -> None:
    material = Material([made(frames=14)], torch.device("cpu"))
    one, two, other = (material.draw(np.random.default_rng([0, step, 0]), 4)[2] for step in (3, 3, 4))
    assert one.tolist() == two.tolist() != other.tolist()
    assert set(one[1:]) <= set(material.recordings[0].neighbours[one[0]])


def test_weights_without_anything_unknown() -> None:
    assert Weights().without("light").light == 0
    assert Weights().without("light").photometric == Weights().photometric


TWO = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
from made_recording import made
from foundation_adapters.adaptation import Config, adapt
from foundation_adapters.learner import load_base
from foundation_adapters.recordings import split
torch.set_num_threads(1)
learn, check = split([made(frames=14)])
config = Config(steps=None, most_steps=16, minutes=0.01, checks=2, frames=3, sizes=(1.0,), first_phase=0.5, warmup=2)
adapted = adapt(load_base("tiny"), learn, check, Path(sys.argv[2]), config)
from accelerate import PartialState
total = sum(float(t.double().abs().sum()) for t in adapted.learner.tensors.values())
state = PartialState()
Path(sys.argv[2], f"rank_{state.process_index}").write_text(f"{state.num_processes} {adapted.steps} {total!r}")
"""


KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from made_recording import made
from test_adaptation import QUICK
from foundation_adapters.adaptation import adapt
from foundation_adapters.learner import load_base
from foundation_adapters.recordings import split
def progress(stage, done, total):
    if done == 6:
        os.kill(os.getpid(), signal.SIGKILL)
learn, check = split([made(frames=14)])
adapt(load_base("tiny"), learn, check, Path(sys.argv[2]), replace(QUICK, checkpoint_s=float(sys.argv[3])), progress)
"""


@pytest.mark.slow
@pytest.mark.parametrize("every", [0.0, 60.0], ids=["a checkpoint a step", "no checkpoint yet"])
def test_killed_and_called_again_gives_the_same_weights(tmp_path: Path, every: float) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    work, config = tmp_path / "work", replace(QUICK, checkpoint_s=every)
    work.mkdir()
    command = [sys.executable, str(tmp_path / "killed.py"), str(Path(__file__).parent), str(work), str(every)]
    around = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run(command, capture_output=True, check=False, env=around).returncode == -9
    assert (work / CHECKPOINT).exists() is (every == 0)
    whole = run(load_base("tiny"), tmp_path / "whole", config)
    again = run(load_base("tiny"), work, config)
    for name, tensor in whole.learner.tensors.items():
        assert torch.equal(tensor, again.learner.tensors[name]), name
    # What the killed run had written after its last checkpoint is not there twice.
    assert [row["step"] for row in csv.DictReader((work / LOG).open())] == ["0", "4", "8"]


@pytest.mark.slow
def test_two_processes_learn_one_adapter(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    command += [str(tmp_path / "two.py"), str(Path(__file__).parent), str(tmp_path)]
    around = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=around)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = ((tmp_path / f"rank_{rank}").read_text().split() for rank in (0, 1))
    assert first == second
    assert first[:2] == ["2", "16"]


def test_half_of_the_steps_are_on_clips_with_truth() -> None:
    """Though these are many more frames; and with one kind alone every draw is from it."""
    few, many = made(frames=6), replace(made(frames=30, name="known"), known=True)
    material = Material([few, many], torch.device("cpu"), 0.5)
    drawn = [material.draw(np.random.default_rng(i), 3)[0].known for i in range(200)]
    assert 80 <= sum(drawn) <= 120  # of 200, three standard deviations of a fair coin: 21
    assert all(Material([many], torch.device("cpu")).draw(np.random.default_rng(i), 3)[0].known for i in range(5))


def test_what_is_known_stays_known_on_disk(tmp_path: Path) -> None:
    replace(made(frames=4), known=True).save(tmp_path / "a.npz")
    made(frames=4).save(tmp_path / "b.npz")
    assert Recording.load(tmp_path / "a.npz").known and not Recording.load(tmp_path / "b.npz").known


def test_clips_with_truth_are_learnt_from_by_their_depth_alone(tmp_path: Path) -> None:
    learn, check = split([replace(made(frames=14), known=True)])
    seen = {}
    adapted = adapt(load_base("tiny"), learn, check, tmp_path, replace(QUICK, steps=30, average=0.8))
    for row in csv.DictReader((tmp_path / LOG).open()):
        seen |= {name: value for name, value in row.items() if value}
    assert {"distill", "gradient", "spread", "scale"} <= set(seen)
    assert not {"photometric", "light", "geometric", "smooth"} & set(seen)
    assert adapted.after < 0.85 * adapted.before
