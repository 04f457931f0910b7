"""Two records of one experiment, fitted together: is it entangled, how sure are we, what to measure next.

Run it: `python examples/posterior_of_a_simulation.py`. It simulates both spectra itself.
"""

from dataclasses import replace

from backaction import Campaign, Experiment, infer
from backaction.inference.advice import next_measurements, worst_case
from backaction.inference.data import simulated

experiment = Experiment.load("thomas2021").with_values({"spin.larmor_offset_hz": 0.0})
detuned = experiment.with_values({"spin.larmor_offset_hz": 10e3})
records = [
    simulated("resonant", experiment, experiment.band_hz, duration_s=0.2, seed=1, resolution_hz=800.0),
    simulated("detuned", detuned, experiment.band_hz, duration_s=0.2, seed=2, resolution_hz=800.0),
]
# one shot-noise record calibrates both; everything else is shared too
campaign = Campaign("two records", tuple(replace(r, calibrated_by="shot") for r in records), experiment.priors)

found = infer(campaign, "importance")  # seconds; "nuts", the default, needs no trust in a Gaussian
for test in found.tests:
    print("passed" if test.passed else "FAILED", test.sentence)

v = found.derived_summary["conditional.epr.fixed[resonant]"]
print(f"EPR variance {v['mean']:.3f} +- {v['sd']:.3f}, P(< 1) = {v['probability_below_1']:.4f}")
for gain in next_measurements(found, "resonant")[:3]:
    print(gain)
print(worst_case(found, "resonant", delta_chi2=4.0, interval=2.0))
