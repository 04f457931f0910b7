"""Simulate a record with its true paths, track it, and compare the error with the filter's own covariance."""

import numpy as np

import backaction as ba
from backaction.records.shot_level import shot_noise
from backaction.records.simulation import reference

experiment = ba.Experiment.load("thomas2021")
made = ba.simulate(experiment, duration_s=0.05, sample_rate_hz=10e6, seed=7, paths=True)
shot = reference("shot", experiment, 0.05, 10e6, seed=7)
calibration = shot_noise(made.record, shot, None, 0.0, (1.2e6, 1.5e6))

track = ba.track(experiment, made.record, calibration, frame="lab", every=1)
error = (track.mean - made.paths)[20_000:]
for mode, quadratures in zip(track.modes, np.split(np.arange(4), 2), strict=True):
    measured = np.var(error[:, quadratures], axis=0)
    print(
        f"{mode}: variance of the error {measured.round(3)}, predicted {np.diag(track.covariance)[quadratures].round(3)}"
    )
print(f"EPR variance of the tracked state {ba.epr(track.state).variance:.4f}")
