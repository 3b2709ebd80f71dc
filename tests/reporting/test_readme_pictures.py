"""Tests of the pictures for a README: those of the trials, of the best one's images, of arms."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.artifacts import upload_artifact

from impon_hpo.errors import StorageError
from impon_hpo.reporting.chart import Palette
from impon_hpo.reporting.readme_pictures import COMPARED, comparison_pictures, trial_pictures
from impon_hpo.storage.connect import artifact_store
from impon_hpo.storage.trials import CLASS_PICKS, COST, EPOCHS, IMAGES, read_study
from tests.reporting.comparison import summary_of
from tests.reporting.records import small_record

ARMS = ["impon", "uniform"]


def test_an_arm_has_its_graphs_and_all_arms_those_that_lay_them_side_by_side() -> None:
    records = [small_record(arm=arm) for arm in ARMS]
    store = artifact_store("artifacts")
    written = trial_pictures(Path("pictures"), records, ["impon"], Palette(ARMS), store)
    names = {
        "accuracy-against-cost-impon.png",
        "pruned-when-impon.png",
        "best-so-far.png",
        "diagnostic-class-balance-impon.png",
    }
    assert {path.name for path in written} == names
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in written)
    both = trial_pictures(Path("pictures"), records, ARMS, Palette(ARMS), store)
    assert len(both) == len(set(both)) == 7


def test_the_best_trial_shows_which_images_it_picked() -> None:
    study = small_record().optuna_study
    store = artifact_store("artifacts")
    best = study.ask()
    best.set_user_attr(EPOCHS, [{"epoch": 1, "val_accuracy": 0.99, "cost": 1, "diagnostics": {}}])
    best.set_user_attr(COST, 1)
    Path(IMAGES).write_bytes(b"a picture")
    Path(CLASS_PICKS).write_text("class,rows,epoch_1\ncafé,4,2\nother,2,9\n", encoding="utf-8")
    for name in (IMAGES, CLASS_PICKS):
        upload_artifact(artifact_store=store, file_path=name, study_or_trial=best)
    study.tell(best, 0.99)
    written = trial_pictures(Path("out"), [read_study(study)], ARMS, Palette(ARMS), store)
    assert Path("out/which-images-impon.png") in written
    assert Path("out/which-images-impon.png").read_bytes() == b"a picture"
    assert Path("out/class-picks-impon.png").read_bytes()[:4] == b"\x89PNG"
    for file in Path("artifacts").iterdir():
        file.unlink()
    with pytest.raises(StorageError, match=f"of trial {best.number} cannot be read"):
        trial_pictures(Path("out"), [read_study(study)], ARMS, Palette(ARMS), store)


def test_a_comparison_shows_what_it_says() -> None:
    written = comparison_pictures(Path("pictures"), summary_of())
    assert [path.name for path in written] == [f"{key}.png" for key in COMPARED[1:]]
    held = comparison_pictures(Path("held"), summary_of('compare.endpoint="in-hand"'))
    assert [path.name for path in held] == [f"{key}.png" for key in COMPARED]
    assert all(path.stat().st_size < 60_000 for path in written)
