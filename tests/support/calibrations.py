"""Simulated calibrations by formulas that are not the package's: physics notes, sections 1 to 9. Rates in kHz or MHz as there."""

from __future__ import annotations

import numpy as np
from scipy.special import wofz

from backaction.calibration import METHODS
from backaction.records.tables import Table

TWO_PI = 2 * np.pi
KB_OVER_H = 1.380649e-23 / 6.62607015e-34


def table(*columns, **attributes):
    return Table("simulated", tuple(f"c{k}" for k in range(len(columns))), np.column_stack(columns), attributes)


def make(kind, **settings):
    return METHODS[kind].from_table(kind, settings, "test")


def complex_noise(rng, shape, sd):
    return sd * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


# -- 1 CIFAR ----------------------------------------------------------------------------------------------------------


def cifar(f, angles, G=20.0, g=1.7, zeta=0.028, w=-1370.0, Gb=160.0, gb=1000.0, A=1.0, phase=0.3, tau=5e-4, error=0.0):
    """M = 1 + 2 G Z L Z + 2 Gbb Z Lbb Z (B17) by explicit 2 x 2 matrices, one frequency at a time."""
    Z = np.array([[0, -zeta], [1, 0]])
    out = np.empty((f.size, len(angles)), dtype=complex)
    for k, x in enumerate(f):
        M = np.eye(2, dtype=complex)
        for rate, width in ((G, g), (Gb, gb)):
            a = width / 2 + zeta * rate - 1j * x
            M += 2 * rate * Z @ np.linalg.inv(np.array([[a, -w], [w, a]])) @ Z
        for j, th in enumerate(np.radians(angles)):
            drive = np.array([np.cos(th + error), np.sin(th + error)])
            out[k, j] = A * np.exp(1j * (phase + TWO_PI * tau * (x - abs(w)))) * (M[1] @ drive)
    return out


ANGLES = (-45.0, 0.0, 45.0)


def simulate_cifar(rng, sd=0.02, points=161, span=80.0, angles=ANGLES, **truth):
    f = 1370.0 + np.linspace(-span, span, points)
    C = cifar(f, angles, **truth) + complex_noise(rng, (points, len(angles)), sd)
    columns = [part for j in range(len(angles)) for part in (C[:, j].real, C[:, j].imag)]
    return table(1e3 * f, *columns)


def cifar_method(sd=0.02, angles=ANGLES, **more):
    return make("cifar", angles_deg=list(angles), layout="complex", noise=sd, axis_unit="Hz", **more)


# -- 2 MORS -----------------------------------------------------------------------------------------------------------

GENERAL = np.array([0, 0, 0, 0, 0.01, 0.04, 0.125, 0.31, 0.515])


def mors(f, p, width=450.0, qz=400.0, A=1.0, f0=0.0, pump=0.0):
    """Sum over the eight lines of F = 4, amplitudes c_m (p_{m+1} - p_m), written out."""
    s = np.zeros(f.size, dtype=complex)
    for k, m in enumerate(range(-4, 4)):
        c, above = 20 - m * (m + 1), 20 - (m + 1) * (m + 2)
        w = width + pump * (c + above) / 40
        s += A * c * (p[k + 1] - p[k]) / (w / 2 - 1j * (f - (f0 - (m + 0.5) * qz)))
    return s


def simulate_mors(rng, p=GENERAL, snr=100.0, **more):
    f = np.linspace(-4e3, 4e3, 401)
    s = mors(f, p, **more)
    sd = float(np.max(np.abs(s))) / snr
    s = s + complex_noise(rng, f.size, sd) if rng is not None else s
    return table(f, s.real, s.imag, np.abs(s) ** 2), sd


# -- 3 white noise ----------------------------------------------------------------------------------------------------


def simulate_white_noise(rng, n=1.22, C=1.1, g=5.2, h=40.0, f0=1280.0, averages=400, angle=0.0, floor=0.0, excess=0.0):
    f = np.linspace(1255, 1305, 201)
    d = f0 - f
    R = (g / 2) / (d - 1j * g / 2) * np.sqrt(h)  # sqrt(eta) R_BA
    spectra = []
    for drive in (0.0, n):
        S = (
            1
            + floor
            + np.abs(R) ** 2 * (1 + 1 / C)
            + drive * np.abs(np.cos(angle) * R + np.sin(angle) * np.sqrt(0.7)) ** 2
        )
        S = S + excess
        spectra.append(S * rng.gamma(averages, 1 / averages, f.size) if rng is not None else S)
    return table(1e3 * f, *spectra, unit="SN", averages=averages)


# -- 4 squeezing ------------------------------------------------------------------------------------------------------


def squeezing(f, T=11.4, eta=0.8, w=1370.0, g=30.0, delta=-700.0, kappa=4200.0, share=0.93, Q=6.5e8):
    """Amplitude quadrature in transmission; notes, section 4, checked there against a literal 3 x 3 solve (paper's g, kHz)."""
    W = f
    a = kappa / 2 - 1j * W
    gm = w / Q
    chi = w / (w**2 - W**2 - 1j * W * gm)
    det = a**2 + delta * (delta + 8 * g**2 * chi)
    D11, D12 = a / det, -delta / det
    n = 1 / np.expm1(w * 1e3 / (KB_OVER_H * T))
    koc = share * kappa
    light = np.abs(koc * D11 - 1) ** 2 + np.abs(koc * D12) ** 2
    light += koc * (kappa - koc) * (np.abs(D11) ** 2 + np.abs(D12) ** 2)
    thermal = 4 * koc * np.abs(2 * g * delta * chi / det) ** 2 * 2 * gm * (n + 0.5)
    return 1 - eta + eta * (light + thermal)


def reflected(f, T=11.4, eta=0.8, w=1370.0, g=30.0, delta=-700.0, kappa=4200.0, share=0.93, Q=6.5e8):
    """Amplitude quadrature in reflection from the coupler: complex a, a* with the carrier's phase in and out written out."""
    n = 1 / np.expm1(w * 1e3 / (KB_OVER_H * T))
    gm, gg = w / Q, np.sqrt(2) * g
    field = 1 / (kappa / 2 - 1j * delta)  # intracavity amplitude per incoming one
    out = share * kappa * field - 1  # reflected carrier
    phase_in, phase_out = field / abs(field), out / abs(out)
    S = np.empty(f.size)
    for k, W in enumerate(f):
        chi = w / (w**2 - W**2 - 1j * W * gm)
        # (a, a^+) with the intracavity carrier real: force 2 g (a + a^+)/sqrt 2 on P, phase shift i g sqrt 2 X
        s = 2j * gg**2 * chi
        M = np.array([[kappa / 2 - 1j * (W + delta) - s, -s], [s, kappa / 2 - 1j * (W - delta) + s]])
        R = np.linalg.inv(M)
        turn_in = np.diag([1 / phase_in, phase_in])  # lab (incoming carrier real) to the intracavity frame
        turn_out = np.diag([phase_in, 1 / phase_in])
        pick = np.array([1 / phase_out, phase_out]) / np.sqrt(2)  # amplitude quadrature of the reflected carrier
        total = 0.0
        for port, part in (("in", share), ("loss", 1 - share)):
            H = np.sqrt(share * kappa * part * kappa) * turn_out @ R @ turn_in - (np.eye(2) if port == "in" else 0)
            row = pick @ H
            total += 0.5 * np.sum(np.abs(row) ** 2)
        kick = np.sqrt(share * kappa) * turn_out @ R @ np.array([1j, -1j]) * np.sqrt(2) * gg * chi
        total += np.abs(pick @ kick) ** 2 * 2 * gm * (n + 0.5)
        S[k] = 2 * total
    return 1 - eta + eta * S


def simulate_squeezing(rng, averages=600, gs=(30.0, 37.0), deltas=(-700.0, -1500.0), step=0.25, **truth):
    f = np.arange(1330, 1410 + step / 2, step)
    spectra = [squeezing(f, g=g, delta=d, **truth) for g, d in zip(gs, deltas)]
    if rng is not None:
        spectra = [S * rng.gamma(averages, 1 / averages, f.size) for S in spectra]
    return table(1e3 * f, *spectra, unit="SN", averages=averages)


def squeezing_method(deltas=(-700.0, -1500.0), **more):
    settings = dict(
        detunings_hz=[1e3 * d for d in deltas], cavity_linewidth_hz=4.2e6, overcoupling=0.93, mechanical_q=6.5e8
    )
    return make("squeezing", axis_unit="Hz", **{**settings, **more})


# -- 5 cavity ---------------------------------------------------------------------------------------------------------


def beat(W, kappa=4.2, delta=0.7, index=0.0):
    """Fourier component at W of |sum_n J_n(beta) T(Delta + n W) e^{-i n W t}|^2, by a numerical Fourier transform over one period."""
    t = np.arange(512) / 512
    out = []
    for x in np.atleast_1d(W):
        small = index or 1e-4
        phase = small * np.sin(TWO_PI * t)
        field = np.fft.ifft(np.exp(1j * phase))  # components e^{+i n W t}, n = 0..
        n = np.fft.fftfreq(512, 1 / 512)
        T = (kappa / 2) / (kappa / 2 - 1j * (delta + n * x))
        intensity = np.abs(np.fft.fft(field * T)) ** 2
        out.append(np.fft.fft(intensity)[1] / 512 / (small / 2))
    return np.array(out)


def simulate_beat(rng, sd=0.01, **truth):
    W = np.linspace(0.3, 12, 80)
    y = np.abs(beat(W, **truth))
    return table(W * 1e6, y * (1 + sd * rng.standard_normal(W.size)) if rng is not None else y)


def swept(t, kappa, rate, t0):
    q, p = 0.5j * rate, kappa / 2 - 1j * rate * (t - t0)
    return 0.5 * np.sqrt(np.pi / q) * wofz(1j * p / (2 * np.sqrt(q)))


def simulate_sweep(rng, speed=2.0, sd=0.01, kappa=4.2):
    k = TWO_PI * kappa
    t = np.linspace(-0.05, 0.35, 801)
    y = np.abs(swept(t, k, speed * k * k, 0.05)) ** 2
    sd = sd * np.max(y)
    return table(t * 1e-6, y + sd * rng.standard_normal(t.size)), sd


# -- 6 microwaves -----------------------------------------------------------------------------------------------------


def bose(f_hz, T):
    return 1 / np.expm1(f_hz / (KB_OVER_H * T))


def simulate_thermal_sweep(rng, sd=0.02, K=2.5e-3, B=4e-3, saturation=0.0177):
    T = np.array([15, 20, 30, 40, 60, 80, 100, 130, 160, 200]) * 1e-3
    area = K * bose(1e7, (T**4 + saturation**4) ** 0.25) + B
    return table(T, area * (1 + sd * rng.standard_normal(T.size)))


def exact_width(G, kappa, gamma):
    """Slow eigenvalue of [[-kappa/2, -iG], [-iG, -gamma/2]], twice minus its real part."""
    G = np.atleast_1d(G)
    M = np.array([[[-kappa / 2, -1j * x], [-1j * x, -gamma / 2]] for x in G])
    return -2 * np.max(np.linalg.eigvals(M).real, axis=-1)


def simulate_cooling(rng, sd=0.03, G1=60e3, gamma=106.0, kappa=1.38e6, K=3e-4, n_T=41.0, nc=0.15, share=1130 / 1380):
    P = np.logspace(-3, 0, 13)
    width = exact_width(G1 * np.sqrt(P), kappa, gamma)
    opt = width - gamma
    n_m = (gamma * n_T + opt * nc * P) / (gamma + opt)
    area = K * share * opt * (n_m - 2 * nc * P)
    return table(P, width * (1 + sd * rng.standard_normal(13)), area * (1 + sd * rng.standard_normal(13)))


# -- 7 dynamical back-action ------------------------------------------------------------------------------------------


def spring(delta, g0=107.0, kappa=4200.0, w=1370.0):
    """Damping and shift from the poles of the two-mode drift matrix in the complex amplitudes a, a*, b, b* (kHz)."""
    out = []
    for d in np.atleast_1d(delta):
        g = g0 / np.sqrt(1 + (2 * d / kappa) ** 2)
        M = np.array(
            [
                [1j * d - kappa / 2, 0, 1j * g, 1j * g],
                [0, -1j * d - kappa / 2, -1j * g, -1j * g],
                [1j * g, 1j * g, -1j * w, 0],
                [-1j * g, -1j * g, 0, 1j * w],
            ]
        )
        values = np.linalg.eigvals(M)
        pole = values[np.argmin(np.abs(values + 1j * w))]
        out.append((-2 * pole.real, -pole.imag - w))
    return np.array(out).T


def transparency(x, g=10.0, gm=0.106, kex=1130.0, kappa=1380.0, w=10000.0, delta=-10000.0):
    S = g**2 * (1 / (gm / 2 + 1j * (w - x)) - 1 / (gm / 2 - 1j * (w + x)))
    cp, cm = kappa / 2 - 1j * (delta + x), kappa / 2 + 1j * (delta - x)
    return 1 - kex * (cm - S) / ((cp + S) * (cm - S) + S**2)


# -- 10 thermal oscillator --------------------------------------------------------------------------------------------


def thermal_density(f, f0, gamma, variance, structural=False):
    """Langevin oscillator m x'' + m 2 pi gamma x' + k x = F, k <x^2> = k_B T; per Hz, two-sided."""
    w0, w = TWO_PI * f0, TWO_PI * f
    rate = TWO_PI * gamma * (f0 / f if structural else 1.0)
    return variance * 2 * rate * w0**2 / ((w0**2 - w**2) ** 2 + (w * rate) ** 2)


def simulate_with_tone(rng, f, density, at, power, averages):
    """A spectrum of Hann-windowed periodograms of Gaussian noise of a two-sided `density` and a tone of mean square `power`.

    Amplitude by amplitude: independent complex noise and the tone's own leakage in every bin of the bare transform, the
    window as its three coefficients, so that bins are correlated and the tone beats with the noise as in an instrument.
    """
    step = f[1] - f[0]
    wide = np.concatenate([[density[0]], density, [density[-1]]])
    noise = complex_noise(rng, (averages, wide.size), np.sqrt(wide / 2))
    off = (at - f[0]) / step - np.arange(-1, f.size + 1)
    tone = np.sqrt(power / 2 / step) * np.sinc(off) * np.exp(1j * np.pi * off)
    x = noise + tone * np.exp(2j * np.pi * rng.uniform(size=(averages, 1)))
    y = (x[:, 1:-1] - (x[:, :-2] + x[:, 2:]) / 2) / np.sqrt(1.5)
    S = np.mean(np.abs(y) ** 2, axis=0)
    return table(f, S, unit="V^2/Hz", sided="two", averages=averages, window="hann", reference="V")


def simulate_driven(rng, off, share, gamma=400.0, averages=100):
    """A particle of 1 pg at 60 kHz and 293 K, driven `off` Hz from its line with `share` of its thermal variance.

    Returns the table, settings of `driven_force`, and the truth.
    """
    m, T, mode, scale, step = 1e-12, 293.0, 60e3, 2e-7, 20.0
    drive = mode + off + 7.0  # between two bins
    variance = 1.380649e-23 * T / m / (TWO_PI * mode) ** 2 / scale**2
    chi = 1 / m / np.hypot(TWO_PI**2 * (mode**2 - drive**2), TWO_PI**2 * drive * gamma)
    f = np.arange(56e3, 64e3, step)
    density = 6e-3 * variance / gamma + thermal_density(f, mode, gamma, variance)
    t = simulate_with_tone(rng, f, density, drive, share * variance, averages)
    force = np.sqrt(2 * share * variance) * scale / chi
    settings = dict(force_n=force, drive_hz=drive, mass_kg=m, mechanical_hz=mode, axis_unit="Hz")
    return t, settings, {"displacement_m_per_unit": scale, "temperature_k": T}
