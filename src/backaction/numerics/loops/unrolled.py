"""Source of the innermost loops of `spectrum` for a known number of states: no inner loops, all in registers.

`compile.library(..., n=n)` puts these in the place of the loops of the same names.
"""


def unrolled_source(n: int) -> str:
    """Python source of `values`, `rows`, `project` and `gather` for n states that are all observed."""
    return (
        "\n\n".join(["\n".join(_values(n)), "\n".join(_rows(n)), "\n".join(_project(n)), "\n".join(_gather(n))]) + "\n"
    )


def _recurrence(n: int) -> list[str]:
    """Statements of Hyman's recurrence: x_i (unnormalised) and the factor (ar, ai) from w."""
    lines = [f"        xr{n - 1}, xi{n - 1} = 1.0, 0.0"]
    for i in range(n - 1, -1, -1):
        re = [f"h{i}_{j} * xr{j}" for j in range(i, n - 1)] + [f"h{i}_{n - 1}"]
        im = [f"h{i}_{j} * xi{j}" for j in range(i, n - 1)] or ["0.0"]
        turn = ("0.0", "s") if i == n - 1 else (f"-s * xi{i}", f"s * xr{i}")
        lines += [f"        ur = {turn[0]} + {' + '.join(re)}", f"        ui = {turn[1]} + {' + '.join(im)}"]
        if i > 0:
            lines += [f"        xr{i - 1}, xi{i - 1} = ur * v{i}, ui * v{i}"]
    return [*lines, "        scale = -beta / (ur * ur + ui * ui)", "        ar, ai = scale * ur, -scale * ui"]


def _constants(n: int) -> list[str]:
    lines = [f"    h{i}_{j} = H[{i}, {j}]" for i in range(n) for j in range(i, n)]
    return lines + [f"    v{i} = -1.0 / H[{i}, {i - 1}]" for i in range(1, n)]


def _values(n: int) -> list[str]:
    quadratic = []
    for i in range(n):
        re = " + ".join(f"q{i}_{j} * xr{j}" for j in range(i + 1))
        im = " + ".join(f"q{i}_{j} * xi{j}" for j in range(i + 1))
        quadratic.append(f"        square += xr{i} * ({re}) + xi{i} * ({im})")
    linear = [f"        lr = {' + '.join(f'n{i} * xr{i}' for i in range(n))}",
              f"        li = {' + '.join(f'n{i} * xi{i}' for i in range(n))}"]  # fmt: skip
    body = ["        s = w[k]", *_recurrence(n), "        square = 0.0", *quadratic, *linear]
    total = "        S[k] = R + (ar * ar + ai * ai) * square + 2.0 * ({re} * lr - {im} * li)"
    turned = ["        pr, pi = cr[k] * ar - ci[k] * ai, cr[k] * ai + ci[k] * ar"]
    return [
        "def values(w, cr, ci, H, Q, N, beta, R, S):",
        *_constants(n),
        *[f"    q{i}_{j} = Q[{i}, {j}]" for i in range(n) for j in range(i + 1)],
        *[f"    n{i} = N[{i}]" for i in range(n)],
        "    if len(cr) > 0:",
        *["    " + x for x in ["    for k in range(len(w)):", *body, *turned, total.format(re="pr", im="pi")]],
        "        return",
        "    for k in range(len(w)):",
        *body,
        total.format(re="ar", im="ai"),
    ]


def _rows(n: int) -> list[str]:
    store = [f"        xr[{i}, k], xi[{i}, k] = xr{i} * ar - xi{i} * ai, xr{i} * ai + xi{i} * ar" for i in range(n)]
    head = ["def rows(w, H, beta, xr, xi):", *_constants(n), "    for k in range(LANES):", "        s = w[k]"]
    return [*head, *_recurrence(n), *store]


def _project(n: int) -> list[str]:
    lines = ["def project(P, VU, zr, zi, xr, xi, yr, yi):"]
    for i in range(n):
        lines += [f"    {m.lower()}{j} = {m}[{i}, {j}]" for m in ("P", "VU") for j in range(n)]
        re = " + ".join(f"p{j} * zr[{j}, k] + vu{j} * xr[{j}, k]" for j in range(n))
        im = " + ".join(f"p{j} * zi[{j}, k] - vu{j} * xi[{j}, k]" for j in range(n))
        lines += ["    for k in range(LANES):", f"        yr[{i}, k] = {re}", f"        yi[{i}, k] = {im}"]
    return lines


def _gather(n: int) -> list[str]:
    lines = ["def gather(ur, ui, xr, xi, yr, yi, At, Qb):"]
    for i in range(n):
        sums = [(f"a{j}", f"a * yr[{j}, k] - b * yi[{j}, k]", f"At[{i}, {j}] += 2.0 * a{j}") for j in range(n)]
        sums += [(f"q{j}", f"a * xr[{j}, k] + b * xi[{j}, k]", f"Qb[{i}, {j}] += q{j}") for j in range(i + 1)]
        lines += [f"    {s} = 0.0" for s, _, _ in sums]
        lines += ["    for k in range(LANES):", f"        a, b = ur[{i}, k], ui[{i}, k]"]
        lines += [f"        {s} += {term}" for s, term, _ in sums]
        lines += [f"    {end}" for _, _, end in sums]
    return lines
