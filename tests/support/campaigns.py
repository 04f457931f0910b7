"""A small campaign as files."""

EXPERIMENT = """
name = "bench"
[analysis]
band_hz = ["240 kHz", "360 kHz"]
[[element]]
name = "s"
kind = "spin_oscillator"
larmor_hz = -3e5
intrinsic_linewidth_hz = "2 kHz"
readout_rate_hz = "8 kHz"
occupation = 1.0
[[element]]
name = "d"
kind = "homodyne"
efficiency = 0.8
[prior]
"s.larmor_hz" = { mean = -3e5, sd = 2e3 }
"s.readout_rate_hz" = { median = "8 kHz", factor = 1.1 }
"d.efficiency" = { mean = 0.8, sd = 0.05 }
"""
PLAN = """
experiment = "bench.toml"
resolution_hz = "400 Hz"
[[record]]
name = "a"
simulate = { seed = 1, duration = "50 ms" }
[[record]]
name = "b"
simulate = { seed = 2, duration = "0.05" }
set = { "s.larmor_hz" = "-310 kHz" }
mask_hz = [["300 kHz", "305 kHz"]]
"""


def write(folder, plan=PLAN, **files):
    (folder / "bench.toml").write_text(EXPERIMENT)
    (folder / "c.toml").write_text(plan)
    for name, text in files.items():
        (folder / name.replace("_json", ".json")).write_text(text)
    return folder / "c.toml"
