"""The protocol of a comparison: its defaults, its mistakes, its names and its hash."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from impon_hpo.errors import ConfigError
from impon_hpo.tuning.protocol import Policy, Protocol, arm_name
from tests.comparing.comparisons import COMPARED, compared_study

SIX = ("impon", "impon@1/2", "impon@1/3", "memory", "memory@1/2", "memory@1/3")


def policy(schedule: Any, weights: Any, *arms: str) -> Policy:
    return Policy(schedule=schedule, weights=weights, arms=arms)


PLAIN = Protocol(
    configurations=5,
    trials=4,
    blocks=6,
    placebo="memory",
    claim="memory@1/3",
    cost_ratio=0.5,
    margin=1.0,
    policies=(policy("cosine", "last", *SIX),),
    orders=50,
    test_size=None,
    test_epochs="all",
    data="",
    pruner={"name": "SuccessiveHalvingPruner", "reduction_factor": 2},
)


def test_every_key_has_a_default() -> None:
    assert compared_study("compare={}").protocol == PLAIN


def test_every_key_is_taken_over() -> None:
    table = """{
        configurations = 7, trials = 3, blocks = 5, arms = ["memory", "impon"],
        epoch_fractions = [0.25, 1], placebo = "impon", claim = "memory (rungs, ema)",
        cost_ratio = 0.4, margin = 2, orders = 9, test_size = 100, test_epochs = "last",
        data = "digits", pruner = { name = "promote" },
        policies = [{}, { schedule = "rungs", weights = "ema", arms = ["memory"] }]
    }"""
    assert compared_study(f"compare={' '.join(table.split())}").protocol == Protocol(
        configurations=7,
        trials=3,
        blocks=5,
        placebo="impon",
        claim="memory (rungs, ema)",
        cost_ratio=0.4,
        margin=2.0,
        policies=(
            policy("cosine", "last", "memory", "memory@1/4", "impon", "impon@1/4"),
            policy("rungs", "ema", "memory"),
        ),
        orders=9,
        test_size=100,
        test_epochs="last",
        data="digits",
        pruner={"name": "promote"},
        arms=("memory", "impon"),
        epoch_fractions=(0.25, 1),
    )


@pytest.mark.parametrize(("n", "trials"), [(2, 2), (3, 2), (4, 3), (5, 4), (12, 8)])
def test_two_thirds_of_the_configurations_are_tried(n: int, trials: int) -> None:
    assert compared_study(f"compare.configurations={n}").protocol.n_trials == trials


def test_policy_is_that_of_the_run_where_nothing_else_is_said() -> None:
    study_file = compared_study("run.schedule=constant", "run.eval_weights=ema")
    assert [str(policy) for policy in study_file.protocol.policies] == ["constant, ema"]
    half = compared_study("run.schedule=constant", "compare.policies=[{}, {weights='ema'}]")
    assert [str(policy) for policy in half.protocol.policies] == ["constant, last", "constant, ema"]


def test_controls_of_the_file_are_no_arms() -> None:
    controls = "".join(
        f'[arms.mine-{number}]\nsampler = "{name}"\n\n'
        for number, name in enumerate(("uniform", "uniform-fraction", "placebo"))
    )
    text = COMPARED.replace("[compare]", f"{controls}[compare]")
    assert set(compared_study(text=text).protocol.policies[0].arms) == {
        "impon",
        "impon@1/2",
        "memory",
        "memory@1/2",
    }


def test_claim_is_the_last_arm_of_the_first_policy() -> None:
    assert compared_study().protocol.claim == "memory@1/2"
    policies = "compare.policies=[{arms=['impon']}, {weights='ema'}]"
    assert compared_study(policies).protocol.claim == "impon"


@pytest.mark.parametrize("claim", ["impon", "impon@1/2", "impon@1/2 (constant, last)"])
def test_placebo_is_of_the_arm_that_is_claimed(claim: str) -> None:
    policies = "compare.policies=[{}, {schedule='constant'}]"
    study_file = compared_study(policies, f'compare.claim="{claim}"')
    assert (study_file.protocol.claim, study_file.protocol.placebo) == (claim, "impon")


FRACTIONS = 'compare.epoch_fractions must be from 1/100 to 1, such as "1/3" or 0.5, but got '


@pytest.mark.parametrize("given", ['"0"', '"4/3"', '"a third"', '"1/0"', '"1/300"', '""', '"-1/2"'])
def test_fraction_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compared_study(f"compare.epoch_fractions=[1, {given}]")
    assert FRACTIONS + given.replace('"', "'") in str(caught.value)


@pytest.mark.parametrize("given", ["0.0", "0", "-0.5", "1.5", "2", "inf", "nan", "0.001"])
def test_number_that_is_no_fraction_is_refused(given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compared_study(f"compare.epoch_fractions=[{given}]")
    assert FRACTIONS + given in str(caught.value)


@pytest.mark.parametrize(
    ("given", "fractions"),
    [
        ('[1, "1/2"]', ["1", "1/2"]),
        ('["1/3", 0.5, 1.0]', ["1", "1/2", "1/3"]),
        ("[0.3333]", ["1/3"]),
        ('["0.25", "1/4", 0.25]', ["1/4"]),
        ('["1/100", 0.01]', ["1/100"]),
    ],
)
def test_fractions_are_exact_and_largest_first(given: str, fractions: list[str]) -> None:
    study_file = compared_study(f"compare.epoch_fractions={given}")
    (policy,) = study_file.protocol.policies
    assert policy.fractions() == [Fraction(fraction) for fraction in fractions]


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("block=3", "Unknown key 'compare.block'. Did you mean 'blocks'?"),
        ("nonsense=3", "Unknown key 'compare.nonsense'."),
        ("blocks=1", "compare.blocks = 1: Input should be greater than or equal to 2."),
        ("blocks=2.5", "compare.blocks = 2.5: Input should be a valid integer"),
        ('blocks="6"', "compare.blocks = '6': Input should be a valid integer"),
        ("configurations=1", "compare.configurations = 1: Input should be greater than or equal"),
        ("trials=1", "compare.trials = 1: Input should be greater than or equal to 2"),
        ("trials=6", "compare.trials must be at most compare.configurations (5), but got 6."),
        ("orders=0", "compare.orders = 0: Input should be greater than or equal to 1"),
        ("margin=0", "compare.margin = 0: Input should be greater than 0"),
        ("margin=inf", "compare.margin = inf: Input should be a finite number"),
        ("cost_ratio=0.0", "compare.cost_ratio = 0.0: Input should be greater than 0"),
        ("cost_ratio=nan", "compare.cost_ratio = nan: Input should be"),
        ('cost_ratio="half"', "compare.cost_ratio = 'half': Input should be a valid number"),
        ("test_size=0", "compare.test_size = 0: Input should be greater than or equal to 1"),
        ("test_epochs=first", "compare.test_epochs = 'first': Input should be 'all' or 'last'"),
        ("arms=memory", "compare.arms = 'memory': Input should be a list"),
        ("arms=[3]", "compare.arms.0 = 3: Input should be a valid string"),
        ("epoch_fractions=0.5", "compare.epoch_fractions = 0.5: Input should be a list"),
        ("epoch_fractions=[]", "compare.epoch_fractions = []: Tuple should have at least 1 item"),
        ("epoch_fractions=[true]", "compare.epoch_fractions.0 = True: Input should be"),
        ("policies=[]", "compare.policies = []: Tuple should have at least 1 item"),
        ("policies=[3]", "compare.policies.0 = 3: Input should be a table"),
        ("data=3", "compare.data = 3: Input should be a valid string"),
    ],
)
def test_wrong_value_is_named(setting: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compared_study(f"compare.{setting}")
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("policies", "complaint"),
    [
        (
            "[{schedule='cosin'}]",
            "policies.0.schedule = 'cosin': Input should be 'constant', 'cosine', 'one-cycle' or "
            "'rungs'. Did you mean 'cosine'?",
        ),
        ("[{}, {schedule=3}]", "compare.policies.1.schedule = 3: Input should be 'constant', "),
        ("[{weights='mean'}]", "compare.policies.0.weights = 'mean': Input should be 'last' or "),
        ("[{placebo='impon'}]", "Unknown key 'compare.policies.0.placebo'."),
        ("[{weight='ema'}]", "Unknown key 'compare.policies.0.weight'. Did you mean 'weights'?"),
        ("[{arms=[]}]", "compare.policies.0.arms = []: Tuple should have at least 1 item"),
        ("[{arms='memory'}]", "compare.policies.0.arms = 'memory': Input should be a list."),
        ("[{arms=[3]}]", "compare.policies.0.arms.0 = 3: Input should be a valid string."),
        ("[{arms=['impon', 'impon']}]", "compare.policies.arms has 'impon' twice."),
        ("[{}, {}]", "compare.policies has 'cosine, last' twice."),
        ("[{weights='ema'}, {}, {schedule='cosine'}]", "has 'cosine, last' twice."),
    ],
)
def test_wrong_policy_is_named(policies: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compared_study(f"compare.policies={policies}")
    assert complaint in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("arms=['memry']", "compare.arms: there is no 'memry'. Did you mean 'memory'? There are:"),
        ("arms=['memory', 'memory']", "compare.arms has 'memory' twice."),
        ("claim=memory@1/4", "compare.claim: there is no 'memory@1/4'. Did you mean 'memory@1/2'?"),
        ("claim=uniform", "compare.claim: there is no 'uniform'."),
        ("placebo=imponn", "compare.placebo: there is no 'imponn'. Did you mean 'impon'?"),
        ("placebo=memory@1/2", "compare.placebo: there is no 'memory@1/2'."),
        (
            "policies=[{arms=['memory@1/4']}]",
            "compare.policies: there is no 'memory@1/4'. Did you mean 'memory@1/2'?",
        ),
    ],
)
def test_unknown_arm_is_named_and_a_known_one_suggested(setting: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compared_study(f"compare.{setting}")
    assert complaint in str(caught.value)


@pytest.mark.parametrize("key", ["arms", "placebo"])
@pytest.mark.parametrize("name", ["uniform", "mine"])
def test_controls_cannot_be_asked_for(key: str, name: str) -> None:
    given = f"['{name}']" if key == "arms" else name
    with pytest.raises(ConfigError, match=rf"compare\.{key}: '{name}' is a control"):
        compared_study("arms.mine.sampler=uniform-fraction", f"compare.{key}={given}")


@pytest.mark.parametrize("name", ["placebo", "uniform-short"])
def test_arm_cannot_have_the_name_of_a_control(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"compare\.arms: '{name}' is a control"):
        compared_study(text=COMPARED.replace("[arms.impon]", f"[arms.{name}]"))


@pytest.mark.parametrize("name", ["a@b", "a@1/2", "a (b, c)"])
def test_arm_cannot_be_called_like_a_share_or_a_policy(name: str) -> None:
    with pytest.raises(ConfigError, match=r"an arm's name .* consists of letters"):
        compared_study(text=COMPARED.replace("[arms.impon]", f'[arms."{name}"]'))


IN_HAND = 'compare.endpoint="in-hand"'
THIRDS = 'compare.epoch_fractions=[1, "1/2", "1/3"]'


@pytest.mark.parametrize(
    "claim",
    [
        "memory",
        "memory@1/3",
        "memory@1/3 then uniform",
        "uniform-short@1/3 then memory",
        "uniform-fraction@1/2 then impon",
        "impon@1/3 then memory",
        "uniform then memory",
    ],
)
def test_claim_in_hand_may_search_with_one_arm_and_finish_with_another(claim: str) -> None:
    protocol = compared_study(IN_HAND, THIRDS, f'compare.claim="{claim}"').protocol
    assert protocol.claim == claim


@pytest.mark.parametrize(
    "claim",
    [
        "uniform-short@1/3 then uniform",  # no importance in it
        "memory then memory",
        "uniform-short@1/3 then memory@1/3",  # the pick is trained in full
        "uniform-short@1/4 then memory",
        "memory@1/3 then",
    ],
)
def test_claim_in_hand_that_makes_no_sense_is_refused(claim: str) -> None:
    with pytest.raises(ConfigError, match=r"compare\.claim: there is no"):
        compared_study(IN_HAND, THIRDS, f'compare.claim="{claim}"')


def test_claim_that_finishes_with_another_arm_needs_that_endpoint() -> None:
    with pytest.raises(ConfigError, match=r"compare\.claim: there is no"):
        compared_study('compare.claim="memory@1/3 then uniform"')


def test_placebo_is_not_asked_for_in_hand() -> None:
    with pytest.raises(ConfigError, match="each importance arm has a placebo of its own"):
        compared_study(IN_HAND, 'compare.placebo="memory"')


def test_gain_is_asked_in_hand_only() -> None:
    with pytest.raises(ConfigError, match=r"compare\.gain needs"):
        compared_study("compare.gain=1.0")


def test_comparison_needs_an_arm() -> None:
    complaint = "compare.arms must name an arm to compare with uniform sampling"
    with pytest.raises(ConfigError, match=complaint):
        compared_study("compare.arms=[]")
    alone = COMPARED.replace('"impon"', '"uniform"').replace('"impon-memory"', '"uniform"')
    with pytest.raises(ConfigError, match=complaint):
        compared_study(text=alone)
    # A study without [compare] is no comparison, until it is asked for one.
    study_file = compared_study("compare={}", text=alone)
    with pytest.raises(ConfigError, match=complaint):
        _ = study_file.protocol


def test_comparison_needs_two_configurations() -> None:
    with pytest.raises(ConfigError, match=r"compare\.configurations must be at least 2"):
        compared_study("n_trials=1")


@pytest.mark.parametrize(
    ("fraction", "name"), [("1", "memory"), ("1/3", "memory@1/3"), ("0.5", "memory@1/2")]
)
def test_arm_is_called_by_its_share_of_an_epoch(fraction: str, name: str) -> None:
    assert arm_name("memory", Fraction(fraction)) == name


def test_arm_is_called_by_its_policy_unless_that_is_the_first() -> None:
    first, other = (
        policy("cosine", "last", "memory"),
        policy("rungs", "ema", "memory"),
    )
    assert first.name("memory@1/3", first) == "memory@1/3"
    assert other.name("memory@1/3", first) == "memory@1/3 (rungs, ema)"


CHANGED: dict[str, Any] = {
    "n_configurations": 6,
    "n_trials": 3,
    "n_blocks": 5,
    "placebo": "impon",
    "claim": "memory",
    "cost_ratio": 0.6,
    "margin": 0.5,
    "policies": (policy("cosine", "ema", *SIX),),
    "orders": 51,
    "test_size": 100,
    "test_epochs": "last",
    "endpoint": "in-hand",
}


@pytest.mark.parametrize("field", CHANGED)
def test_digest_changes_with_what_decides_the_verdict(field: str) -> None:
    changed = PLAIN.model_copy(update={field: CHANGED[field]})
    assert changed.digest({}) != PLAIN.digest({})


@pytest.mark.parametrize(
    ("field", "value"), [("gain", 1.0), ("epoch_fractions", (1, "1/4")), ("claim", "memory")]
)
def test_digest_in_hand_changes_with_what_only_it_asks(field: str, value: Any) -> None:
    in_hand = PLAIN.model_copy(update={"endpoint": "in-hand"})
    changed = in_hand.model_copy(update={field: value})
    assert changed.digest({}) != in_hand.digest({})


def test_digest_of_a_choice_is_silent_about_what_is_asked_in_hand() -> None:
    """Recordings older than that keep their hashes."""
    assert not {"endpoint", "gain", "epoch_fractions"} & PLAIN.identity().keys()


def test_digest_is_asked_of_every_field() -> None:
    known = set(Protocol.model_fields) - {"arms", "epoch_fractions"}  # which policies say, too
    known -= {"pruner"}  # it is the study's or its own: tests/comparing/test_evidence.py
    known -= {"gain"}  # asked in hand only
    assert known == {*CHANGED, "data"}, "what is new decides the verdict, too, or does it not?"


def test_digest_changes_with_a_policy_s_arms_and_with_what_else_is_asked() -> None:
    fewer = PLAIN.model_copy(update={"policies": (policy("cosine", "last", *SIX[1:]),)})
    decisive = {"pruner": {"name": "NopPruner"}, "seed": 1}
    digests = {
        PLAIN.digest({}),
        fewer.digest({}),
        PLAIN.digest(decisive),
        PLAIN.digest(decisive | {"seed": 2}),
    }
    assert len(digests) == 4


def test_digest_is_the_same_in_every_process() -> None:
    """And in every version: it stands in reports, and in recordings that are kept."""
    assert PLAIN.digest({"seed": 1, "space": {"lr": "x"}}) == "c88a602d0b533b73"
    assert PLAIN.digest({"space": {"lr": "x"}, "seed": 1}) == "c88a602d0b533b73"
