"""Captured functions: the same as called ones, if no Python number in them changes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from impon_hpo.sampling.captured import WARM_UP, Captured, call
from impon_hpo.sampling.table import SAMPLERS
from tests.sampling.courses import DEVICES, Course, assert_same, rows_of
from tests.sampling.tape import on_tape

CPU = torch.device("cpu")


class Adder:
    """Adds its input to a total, and a random number where it has a generator."""

    def __init__(self, device: str = "cpu", seed: int | None = None) -> None:
        self.total = torch.zeros(3, device=device)
        self.calls = 0
        self.generator = None
        if seed is not None:
            self.generator = torch.Generator(device=device).manual_seed(seed)

    def add(self, given: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.calls += 1
        self.total += given if weights is None else weights * given
        if self.generator is not None:
            self.total += torch.rand(3, generator=self.generator, device=self.total.device)
        return self.total * 2, given + 1

    def count(self, given: Tensor) -> tuple[Tensor]:
        self.calls += 1
        return (given + self.calls,)


@pytest.mark.parametrize("device", DEVICES)
def test_captured_calls_are_those_of_the_function(device: str) -> None:
    plain, other = (Adder(device, seed=3) for _ in range(2))
    with on_tape() if device == "cpu" else torch.no_grad():
        add = Captured(
            other.add, torch.device(device), generators=[other.generator or torch.Generator()]
        )
    kept = []
    for step in range(4 * WARM_UP):
        given = torch.arange(3.0, device=device) * step
        weights = given + 1 if step % 2 else None
        expected, result = plain.add(given, weights), add(given, weights)
        kept += [(one.clone(), two) for one, two in zip(expected, result, strict=True)]
    # Later calls have not written over what earlier ones returned.
    for one, two in kept:
        assert torch.equal(one, two)
    assert other.calls < plain.calls


def test_without_a_gpu_the_function_is_called() -> None:
    adder = Adder()
    add = Captured(adder.add, CPU)
    for _ in range(6):
        add(torch.ones(3))
    assert adder.calls == 6


def test_a_python_number_that_changes_would_be_seen_by_the_tape() -> None:
    adder = Adder()
    with on_tape():
        count = Captured(adder.count, CPU)
        result = [count(torch.zeros(1))[0].item() for _ in range(6)]
    assert result == [1, 2, 3, 4, 4, 4]


def test_function_that_yields_has_its_result_before_it_ends() -> None:
    happened = list[str]()

    def work(given: Tensor) -> Iterator[tuple[Tensor]]:
        yield (given + 1,)
        happened.append("rest")

    result = call(work, [torch.zeros(1)], lambda: happened.append("halfway"))
    assert result[0].item() == 1
    assert happened == ["halfway", "rest"]
    assert Captured(work, CPU)(torch.zeros(1))[0].item() == 1
    assert happened == ["halfway", "rest", "rest"]


def test_each_kind_of_input_has_a_graph_of_its_own() -> None:
    adder = Adder()
    with on_tape() as tape:
        add = Captured(adder.add, CPU)
        for _ in range(8):
            add(torch.ones(3))
            add(torch.ones(3), torch.ones(3))
            add(torch.ones(1))
    assert tape.made == 3
    assert tape.replays == 3 * (8 - WARM_UP)


def test_what_cannot_be_captured_is_called_and_the_reason_told() -> None:
    adder, reasons = Adder(), list[str]()

    class Refusing:
        def __init__(self, *given: object) -> None:
            raise RuntimeError("operation not permitted")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("impon_hpo.sampling.captured.graph_on", lambda device: Refusing)
        add = Captured(adder.add, CPU, refused=reasons.append)
    for _ in range(7):
        add(torch.ones(3))
    assert adder.calls == 7
    assert torch.equal(adder.total, torch.full((3,), 7.0))
    assert reasons == ["RuntimeError: operation not permitted"]


def test_a_method_that_is_captured_keeps_no_object_alive() -> None:
    adder = Adder()
    with on_tape():
        add = Captured(adder.add, CPU)
    seen = weakref.ref(adder)
    gc.disable()
    try:
        del adder
        assert seen() is None
    finally:
        gc.enable()
    assert add is not None


@pytest.mark.parametrize("name", SAMPLERS)
def test_captured_samplers_draw_what_they_draw_otherwise(name: str) -> None:
    plain = Course(name)
    expected = plain.epochs(2, 8)
    with on_tape():
        taped = Course(name)
        result = taped.epochs(2, 8)
    assert rows_of(result) == rows_of(expected)
    for one, other in zip(result, expected, strict=True):
        assert_same(vars(one), vars(other))
    assert_same(taped.sampler.state_dict(), plain.sampler.state_dict())


@pytest.mark.parametrize(
    ("name", "n_graphs"), [("impon", 3), ("impon-low", 3), ("impon-memory", 2), ("placebo", 3)]
)
def test_what_costs_most_operations_is_captured(name: str, n_graphs: int) -> None:
    with on_tape() as tape:
        Course(name).epoch(1, WARM_UP + 2)
    assert tape.made == n_graphs
    assert tape.replays == 2 * n_graphs


class Waiting(nn.Module):
    """A model that looks at a value."""

    def forward(self, given: Tensor) -> tuple[Tensor]:
        return (given * 2 if given.sum().item() > 0 else given,)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_function_that_waits_for_the_gpu_is_found_out() -> None:
    reasons = list[str]()
    call = Captured(Waiting(), torch.device("cuda"), refused=reasons.append)
    for step in range(6):
        (result,) = call(torch.full((2,), step - 2.0, device="cuda"))
        assert result.tolist() == [(step - 2.0) * (2 if step > 2 else 1)] * 2
    assert len(reasons) == 1
    assert "synchronizing" in reasons[0]
