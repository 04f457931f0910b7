"""From calibration files to an entanglement verdict: a set of calibrations, its priors, the analysis of a record.

Run it: `python examples/calibrations_to_a_verdict.py`. It simulates the files itself, in a temporary folder.
"""

import tempfile
from pathlib import Path

import numpy as np

from backaction import Experiment, simulate
from backaction.analysis.analysis import analyze
from backaction.calibration.cavity import beat
from backaction.calibration.sets import run_set
from backaction.files import to_json
from backaction.records.simulation import reference

folder = Path(tempfile.mkdtemp())
rng = np.random.default_rng(1)

# the beat of a phase modulation behind the cavity: kappa 4.2 MHz, |Delta| 0.7 MHz, 0.3 % noise
W = np.linspace(0.3e6, 12e6, 80)
signal = np.abs(beat(W, 4.2e6, 0.7e6)) * (1 + 0.003 * rng.standard_normal(W.size))
np.savetxt(folder / "beat.csv", np.column_stack([W, signal]), delimiter=",", header="W_Hz,beat", comments="")
(folder / "set.toml").write_text("""
name = "day 3"
experiment = "thomas2021"
[[calibration]]
method = "efficiency"
factors = ["visibility = 0.94 : 0.01 : amplitude", "quantum efficiency = 0.87 : 0.02 : power"]
[[calibration]]
method = "sideband_beat"
files = ["beat.csv"]
relative_noise = 0.003
""")
calibrated = run_set(folder / "set.toml", print)
for field, q in calibrated.priors.items():
    print(f"{field} = {q.value:.5g} +- {q.sd:.2g} {q.unit}")
(folder / "calibration.json").write_text(to_json(calibrated.document()))

experiment = Experiment.load("thomas2021")
made = simulate(experiment, 0.05, 10e6, seed=1)
shot = reference("shot", experiment, 0.05, 10e6, seed=1)
found = analyze(experiment, made.record, shot, quick=True, calibrations=[folder / "calibration.json"])
print(found.verdict)
v = found.quantum["epr_variance"]
print(f"EPR variance {v['value']:.3f} +- {v['sd']:.3f}")
