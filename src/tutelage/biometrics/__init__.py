"""What a similarity is worth: features, calibrated scores, matching and error rates.

The main path is `Features` -> `Gallery.identify` -> `Match` -> `Score.score` -> `DecisionRule.decide`. `Calibration`
is the score that comes with a student; the error rates judge one student against another. Nothing here knows images
or networks: numpy and scipy are all it needs. Names are imported from their modules, not from here: `features` alone
is light, and a training worker, whose memory is counted, needs nothing else of it.
"""
