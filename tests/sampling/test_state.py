"""State: what is declared is saved and restored, in place, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.state import Stateful
from impon_hpo.sampling.table import SAMPLERS
from tests.sampling.courses import Course, assert_same, impon, rows_of, through_a_file

every = pytest.mark.parametrize("name", SAMPLERS)


class Part(Stateful):
    _state: ClassVar[tuple[str, ...]] = ("_sums", "order")
    _replaced = ("order",)

    def __init__(self, value: int) -> None:
        self._sums = torch.full((2,), float(value))
        self.order = torch.arange(value)


class Whole(Part):
    _state = ("generator", "_n_steps", "share", "is_warm", "_levels", "_parts", "_none", "network")

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.generator = torch.Generator().manual_seed(value)
        self._n_steps, self.share, self.is_warm = value, value / 2, value > 1
        self._levels = (torch.full((3,), float(value)), Part(value))
        self._parts = [torch.ones(value)] * value
        self._none: Part | None = None
        self.network = nn.Linear(2, 1)
        nn.init.constant_(self.network.weight, value)
        self.forgotten = value


def test_state_is_what_a_class_and_its_bases_declare() -> None:
    one = Whole(1)
    state = one.state_dict()
    own = ["generator", "n_steps", "share", "is_warm", "levels", "parts", "none", "network"]
    assert list(state) == ["sums", "order", *own]
    assert state["levels"][1].keys() == {"sums", "order"}


def test_everything_declared_comes_back_and_the_rest_stays() -> None:
    saved, loaded = Whole(3), Whole(1)
    loaded.load_state_dict(through_a_file(saved.state_dict()))
    assert_same(loaded.state_dict(), saved.state_dict())
    assert torch.rand(1, generator=loaded.generator) == torch.rand(1, generator=saved.generator)
    assert loaded.forgotten == 1


def test_state_is_a_copy_and_loading_leads_nowhere_back() -> None:
    saved, loaded = Whole(3), Whole(1)
    state = saved.state_dict()
    kept = through_a_file(state)
    loaded.load_state_dict(state)
    for one in (saved, loaded):
        one._sums += 1
        one.order += 1
        one._levels[0].add_(1)
        nn.init.zeros_(one.network.weight)
    assert_same(state, kept)


def test_tensors_keep_their_memory_but_for_those_that_are_replaced() -> None:
    one = Whole(1)
    tensors = [one._sums, one._levels[0], one._levels[1]._sums, one.network.weight]
    places = [tensor.data_ptr() for tensor in tensors]
    view = one.order[:1]
    one.load_state_dict(Whole(3).state_dict())
    after = [one._sums, one._levels[0], one._levels[1]._sums, one.network.weight]
    assert [tensor.data_ptr() for tensor in after] == places
    assert view.tolist() == [0]
    assert one.order.tolist() == [0, 1, 2]


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no dictionary": list,
    "an entry is missing": lambda state: state.pop("sums") is None or state,
    "an entry of a part is missing": lambda state: state["levels"][1].pop("sums") is None or state,
    "another length": lambda state: state | {"sums": torch.zeros(3)},
    "another dtype": lambda state: state | {"sums": torch.zeros(2, dtype=torch.float64)},
    "no tensor": lambda state: state | {"sums": 3.0},
    "another number of dimensions": lambda state: state | {"order": torch.zeros(1, 1).long()},
    "no number": lambda state: state | {"n_steps": "3"},
    "a number for a truth value": lambda state: state | {"is_warm": 1},
    "a truth value for a number": lambda state: state | {"n_steps": True},
    "something for nothing": lambda state: state | {"none": {}},
    "a shorter tuple": lambda state: state | {"levels": state["levels"][:1]},
    "no list of tensors": lambda state: state | {"parts": [1.0]},
    "a generator of another kind": lambda state: state | {"generator": torch.zeros(3)},
    "another network": lambda state: state | {"network": nn.Linear(3, 1).state_dict()},
    "a network without a bias": lambda state: state | {"network": {"weight": torch.ones(1, 2)}},
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_state_is_refused_and_changes_nothing(kind: str) -> None:
    one = Whole(1)
    before = one.state_dict()
    broken = BROKEN[kind](Whole(3).state_dict())
    with pytest.raises(ConfigError, match=r"state .*(broken|another|dictionary)"):
        one.load_state_dict(broken)
    assert_same(one.state_dict(), before)


@every
def test_state_of_another_sampler_is_refused(name: str) -> None:
    course, twin = Course(name), Course(name)
    other = "uniform" if name != "uniform" else "rho-loss"
    with pytest.raises(ConfigError, match=f"of the batch sampler {SAMPLERS[other].__name__}, but"):
        course.sampler.load_state_dict(Course(other).sampler.state_dict())
    assert rows_of(course.epoch(1, 3)) == rows_of(twin.epoch(1, 3))


@every
def test_state_that_lacks_an_entry_is_refused(name: str) -> None:
    saved, course = Course(name), Course(name)
    saved.epoch(1, 2)
    before = course.sampler.state_dict()
    for key in saved.sampler.state_dict().keys() - {"sampler"}:
        state = saved.sampler.state_dict()
        del state[key]
        with pytest.raises(ConfigError, match=rf"lacks {key}\. It is broken"):
            course.sampler.load_state_dict(state)
    assert_same(course.sampler.state_dict(), before)


def test_state_of_other_options_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Impon\.estimator .*lacks sums"):
        impon(estimator="rls").load_state_dict(impon().state_dict())
    few = impon(features=lambda inputs: inputs[:, :1])
    with pytest.raises(ConfigError, match=r"Impon\.estimator\.weight .*float32 \(3,\).*\(2,\)"):
        impon().load_state_dict(few.state_dict())


@every
def test_loaded_sampler_keeps_the_memory_that_a_captured_graph_holds(name: str) -> None:
    course, saved = Course(name), Course(name)
    saved.epochs(2, 3)
    parts = [part for part in vars(course.sampler).values() if isinstance(part, Stateful)]
    places = {
        (type(part).__name__, name): getattr(part, name).data_ptr()
        for part in [course.sampler, *parts]
        for name in type(part)._state_names().values()
        if isinstance(getattr(part, name), Tensor) and name not in part._replaced
    }
    course.sampler.load_state_dict(saved.sampler.state_dict())
    by_type = {type(part).__name__: part for part in [course.sampler, *parts]}
    assert places
    for (part_name, name), place in places.items():
        assert getattr(by_type[part_name], name).data_ptr() == place
