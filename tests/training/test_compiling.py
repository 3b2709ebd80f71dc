"""Captured and compiled runs are those of plain calls; `auto` decides by seconds."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from impon_hpo.errors import ConfigError
from impon_hpo.training import compiling
from impon_hpo.training.checkpoint import Checkpoint
from impon_hpo.training.compiling import COMPILE_SECONDS, GAIN
from impon_hpo.training.images import Images
from impon_hpo.training.row_memory import RowMemory
from impon_hpo.training.splits import Split, Splits
from impon_hpo.training.training_run import TrainingRun, train_epochs
from tests.sampling.tape import on_tape
from tests.training.runs import config, numbers, results_of

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
]
STEPS = {"epoch_fraction": 1.0, "epochs": 2}
"""Ten steps an epoch: enough for the capture and some replays."""

AUXILIARY = "tests.training.nets:with_auxiliary"

ARMS: list[dict[str, Any]] = [
    {},
    {"optimizer": "adam", "schedule": "one-cycle", "lr": 1e-3},
    {"optimizer": "adamw", "schedule": "rungs", "weight_decay": 0.1, "lr": 1e-3},
    {"eval_weights": "ema", "schedule": "constant", "warmup_epochs": 1.0},
    {"sampler": "impon"},
    {"sampler": "impon-memory"},
    {"sampler": "impon-paced"},
    {"sampler": "impon-trusted"},
    {"sampler": "selective-backprop"},
    {"sampler": "grad-norm", "label_smoothing": 0.1},
    {"sampler": "infobatch"},
    {"augment": "auto+flip+mixup+cutmix", "label_smoothing": 0.1},
    {"augment": "auto+trivial+erase+tests.training.augmenting:shifted", "sampler": "impon"},
    {"sampler": "placebo", "sampler_options": {"of": "impon"}},
    {"model": "tests.training.nets:dropping"},
    {"model": "tests.training.nets:drop_path", "sampler": "impon"},
    {"model": "tests.training.nets:Body", "train_layers": "layer2, head", "lr_head": 0.2},
    {"model": AUXILIARY, "model_options": {"answer": "two-named"}, "class_weights": "balanced"},
]


def named(arm: dict[str, Any]) -> str:
    return " ".join(map(str, arm.values())) or "uniform"


def assert_about(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Assert that two runs are the same but for the learning rate's rounding to float32."""
    for one, other in zip(found, expected, strict=True):
        for loss in ("train_loss", "val_loss"):
            assert one[loss] == pytest.approx(other[loss], rel=1e-3)


@pytest.mark.parametrize("arm", ARMS, ids=named)
def test_captured_run_is_that_of_plain_calls(arm: dict[str, Any], tiny_splits: Splits) -> None:
    given = STEPS | arm
    expected = results_of(tiny_splits, **given)
    with on_tape() as tape:
        found = results_of(tiny_splits, **given)
    assert tape.replays >= 15
    if given.get("optimizer", "sgd") == "sgd":
        assert found == expected
    else:
        assert_about(found, expected)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_captured_run_goes_on_where_it_was_stopped(
    optimizer: str, tiny_splits: Splits, tmp_path: Path
) -> None:
    given = config(**STEPS, optimizer=optimizer, sampler="impon-memory", eval_weights="ema")
    checkpoint = Checkpoint(tmp_path / "c.pt")
    with on_tape():
        expected = numbers(train_epochs(given, tiny_splits))
        before = numbers(list(islice(train_epochs(given, tiny_splits, checkpoint), 1)))
        assert before + numbers(train_epochs(given, tiny_splits, checkpoint)) == expected
    # Begun on a GPU, it can be ended on a CPU, and the other way round.
    checkpoint.delete()
    with on_tape():
        list(islice(train_epochs(given, tiny_splits, checkpoint), 1))
    assert_about(before + numbers(train_epochs(given, tiny_splits, checkpoint)), expected)
    checkpoint.delete()
    list(islice(train_epochs(given, tiny_splits, checkpoint), 1))
    with on_tape():
        assert_about(before + numbers(train_epochs(given, tiny_splits, checkpoint)), expected)


def test_memory_takes_in_what_a_captured_run_sees(tiny_splits: Splits) -> None:
    references = []
    for captured in (False, True):
        memory = RowMemory(tiny_splits.train.labels, tiny_splits.n_classes)
        if captured:
            with on_tape():
                list(train_epochs(config(**STEPS), tiny_splits, memory=memory))
        else:
            list(train_epochs(config(**STEPS), tiny_splits, memory=memory))
        references.append(memory.reference())
    assert torch.equal(references[0].loss, references[1].loss)


def test_graph_without_a_gpu_is_refused_with_what_to_do(tiny_splits: Splits) -> None:
    with pytest.raises(ConfigError, match=r"compile = 'graph' needs a CUDA GPU.*'auto'"):
        TrainingRun(config(compile="graph"), tiny_splits)


@pytest.mark.parametrize(
    ("compile", "on_cpu", "on_gpu"), [("auto", "off", "graph"), ("off", "off", "off")]
)
def test_mode_fits_the_device(compile: str, on_cpu: str, on_gpu: str, tiny_splits: Splits) -> None:
    assert TrainingRun(config(compile=compile), tiny_splits).compiled.mode == on_cpu
    with on_tape() as tape:
        run = TrainingRun(config(compile=compile, **STEPS), tiny_splits)
        assert run.compiled.mode == on_gpu
        run.train_epoch()
    assert (tape.made > 0) == (on_gpu == "graph")


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Has torch compile nothing, and lists what it was asked to compile."""
    asked: list[nn.Module] = []

    def compile(model: nn.Module, *, dynamic: bool) -> Callable[[Tensor], Tensor]:
        assert dynamic is False
        asked.append(model)
        return model

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(compiling, "_compiled", set())
    return asked


def test_auto_compiles_once_where_the_epochs_to_come_pay_for_it(
    tiny_splits: Splits, compilations: list[nn.Module], said: list[str]
) -> None:
    given = config(**(STEPS | {"epochs": 4}))
    expected = results_of(tiny_splits, **(STEPS | {"epochs": 4}))
    with on_tape():
        run = TrainingRun(given, tiny_splits, epochs_ahead=96.0)
        found = [run.train_epoch()]
        assert run.compiled.mode == "graph"  # epochs of a few milliseconds
        assert said == []
        # Three epochs are left of this run, and 96 of others.
        run.compiled.epoch_done(0.9 * COMPILE_SECONDS / GAIN / 99, 3)
        assert run.compiled.mode == "graph"
        run.compiled.epoch_done(1.1 * COMPILE_SECONDS / GAIN / 99, 3)
        assert run.compiled.mode == "inductor"
        run.compiled.epoch_done(1e9, 2)
        found += [run.train_epoch() for _ in range(3)]
        # The next run of this shape has nothing to wait for; one of another shape has.
        assert TrainingRun(given, tiny_splits).compiled.mode == "inductor"
        assert TrainingRun(config(batch_size=16), tiny_splits).compiled.mode == "graph"
    assert numbers(found) == expected
    assert len(compilations) == 2
    (line,) = said
    assert "about 99 epochs" in line
    assert f"about {COMPILE_SECONDS:.0f} s" in line


def test_last_epoch_of_a_run_decides_nothing(
    tiny_splits: Splits, compilations: list[nn.Module]
) -> None:
    with on_tape():
        run = TrainingRun(config(), tiny_splits, epochs_ahead=1e9)
        run.compiled.epoch_done(1e9, 0)
    assert run.compiled.mode == "graph"
    assert compilations == []


@pytest.fixture
def _failing(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile(model: nn.Module, *, dynamic: bool) -> Callable[[Tensor], Tensor]:
        def fail(inputs: Tensor) -> Tensor:
            raise torch._dynamo.exc.TorchDynamoException("no C++ compiler\nand more")

        return fail

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(compiling, "_compiled", set())


@pytest.mark.usefixtures("_failing")
def test_compiler_that_fails_is_a_mistake_to_ask_for(tiny_splits: Splits) -> None:
    run = TrainingRun(config(compile="inductor"), tiny_splits)
    with pytest.raises(ConfigError, match=r"cannot compile this model here: no C\+\+ compiler U"):
        run.train_epoch()


@pytest.mark.usefixtures("_failing")
def test_compiler_that_fails_is_done_without_under_auto(
    tiny_splits: Splits, said: list[str]
) -> None:
    with on_tape():
        run = TrainingRun(config(**STEPS), tiny_splits, epochs_ahead=0)
        found = [run.train_epoch()]
        run.compiled.epoch_done(1e9, 1)
        found.append(run.train_epoch())
        run.compiled.epoch_done(1e9, 1)
    assert run.compiled.mode == "graph"
    assert said[-1] == "compile: torch cannot compile this model here: no C++ compiler"
    assert len(found) == 2


def on_gpu(splits: Splits) -> Splits:
    def moved(part: Split) -> Split:
        return Split(Images.of_tensor(part.images[:].cuda()), part.labels.cuda())

    assert splits.reference is not None
    return dataclasses.replace(
        splits,
        train=moved(splits.train),
        validation=moved(splits.validation),
        test=moved(splits.test),
        reference=splits.reference.to(torch.device("cuda")),
    )


@pytest.fixture
def gpu_splits(tiny_splits: Splits) -> Iterator[Splits]:
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield on_gpu(tiny_splits)


class TestOnGpu:
    """What only a GPU can show."""

    pytestmark = needs_gpu

    @pytest.mark.parametrize("arm", ARMS, ids=named)
    def test_captured_run_is_that_of_plain_calls(
        self, arm: dict[str, Any], gpu_splits: Splits
    ) -> None:
        given = STEPS | arm | {"autocast": False}
        plain = results_of(gpu_splits, **given, compile="off")
        graph = results_of(gpu_splits, **given, compile="graph")
        for one, other in zip(plain, graph, strict=True):
            assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
            assert other["rows_scored"] == one["rows_scored"]
            assert other["share_seen"] == one["share_seen"]

    @pytest.mark.filterwarnings("ignore")  # the compiler's own
    def test_compiled_run_learns_the_same(self, gpu_splits: Splits) -> None:
        plain = results_of(gpu_splits, **STEPS, compile="off")
        compiled = results_of(gpu_splits, **STEPS, compile="inductor")
        for one, other in zip(plain, compiled, strict=True):
            assert other["train_loss"] == pytest.approx(one["train_loss"], rel=5e-2)

    def test_captured_run_is_the_same_each_time(self, gpu_splits: Splits) -> None:
        given = STEPS | {"sampler": "impon-memory", "compile": "graph", "eval_weights": "ema"}
        assert results_of(gpu_splits, **given) == results_of(gpu_splits, **given)

    def test_captured_run_goes_on_where_it_was_stopped(
        self, gpu_splits: Splits, tmp_path: Path
    ) -> None:
        given = config(**STEPS, sampler="impon-memory", compile="graph", eval_weights="ema")
        checkpoint = Checkpoint(tmp_path / "c.pt")
        expected = numbers(train_epochs(given, gpu_splits))
        before = numbers(list(islice(train_epochs(given, gpu_splits, checkpoint), 1)))
        assert before + numbers(train_epochs(given, gpu_splits, checkpoint)) == expected

    def test_memory_of_a_run_is_given_back(self, gpu_splits: Splits) -> None:
        held = []
        for _ in range(4):
            list(train_epochs(config(**STEPS, width=16, compile="graph"), gpu_splits))
            gc.collect()
            torch.cuda.empty_cache()
            held.append(torch.cuda.memory_reserved())
        assert held[-1] <= held[1]

    @pytest.mark.filterwarnings("ignore:Synchronization debug mode")
    @pytest.mark.parametrize("compile", ["off", "graph"])
    def test_no_step_waits_for_the_gpu(self, compile: str, gpu_splits: Splits) -> None:
        run = TrainingRun(config(**STEPS, compile=compile, eval_weights="ema"), gpu_splits)
        run.train_epoch()
        run.sampler.start_epoch(2)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                draw = run.sampler.draw()
                losses, logits, _ = run.step(*run.splits.train.batch(draw.rows), draw.weights)
                run.sampler.observe(draw, losses, logits)
        finally:
            torch.cuda.set_sync_debug_mode("default")
