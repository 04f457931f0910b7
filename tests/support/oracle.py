"""The model of Thomas 2021, Methods B, written from the paper in its own units (light [X, P] = i/2), with mpmath or floats.

Nothing of the package is used. `mistake` names one error of the table "what an implementer will most probably get wrong"; with
none the matrices are the right ones. State X_M, P_M, X_S, P_S, X_c, P_c; inputs F_XS, F_PS, F_M, in, nu, ex, eta (X, P each), P_bb.
"""

from __future__ import annotations

import mpmath as mp
import numpy as np

TABLE = {
    "gamma_S0": 1700.0,
    "zeta_S": 0.028,
    "Gamma_S": 20000.0,
    "n_S": 0.8,
    "f_M0": 1.37e6,
    "gamma_M0": 2.1e-3,
    "n_M0": 173000.0,
    "Delta": -0.7e6,
    "kappa": 4.2e6,
    "g": 75894.66384404111,
    "overcoupling": 0.93,
    "nu": 0.53,
    "eta": 0.77,
    "phi": 180.0,
    "theta": 2.0,
    "S_bb": 1.68,
    "offset": -0.5,
}

FIELD = {
    "gamma_S0": ("spin.intrinsic_linewidth_hz", 1),
    "zeta_S": ("spin.tensor_ratio", 1),
    "Gamma_S": ("spin.readout_rate_hz", 1),
    "n_S": ("spin.occupation", 1),
    "f_M0": ("membrane.mechanical_hz", 1),
    "gamma_M0": ("membrane.mechanical_linewidth_hz", 1),
    "n_M0": ("membrane.bath_occupation", 1),
    "Delta": ("membrane.detuning_hz", 1),
    "kappa": ("membrane.cavity_linewidth_hz", 1),
    "g": ("membrane.coupling_hz", 2**0.5),
    "overcoupling": ("membrane.overcoupling", 1),
    "nu": ("link.transmission", 1),
    "eta": ("detector.efficiency", 1),
    "phi": ("phase.angle_deg", 1),
    "theta": ("detector.angle_deg", 1),
    "S_bb": ("spin.broadband_noise_sn", 1),
    "offset": ("spin.larmor_offset_linewidths", 1),
}
"""The package's field for each parameter, and field = factor x parameter."""


def rot(angle):
    c, s = mp.cos(angle), mp.sin(angle)
    return mp.matrix([[c, -s], [s, c]])


def effective_mechanics(p):
    """Modulus and -2 Re of the pole near i omega_M0 of the quartic of cavity + mode (rad/s)."""
    w, gm, k, d, g = (2 * mp.pi * mp.mpf(p[x]) for x in ("f_M0", "gamma_M0", "kappa", "Delta", "g"))
    c0, m0 = k**2 / 4 + d**2, w**2
    s = mp.mpc(0, w)
    poly = [1, gm + k, m0 + c0 + gm * k, gm * c0 + k * m0, m0 * c0 + 8 * g**2 * w * d]
    slope = [4, 3 * poly[1], 2 * poly[2], poly[3]]
    for _ in range(60):
        step = mp.polyval(poly, s) / mp.polyval(slope, s)
        s = s - step
        if abs(step) < abs(s) * mp.mpf(10) ** (3 - mp.mp.dps):
            break
    return abs(s), -2 * s.real


def model(p, mistake=""):
    """A, B (inputs to state), c, d (current), diagonal S of the inputs, in mpmath."""
    P = {k: mp.mpf(v) for k, v in p.items()}
    tau = 2 * mp.pi
    gS0, GS, zeta = tau * P["gamma_S0"], tau * P["Gamma_S"], P["zeta_S"]
    wM, gM, kappa, Delta, g = (tau * P[k] for k in ("f_M0", "gamma_M0", "kappa", "Delta", "g"))
    if mistake == "textbook g":
        g = g / mp.sqrt(2)
    nu, eta = P["nu"], P["eta"]
    if mistake == "nu again":
        nu *= mp.mpf("0.9") ** 2 * mp.mpf("0.8")
    if mistake == "eta again":
        eta *= mp.mpf("0.96") ** 2 * mp.mpf("0.87")
    kin = P["overcoupling"] * kappa
    kex = kappa - kin
    w_eff, g_eff = effective_mechanics(p | {"g": g / tau})
    offset = P["offset"] * g_eff
    if mistake == "detuning sign":
        offset = -offset
    base = wM if mistake == "bare detuning" else w_eff
    wS = -(base + offset)
    if mistake == "omega_S positive":
        wS = -wS
    psi_in = mp.atan2(2 * Delta, kappa)
    psi_out = mp.atan2(2 * Delta, kin - kex)
    if mistake == "psi_in omitted":
        psi_in = mp.mpf(0)
    if mistake == "psi_out omitted":
        psi_out = mp.mpf(0)
    if mistake == "psi_out sign":
        psi_out = -psi_out
    theta = P["theta"] * mp.pi / 180 * (-1 if mistake == "theta sign" else 1)
    damp = gS0 / 2 + (0 if mistake == "no zeta damping" else zeta * GS)
    A, B = mp.zeros(6, 6), mp.zeros(6, 12)
    A[0, 1], A[1, 0], A[1, 1], A[1, 4] = wM, -wM, -gM, 4 * g
    A[2, 2], A[2, 3], A[3, 2], A[3, 3] = -damp, wS, -wS, -damp
    A[4, 4], A[4, 5], A[5, 4], A[5, 5], A[5, 0] = -kappa / 2, -Delta, Delta, -kappa / 2, 2 * g
    B[2, 0] = B[3, 1] = B[1, 2] = 1
    B[2, 4], B[3, 3] = -2 * mp.sqrt(GS) * zeta, 2 * mp.sqrt(GS)
    # field between the systems: rows X, P over states and inputs
    fx, fw = mp.zeros(2, 6), mp.zeros(2, 12)
    fx[0, 3], fx[1, 2] = -mp.sqrt(GS) * zeta, mp.sqrt(GS)
    fw[0, 3] = fw[1, 4] = 1
    fx, fw = mp.sqrt(nu) * fx, mp.sqrt(nu) * fw
    fw[0, 5] = fw[1, 6] = mp.sqrt(1 - nu)
    fw[1, 11] = mp.sqrt(nu / (1 - nu)) if mistake == "bb port" else mp.sqrt(nu)
    O = rot(P["phi"] * mp.pi / 180)
    fx, fw = O * fx, O * fw
    into = mp.sqrt(kin) * rot(psi_in).T
    A[4:6, :] = A[4:6, :] + into * fx
    B[4:6, :] = B[4:6, :] + into * fw
    ex = mp.sqrt(kex) * rot(psi_in).T
    for i in range(2):
        for j in range(2):
            B[4 + i, 7 + j] += ex[i, j]
    gx = mp.zeros(2, 6)
    gx[:, 4:6] = mp.sqrt(kin) * rot(psi_in)
    back = rot(psi_in + psi_out).T
    ox, ow = back * (gx - fx), back * (-fw)
    mx, mw = mp.sqrt(eta) * rot(theta) * ox, mp.sqrt(eta) * rot(theta) * ow
    mw[0, 9] = mw[1, 10] = mp.sqrt(1 - eta)
    vac = mp.mpf(1) / (2 if mistake == "vacuum 1/2" else 4)
    nM = mp.mpf(0) if mistake == "n_M0 as printed" else P["n_M0"]
    force = (1 if mistake == "F_M factor" else 2) * gM * (nM + mp.mpf(1) / 2)
    spin = gS0 * (P["n_S"] + mp.mpf(1) / 2)
    bb = {"S_bb absolute": P["S_bb"], "S_bb omitted": mp.mpf(0)}.get(mistake, P["S_bb"] / 4)
    S = [spin, spin, force, *[vac] * 8, bb]
    return A, B, mx[1, :], mw[1, :], S


def forms(p, mistake=""):
    """A, Q, N (column), R, c of the filter problem in mpmath."""
    A, B, c, d, S = model(p, mistake)
    BS = B.copy()
    dS = d.copy()
    for k in range(12):
        for i in range(6):
            BS[i, k] *= S[k]
        dS[0, k] *= S[k]
    return A, BS * B.T, BS * d.T, (dS * d.T)[0, 0], c


def lyapunov(A, Q):
    """A V + V A^T + Q = 0 by one dense solve, to the working precision."""
    n = A.rows
    pairs = [(i, j) for i in range(n) for j in range(i, n)]
    where = {pair: k for k, pair in enumerate(pairs)}
    L, rhs = mp.zeros(len(pairs), len(pairs)), mp.zeros(len(pairs), 1)
    for row, (i, j) in enumerate(pairs):
        for k in range(n):
            L[row, where[tuple(sorted((k, j)))]] += A[i, k]
            L[row, where[tuple(sorted((i, k)))]] += A[j, k]
        rhs[row] = -Q[i, j]
    v = mp.lu_solve(L, rhs)
    V = mp.zeros(n, n)
    for (i, j), k in where.items():
        V[i, j] = V[j, i] = v[k]
    return V


def unconditional(p, mistake=""):
    A, Q, _, _, _ = forms(p, mistake)
    return lyapunov(A, Q)


def conditional(p, mistake="", start=None, steps=60):
    """Newton-Kleinman from the unconditional state (gain zero is stabilising: A is stable)."""
    A, Q, N, R, c = forms(p, mistake)
    if mistake == "N dropped":
        N = mp.zeros(6, 1)
    V = start if start is not None else lyapunov(A, Q)
    for _ in range(steps):
        K = (V * c.T + N) / R
        F = A - K * c
        new = lyapunov(F, Q + K * R * K.T - K * N.T - N * K.T)
        change = max(abs(x) for x in new - V)
        V = new
        if change < mp.mpf(10) ** (8 - mp.mp.dps):
            break
    return V


def epr(V):
    s1, s2 = V[0, 0] + V[1, 1], V[2, 2] + V[3, 3]
    rc, rs = V[0, 2] - V[1, 3], V[0, 3] + V[1, 2]
    R = mp.sqrt(rc**2 + rs**2)
    value = (s1 + s2) / 2 - mp.sqrt((s1 - s2) ** 2 / 4 + R**2)
    return value, (s1 - value) / R, mp.atan2(rs, rc)


def epr_at(V, a, b):
    s1, s2 = V[0, 0] + V[1, 1], V[2, 2] + V[3, 3]
    rc, rs = V[0, 2] - V[1, 3], V[0, 3] + V[1, 2]
    return (s1 + a**2 * s2 - 2 * a * (rc * mp.cos(b) + rs * mp.sin(b))) / (1 + a**2)


def log_negativity(V):
    V = V[:4, :4]
    det = lambda i, j: V[i, j] * V[i + 1, j + 1] - V[i, j + 1] * V[i + 1, j]
    delta = det(0, 0) + det(2, 2) - 2 * det(0, 2)
    nu = mp.sqrt((delta - mp.sqrt(delta**2 - 4 * mp.det(V))) / 2)
    return max(mp.mpf(0), -mp.log(2 * nu, 2))


def current_spectrum(p, frequency_hz):
    """S_ii in shot-noise units from the frequency domain, in floats: direct sum over inputs."""
    A, B, c, d, S = model(p)
    A, B, c, d = (np.array(m.tolist(), dtype=float) for m in (A, B, c, d))
    S = np.array([float(s) for s in S])
    out = []
    for f in frequency_hz:
        H = c @ np.linalg.solve(-2j * np.pi * f * np.eye(6) - A, B) + d
        out.append(np.sum(np.abs(H[0]) ** 2 * S) * 4)
    return np.array(out)
