"""What `tune --from` means: the best configurations of an earlier study, from any storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from impon_hpo.cli.options import read_study
from impon_hpo.console import say
from impon_hpo.errors import ConfigError

if TYPE_CHECKING:
    from impon_hpo.tuning.study_file import StudyFile
    from impon_hpo.tuning.warm_start import Earlier


def earlier_configurations(
    study_file: StudyFile,
    arm: str,
    other: str | None,
    other_address: str | None,
    other_arm: str | None,
    n: int | None,
) -> list[Earlier]:
    """Return the configurations that `--from` asks for, the best first, and say what is left out of
    them; none where it is not given.

    Args:
        study_file: The study that is tuned.
        arm: Its arm.
        other: What `--from` was given.
        other_address: What `--from-storage` was given.
        other_arm: What `--from-arm` was given.
        n: What `--from-best` was given; None: as many as usual.

    Raises:
        ConfigError: An option is missing, there is no such arm, or nothing of it is of use.
        StorageError: There is no such study.
    """
    if other is None:
        if other_arm is not None:
            raise ConfigError("--from-arm needs --from OTHER: the study that the arm is of.")
        if n is not None:
            raise ConfigError("--from-best needs --from OTHER: the study whose best are tried.")
        return []
    from impon_hpo.storage.connect import open_storage, without_secrets
    from impon_hpo.tuning.warm_start import N_BEST, best_of, find_study

    place, name = other_address, other
    if place is None:
        other_file = read_study(other, check_samplers=False)
        place, name = other_file.storage, other_file.name
    earlier_study = find_study(
        open_storage(place, create=False),
        name,
        arm=other_arm or arm,
        place=f"the storage '{without_secrets(place)}'",
        exact=other_address is not None,
    )
    earlier, notes = best_of(earlier_study, study_file.space, n or N_BEST)
    for note in notes:
        say(note)
    if not earlier:
        raise ConfigError(
            f"--from {other}: study '{earlier_study.study_name}' has no complete trial with a "
            f"setting of this space, which has: {', '.join(study_file.space)}. Leave it out."
        )
    return earlier
