"""The likelihood of one bin of a spectrum, and its derivatives: Gamma (averaged periodograms), or Gaussian.

ln Gamma(y; N, m/N) = N ln N - ln Gamma(N) + (N - 1) ln y - N (ln m + y/m)
"""

import math


def digamma(x):
    """Derivative of ln Gamma(x), x > 0."""
    value = 0.0
    while x < 10.0:
        value -= 1.0 / x
        x += 1.0
    y = 1.0 / (x * x)
    return value + math.log(x) - 0.5 / x - y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y * (1 / 240 - y / 132))))


def gamma_bin(y, m, N, error, constant, slopes):
    """Ln Gamma(y; N_e, m/N_e) with 1/N_e = 1/N + error^2, and its derivatives by m and error."""
    if error == 0.0:
        return constant - N * (math.log(m) + y / m), N * (y / m - 1.0) / m, 0.0
    N_e = 1.0 / (1.0 / N + error * error)
    value = N_e * math.log(N_e) - math.lgamma(N_e) + (N_e - 1.0) * math.log(y) - N_e * (math.log(m) + y / m)
    by_error = 0.0
    if slopes:
        by_N = math.log(N_e) + 1.0 - digamma(N_e) + math.log(y) - math.log(m) - y / m
        by_error = -by_N * 2.0 * error * N_e * N_e
    return value, N_e * (y / m - 1.0) / m, by_error


def gaussian_bin(y, m, sd):
    """Ln of the normal density, and its derivative by m."""
    z = (y - m) / sd
    return -0.5 * z * z - math.log(sd) - 0.9189385332046727, z / sd
