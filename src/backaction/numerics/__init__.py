"""Numerical methods that know no physics: matrix equations, compiled loops, traces, recursions."""
