"""When a teacher abstains, and who may have its features."""

from __future__ import annotations

import json

import pytest
from source_tree import ROOT

from teacher_inference.abstention import MEASURED, AbstentionSettings, policy_for
from teacher_inference.feature_callers import FeatureCallers
from teacher_inference.service import TeacherInferenceSettings
from tutelage.errors import Code, ServiceError, SettingsError
from tutelage.settings import read_settings

RESULTS = json.loads((ROOT / "benchmarks/results/abstention.json").read_text())["results"]


def test_the_limits_of_known_teachers_are_those_that_were_measured():
    measured = {found["space"]: (found["min_cosine"], found["min_margin"]) for found in RESULTS.values()}
    assert set(measured) == set(MEASURED)
    for space, (cosine, margin) in MEASURED.items():
        assert cosine == pytest.approx(measured[space][0], abs=0.005)
        assert margin == pytest.approx(measured[space][1], abs=0.0005)


def test_the_readme_tells_them():
    readme = (ROOT / "services/teacher-inference/README.md").read_text()
    for found in RESULTS.values():
        cosine, margin = MEASURED[found["space"]]
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{found['teacher']}`"))
        assert f"{found['persons']} persons" in row
        assert f"{found['pairs']:,} pairs" in row
        assert f"{found['mean']:.2f} ± {found['deviation']:.2f}" in row
        assert [float(cell) for cell in row.split("|")[-3:-1]] == [cosine, margin]


def test_what_is_set_goes_before_what_was_measured():
    space, (cosine, margin) = next(iter(MEASURED.items()))
    known = policy_for(AbstentionSettings(), "known", space)
    assert (known.min_cosine, known.min_margin, known.group) == (cosine, margin, True)
    changed = policy_for(AbstentionSettings(min_margin=0.3, group=False, soft_temperature=0.5), "known", space)
    assert (changed.min_cosine, changed.min_margin, changed.group) == (cosine, 0.3, False)
    assert changed.soft_temperature == 0.5


@pytest.mark.parametrize("given", [{}, {"min_cosine": 0.0}, {"min_margin": 0.0}])
def test_a_teacher_that_nobody_measured_needs_both_limits(given):
    with pytest.raises(SettingsError, match="MIN_MARGIN"):
        policy_for(AbstentionSettings(**given), "new", "some-space")
    assert policy_for(AbstentionSettings(min_cosine=0.0, min_margin=0.0), "new", "some-space").min_cosine == 0.0


def test_limits_come_from_the_environment(tmp_path):
    (tmp_path / "key").write_text("5a" * 32)
    environ = {
        "TUTELAGE_TEACHER_GALLERY_KEY_FILE": str(tmp_path / "key"),
        "TUTELAGE_TEACHER_ABSTENTION_MIN_COSINE": "-0.5",
        "TUTELAGE_TEACHER_FEATURE_CALLERS": "distiller, spiffe://x/y",
        "TUTELAGE_TEACHER_BATCHES_WORKERS": "0",
    }
    settings = read_settings(TeacherInferenceSettings, environ, "TUTELAGE_TEACHER_")
    assert settings.abstention == AbstentionSettings(min_cosine=-0.5)
    assert settings.feature_callers == ("distiller", "spiffe://x/y")
    assert settings.batches.workers == 0
    assert "5a" not in repr(settings)


def test_features_are_for_named_callers_only():
    def admits(names: tuple[str, ...], caller: tuple[str, ...]) -> bool:
        try:
            FeatureCallers(names).check(caller)
        except ServiceError as error:
            assert error.code is Code.CALLER_REFUSED  # noqa: PT017
            return False
        return True

    assert admits(("distiller",), ("spiffe://x", "distiller"))
    assert admits(("anonymous",), ())
    for names, caller in (((), ()), ((), ("distiller",)), (("distiller",), ()), (("distiller",), ("door",))):
        assert not admits(names, caller)
    assert not admits(("anonymous",), ("door",))
