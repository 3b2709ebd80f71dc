"""Where the study file lies that a user means."""

from __future__ import annotations

from pathlib import Path

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import suggestion


def find_study_file(study: str) -> Path:
    """Return the path of the study.toml that `study` means.

    Args:
        study: A folder with a study.toml, the file itself, or the name of a folder in studies/.

    Raises:
        ConfigError: There is none; it names the studies that there are.
    """
    for place in (Path(study), Path("studies") / study):
        if place.is_file():
            return place
        if (place / "study.toml").is_file():
            return place / "study.toml"
    here = Path("studies")
    known = sorted(file.parent.name for file in here.glob("*/study.toml")) if here.is_dir() else []
    listed = f" Studies here: {', '.join('studies/' + name for name in known)}." if known else ""
    close = suggestion(Path(study).name, known)
    raise ConfigError(
        f"There is no study '{study}': no such folder with a study.toml.{close}{listed}"
    )
