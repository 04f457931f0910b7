"""Experiments of the records in the reference folder, from the calibrations told there, as TOML."""

BARE = """
name = "hybrid"
[state]
modes = ["membrane", "spin"]
[analysis]
band_hz = ["1.2 MHz", "1.6 MHz"]
[[element]]
name = "spin"
kind = "spin_oscillator"
mass = "negative"
larmor_offset_hz = 0.0
intrinsic_linewidth_hz = "1.7 kHz"
readout_rate_hz = "18 kHz"
tensor_ratio = 0.028
occupation = 0.72
broadband_noise_sn = 1.6
[[element]]
name = "link"
kind = "loss"
transmission = 0.55
[[element]]
name = "phase"
kind = "rotation"
angle_deg = 180.0
%(laser)s
[[element]]
name = "membrane"
kind = "optomechanical_cavity"
mechanical_hz = "1.370 MHz"
mechanical_linewidth_hz = "2.1 mHz"
bath_occupation = 173e3
cavity_linewidth_hz = "4.2 MHz"
overcoupling = 0.925
detuning_hz = "-0.7 MHz"
coupling_hz = 107480.2            # the calibrated 76 kHz of the paper's g, times sqrt(2)
%(modes)s
[[element]]
name = "detector"
kind = "homodyne"
efficiency = 0.80
angle_deg = 2.0
electronic_noise_sn = 0.04        # what the dark record proposes
[prior]
"spin.larmor_offset_hz" = { mean = 0.0, sd = "10 kHz" }
"spin.intrinsic_linewidth_hz" = { mean = 1700.0, sd = 100.0 }
"spin.readout_rate_hz" = { mean = "18 kHz", sd = "2 kHz" }
"spin.tensor_ratio" = { mean = 0.028, sd = 0.003 }
"spin.occupation" = { mean = 0.72, sd = 0.15 }
"spin.broadband_noise_sn" = { mean = 1.6, sd = 0.3 }
"link.transmission" = { mean = 0.55, sd = 0.1 }
"phase.angle_deg" = { mean = 180.0, sd = 3.0 }
"membrane.mechanical_hz" = { mean = 1.370e6, sd = 100.0 }
"membrane.bath_occupation" = { mean = 173e3, sd = 10e3 }
"membrane.cavity_linewidth_hz" = { mean = 4.2e6, sd = 0.05e6 }
"membrane.overcoupling" = { mean = 0.925, sd = 0.01 }
"membrane.detuning_hz" = { mean = -0.7e6, sd = 0.05e6 }
"membrane.coupling_hz" = { mean = 107480.2, sd = 2830.0 }
"detector.efficiency" = { mean = 0.80, sd = 0.03 }
"detector.angle_deg" = { mean = 2.0, sd = 1.0 }
%(priors)s
"""

LASER = """
[[element]]
name = "laser"
kind = "technical_noise"
angle_deg = 90.0
[[element.lines]]
name = "phase_noise"
center_hz = "1.359 MHz"
width_hz = "1 kHz"
peak_sn = 10.0
"""

MODES = """
[[element.modes]]
name = "second"
mechanical_hz = "1.518 MHz"
mechanical_linewidth_hz = "2 mHz"
bath_occupation = 156e3
coupling_hz = "30 kHz"
[[element.modes]]
name = "third"
mechanical_hz = "1.524 MHz"
mechanical_linewidth_hz = "2 mHz"
bath_occupation = 156e3
coupling_hz = "30 kHz"
"""

LINE_PRIORS = """
"laser.phase_noise.center_hz" = { mean = "1.359 MHz", sd = "1 kHz" }
"laser.phase_noise.width_hz" = { lower = 50.0, upper = 10000.0 }
"laser.phase_noise.peak_sn" = { lower = 0.0, upper = 200.0 }
"membrane.second.mechanical_hz" = { mean = "1.518 MHz", sd = "3 kHz" }
"membrane.second.coupling_hz" = { lower = 0.0, upper = "120 kHz" }
"membrane.second.bath_occupation" = { lower = 0.0, upper = 1e7 }
"membrane.third.mechanical_hz" = { mean = "1.524 MHz", sd = "3 kHz" }
"membrane.third.coupling_hz" = { lower = 0.0, upper = "120 kHz" }
"membrane.third.bath_occupation" = { lower = 0.0, upper = 1e7 }
"""

HYBRID = BARE % {"laser": LASER, "modes": MODES, "priors": LINE_PRIORS}
HYBRID_BARE = BARE % {"laser": "", "modes": "", "priors": ""}

NANOSPHERE = """
name = "nanosphere"
[analysis]
band_hz = ["57 kHz", "66 kHz"]
[[element]]
name = "particle"
kind = "oscillator"
frequency_hz = "61.9 kHz"
intrinsic_linewidth_hz = "1 kHz"
temperature_k = 300.0
gain = 0.01
[[element]]
name = "detector"
kind = "homodyne"
[prior]
"particle.frequency_hz" = { lower = 58e3, upper = 65e3 }
"particle.intrinsic_linewidth_hz" = { lower = 50.0, upper = 5000.0 }
"particle.gain" = { lower = 1e-5, upper = 1.0 }
"""
