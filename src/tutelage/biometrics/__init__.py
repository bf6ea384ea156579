"""What a similarity is worth: features, calibrated scores, matching and error rates.

The main path is `Features` -> `Gallery.identify` -> `Match` -> `Score.score` -> `DecisionRule.decide`. `Calibration`
is the score that comes with a student; the error rates judge one student against another. Nothing here knows images
or networks: numpy and scipy are all it needs.
"""

from __future__ import annotations

from tutelage.biometrics.calibration import Calibration, LinearScore, Score, Tail
from tutelage.biometrics.error_rates import (
    PairedTest,
    bootstrap_by_person,
    clopper_pearson,
    det_curve,
    eer,
    fmr,
    fmr_threshold,
    fnmr,
    paired_test,
    rank1,
    tar_at_fmr,
)
from tutelage.biometrics.features import Features, Vectors, cosines, impostor_cosines
from tutelage.biometrics.matching import Decision, DecisionRule, Gallery, Match

__all__ = [
    "Calibration",
    "Decision",
    "DecisionRule",
    "Features",
    "Gallery",
    "LinearScore",
    "Match",
    "PairedTest",
    "Score",
    "Tail",
    "Vectors",
    "bootstrap_by_person",
    "clopper_pearson",
    "cosines",
    "det_curve",
    "eer",
    "fmr",
    "fmr_threshold",
    "fnmr",
    "impostor_cosines",
    "paired_test",
    "rank1",
    "tar_at_fmr",
]
