"""Thomas 2021 in a few lines: states, entanglement, spectrum by source, what limits the entanglement."""

import numpy as np

import backaction as ba

spin = ba.SpinOscillator(
    name="spin", larmor_offset_linewidths=-0.5, intrinsic_linewidth_hz=1.7e3, readout_rate_hz=20e3,
    tensor_ratio=0.028, occupation=0.8, broadband_noise_sn=1.68,
)  # fmt: skip
membrane = ba.OptomechanicalCavity(
    name="membrane", mechanical_hz=1.37e6, mechanical_linewidth_hz=2.1e-3, bath_occupation=173e3,
    cavity_linewidth_hz=4.2e6, overcoupling=0.93, detuning_hz=-0.7e6, coupling_hz=60 * 2**0.5 * 1.6e6**0.5,
)  # fmt: skip
link, phase = ba.Loss(name="link", transmission=0.53), ba.Rotation(name="phase", angle_deg=180)
detector = ba.Homodyne(name="detector", efficiency=0.77, angle_deg=2)
experiment = ba.Experiment([spin, link, phase, membrane, detector], modes=["membrane", "spin"])

state = ba.gaussian_state(experiment, "conditional")
best = ba.epr(state)
print(f"EPR variance {best.variance:.4f} at a = {best.weight:.3f}, b = {best.angle_deg:.1f} deg (below 1: entangled)")
print(f"log-negativity {ba.log_negativity(state):.3f} ebit")

at = [experiment.element("membrane").effective_mechanics()[0]]
budget = ba.budget(experiment.system, at)
for source, density in sorted(budget.sources.items(), key=lambda item: -item[1][0]):
    print(f"  {source:<20} {density[0]:7.3f} shot-noise units")

fields = ["membrane.overcoupling", "link.transmission", "detector.efficiency", "spin.broadband_noise_sn"]
slopes = ba.gradient("conditional.epr.variance", experiment, fields)
for field, slope in zip(fields, slopes, strict=True):
    print(f"  d ln V / d ln {field:<28} {slope * experiment.value(field) / best.variance:+.3f}")

sweep = experiment.with_values({"phase.angle_deg": np.linspace(160, 200, 81)})
variance = ba.evaluate("conditional.epr.variance", sweep)
print(f"best phase {np.linspace(160, 200, 81)[np.argmin(variance)]:.1f} deg: {np.min(variance):.4f}")
