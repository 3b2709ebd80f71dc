"""The `augment` setting and its options: what they join, and how a mistake is told."""

from __future__ import annotations

from typing import Any

import pytest

from impon_hpo.errors import ConfigError
from impon_hpo.training.augment_setting import OPTIONS, augment_names, options_of
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.image_transforms import TORCHVISION
from tests.settings import training_config


@pytest.mark.parametrize(
    ("augment", "suited", "names"),
    [
        ("auto", "crop", ("crop",)),
        ("auto", "none", ()),
        ("none", "crop", ()),
        ("flip", "crop", ("flip",)),
        ("auto+trivial", "crop+flip", ("crop", "flip", "trivial")),
        ("rand+auto+crop", "crop+flip", ("rand", "crop", "flip")),
        ("my_aug:transform+flip+mixup", "crop", ("my_aug:transform", "flip", "mixup")),
    ],
)
def test_names_are_joined_and_auto_is_what_suits_the_data(
    augment: str, suited: str, names: tuple[str, ...]
) -> None:
    assert training_config({"augment": augment}).augment == augment
    assert augment_names(augment, suited) == names


@pytest.mark.parametrize(
    ("augment", "said"),
    [
        ("trivail", "There is no 'trivail'. Did you mean 'trivial'? Join with '+' any of crop, "),
        ("crop,flip", "or 'module:function' for your own; or give 'none'."),
        ("flip+flip", "Each name can be given once."),
        ("none+flip", "'none' stands alone."),
        ("crop+resized-crop", "write flip+resized-crop, for example."),
    ],
)
def test_a_mistake_in_the_names_is_told(augment: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        training_config({"augment": augment})
    assert str(caught.value).startswith(f"augment = {augment!r}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"blur": {}}, "Unknown key 'augment_options.blur'. Options have: resized-crop, trivial"),
        ({"rand": 3}, "augment_options.rand must be a table, but got 3."),
        ({"rand": {"magnitud": 3}}, "augment_options.rand.magnitud'. Did you mean 'magnitude'?"),
        ({"rand": {"magnitude": 31}}, "augment_options.rand.magnitude = 31: Input should be less"),
        ({"rand": {"num_ops": 1.5}}, "augment_options.rand.num_ops = 1.5: "),
        ({"mixup": {"alpha": 0}}, "augment_options.mixup.alpha = 0: Input should be greater"),
        ({"erase": {"p": 1.5}}, "augment_options.erase.p = 1.5: "),
        ({"erase": {"scale": [0.5, 0.2]}}, "erase.scale: the lower one must come first"),
        ({"resized-crop": {"scale": [0.5, 2]}}, "augment_options.resized-crop.scale.1 = 2: "),
        ({"resized-crop": {"ratio": 1.0}}, "augment_options.resized-crop.ratio = 1.0: "),
    ],
)
def test_a_mistake_in_the_options_is_told(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        training_config({"augment_options": options})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(TORCHVISION))
def test_options_and_their_defaults_are_torchvisions(name: str) -> None:
    options = options_of(name, {})
    assert set(options) == set(OPTIONS[name].model_fields)
    size = {"size": (8, 8)} if name == "resized-crop" else {}
    library, ours = TORCHVISION[name](**size), TORCHVISION[name](**size, **options)
    assert {key: getattr(ours, key) for key in options} == {
        key: getattr(library, key) for key in options
    }


def test_options_are_in_the_identity_only_where_given() -> None:
    config = training_config({"augment_options": {"erase": {"scale": [0.1, 0.2]}}})
    assert config.identity()["augment_options"] == {"erase": {"scale": [0.1, 0.2]}}
    assert training_config(config.identity()) == config
    assert "augment_options" not in TrainingConfig().identity()


@pytest.mark.parametrize("sampler", ["impon-memory", "rho-loss"])
def test_no_reference_is_learnt_from_mixed_images(sampler: str) -> None:
    for augment in ("mixup", "auto+cutmix"):
        given = {"augment": augment, "sampler": sampler}
        with pytest.raises(ConfigError, match=r"Use reference = 'crossfit', or leave out \w+\.$"):
            training_config(given)
        assert training_config(given | {"reference": "crossfit"}).augment == augment
    assert training_config({"augment": "rand", "sampler": sampler}).sampler == sampler
    assert training_config({"augment": "mixup", "sampler": "impon"}).sampler == "impon"
