"""Compiled loops that run and reverse the straight-line programs of `numerics.tracing`."""

import math

import numpy as np


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
        if code == 3:
            v[first + i] = a * v[right[i]]
        elif code == 1:
            v[first + i] = a + v[right[i]]
        elif code == 2:
            v[first + i] = a - v[right[i]]
        elif code == 4:
            v[first + i] = a / v[right[i]]
        elif code == 5:
            v[first + i] = math.sqrt(a)
        elif code == 6:
            v[first + i] = math.cos(a)
        elif code == 7:
            v[first + i] = math.sin(a)
        elif code == 8:
            v[first + i] = math.exp(a)
        elif code == 9:
            v[first + i] = math.log(a)
        elif code == 10:
            v[first + i] = math.atan(a)
        elif code == 11:
            v[first + i] = a ** v[right[i]]
        elif code == 12:
            v[first + i] = 0.5 * math.erfc(-a * 0.7071067811865476)
        elif code == 13:
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
        if code == 3:
            bar[x] += g * v[y]
            bar[y] += g * v[x]
        elif code == 1:
            bar[x] += g
            bar[y] += g
        elif code == 2:
            bar[x] += g
            bar[y] -= g
        elif code == 4:
            bar[x] += g / v[y]
            bar[y] -= g * v[first + i] / v[y]
        elif code == 5:
            bar[x] += 0.5 * g / v[first + i]
        elif code == 6:
            bar[x] -= g * math.sin(v[x])
        elif code == 7:
            bar[x] += g * math.cos(v[x])
        elif code == 8:
            bar[x] += g * v[first + i]
        elif code == 9:
            bar[x] += g / v[x]
        elif code == 10:
            bar[x] += g / (1.0 + v[x] * v[x])
        elif code == 11:
            bar[x] += g * v[y] * v[x] ** (v[y] - 1.0)
        elif code == 12:
            bar[x] += g * 0.3989422804014327 * math.exp(-0.5 * v[x] * v[x])
        elif code == 14:
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
