"""Compiled loops that run and reverse the straight-line programs of `numerics.tracing`."""

import math

import numpy as np

ADD, SUB, MUL, DIV, SQRT, COS, SIN, EXP, LOG, ATAN, POW, NORMAL, QUANTILE, EXPM1 = range(1, 15)
"""Operation codes; NORMAL is the normal distribution function, QUANTILE its inverse. Tests below go by frequency."""


def quantile(p):
    """The normal quantile: a rational start (Abramowitz and Stegun 26.2.23) and Halley steps on erfc."""
    if not (p > 0.0 and p < 1.0):
        return -np.inf if p == 0.0 else (np.inf if p == 1.0 else np.nan)
    tail = min(p, 1.0 - p)
    t = math.sqrt(-2.0 * math.log(tail))
    z = -(t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308))))
    for _ in range(3):
        e = (0.5 * math.erfc(-z * 0.7071067811865476) - tail) * 2.5066282746310002 * math.exp(0.5 * z * z)
        z -= e / (1.0 + 0.5 * z * e)
    return z if p < 0.5 else -z


def forward(codes, left, right, v):
    """Fill the memory v behind its inputs and constants."""
    first = len(v) - len(codes)
    for i in range(len(codes)):
        code = codes[i]
        a = v[left[i]]
        if code == MUL:
            v[first + i] = a * v[right[i]]
        elif code == ADD:
            v[first + i] = a + v[right[i]]
        elif code == SUB:
            v[first + i] = a - v[right[i]]
        elif code == DIV:
            v[first + i] = a / v[right[i]]
        elif code == SQRT:
            v[first + i] = math.sqrt(a)
        elif code == COS:
            v[first + i] = math.cos(a)
        elif code == SIN:
            v[first + i] = math.sin(a)
        elif code == EXP:
            v[first + i] = math.exp(a)
        elif code == LOG:
            v[first + i] = math.log(a)
        elif code == ATAN:
            v[first + i] = math.atan(a)
        elif code == POW:
            v[first + i] = a ** v[right[i]]
        elif code == NORMAL:
            v[first + i] = 0.5 * math.erfc(-a * 0.7071067811865476)
        elif code == QUANTILE:
            v[first + i] = quantile(a)
        else:
            v[first + i] = math.expm1(a)


def reverse(codes, left, right, v, bar):
    """Add to `bar` of the inputs what the `bar` of the results says."""
    first = len(v) - len(codes)
    for i in range(len(codes) - 1, -1, -1):
        g = bar[first + i]
        if g == 0.0:
            continue
        code, x, y = codes[i], left[i], right[i]
        if code == MUL:
            bar[x] += g * v[y]
            bar[y] += g * v[x]
        elif code == ADD:
            bar[x] += g
            bar[y] += g
        elif code == SUB:
            bar[x] += g
            bar[y] -= g
        elif code == DIV:
            bar[x] += g / v[y]
            bar[y] -= g * v[first + i] / v[y]
        elif code == SQRT:
            bar[x] += 0.5 * g / v[first + i]
        elif code == COS:
            bar[x] -= g * math.sin(v[x])
        elif code == SIN:
            bar[x] += g * math.cos(v[x])
        elif code == EXP:
            bar[x] += g * v[first + i]
        elif code == LOG:
            bar[x] += g / v[x]
        elif code == ATAN:
            bar[x] += g / (1.0 + v[x] * v[x])
        elif code == POW:
            bar[x] += g * v[y] * v[x] ** (v[y] - 1.0)
        elif code == NORMAL:
            bar[x] += g * 0.3989422804014327 * math.exp(-0.5 * v[x] * v[x])
        elif code == EXPM1:
            bar[x] += g * (1.0 + v[first + i])
        else:
            z = v[first + i]
            bar[x] += g * 2.5066282746310002 * math.exp(0.5 * z * z)


def many(codes, left, right, memory, points, outputs, out):
    """The outputs at many points."""
    for k in range(len(points)):
        for i in range(points.shape[1]):
            memory[i] = points[k, i]
        forward(codes, left, right, memory)
        for i in range(len(outputs)):
            out[k, i] = memory[outputs[i]]
