"""Every batch sampler on a GPU that is not there: nothing is left on the host, nothing waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from torch import Tensor

from impon_hpo.sampling.draws import Stream
from impon_hpo.sampling.mixture import two_gaussians
from impon_hpo.sampling.table import SAMPLERS, option_types
from tests.sampling.courses import Course
from tests.sampling.fake_gpu import GPU, FakeDevice

MANY_ROWS = 26_000


def options() -> Iterator[Any]:
    """Every batch sampler as it is by default, and with each value of each option of choice."""
    for name in SAMPLERS:
        yield pytest.param(name, {}, id=name)
        for option, kind in option_types(name).items():
            choices = get_args(kind) if get_origin(kind) is Literal else ()
            for value in (True, False) if kind is bool else choices:
                yield pytest.param(name, {option: value}, id=f"{name} {option}={value}")
    for features in ("pooled", "pca"):
        yield pytest.param("impon", {"features": features, "estimator": "rls"}, id=features)
    yield pytest.param("impon-memory", {"temperature_end": 0.0}, id="temperature_end")
    yield pytest.param("loss-rank", {"recompute": 1}, id="recompute")


def a_course(name: str, given: dict[str, Any], n_rows: int) -> Course:
    if name == "impon" and given.get("estimator") == "rls" and "features" not in given:
        given = given | {"features": "pooled"}
    return Course(name, n_rows=n_rows, **given)


@pytest.mark.parametrize("n_rows", [240, MANY_ROWS])
@pytest.mark.parametrize(("name", "given"), [*options()])
def test_draw_and_observe(name: str, given: dict[str, Any], n_rows: int) -> None:
    course = a_course(name, given, n_rows)
    course.epoch(1, 2)
    course.sampler.start_epoch(2)
    # cuDNN, which a recurrent network on a GPU asks, does not know fake tensors.
    device = torch.device("meta") if name == "lstm-loss" else GPU
    fake = FakeDevice(device)
    fake.move(course)
    with fake.running():
        draws = [course.step() for _ in range(3)]
    for draw in draws:
        assert draw.rows.device == device
        assert draw.rows.shape == (8,)
        for result in (draw.weights, draw.scores, draw.context):
            assert result is None or result.device == device


BROKEN: dict[str, Callable[[Tensor, Tensor], object]] = {
    "rows on the host": lambda gpu, host: gpu[host],
    "rows on the host, selected": lambda gpu, host: gpu.index_select(0, host),
    "a value read": lambda gpu, host: gpu[0].item(),
    "a value asked": lambda gpu, host: bool(gpu.sum() > 0),
    "copied to the host": lambda gpu, host: gpu.cpu(),
    "moved to the host": lambda gpu, host: gpu.to("cpu"),
    "copied from the host": lambda gpu, host: gpu.copy_(host.float()),
    "made on the host": lambda gpu, host: torch.tensor([1.0, 2.0], device=GPU),
    "a value put from the host": lambda gpu, host: gpu.index_put_((gpu.long(),), host[0].float()),
    "a mask": lambda gpu, host: gpu[gpu > 0],
    "devices mixed": lambda gpu, host: gpu + host,
    "a size that depends on values": lambda gpu, host: torch.nonzero(gpu),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_what_waits_or_forgets_the_device_is_refused(mistake: str) -> None:
    fake = FakeDevice()
    gpu = fake.tensor(torch.ones(4))
    with pytest.raises(Exception, match=r"."), fake.running():
        BROKEN[mistake](gpu, torch.arange(4))


def test_what_is_right_passes() -> None:
    fake = FakeDevice()
    gpu = fake.tensor(torch.ones(4))
    with fake.running():
        rows = torch.randperm(4, device=GPU)[:2]
        assert (gpu[rows] * 2.5).topk(1).values.device == GPU


def test_a_stream_left_on_the_host_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    course = Course("uniform")
    course.sampler.start_epoch(1)
    fake = FakeDevice()
    fake.move(course)
    order = torch.arange(240)
    monkeypatch.setattr(Stream, "take", lambda self, k: order[:k])
    with pytest.raises(Exception, match=r"."), fake.running():
        course.step()


@pytest.mark.parametrize("n", [50, 5000])
def test_mixture_never_waits_for_a_gpu(n: int) -> None:
    fake = FakeDevice()
    losses = fake.tensor(torch.rand(n))
    with fake.running():
        mixture = two_gaussians(losses)
    for part in (mixture.separation, mixture.share, mixture.probability):
        assert part.device == GPU
    assert mixture.probability.shape == (n,)
