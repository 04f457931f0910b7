"""Loops for the compiler: plain functions over arrays, compiled for their sizes by `numerics.compile`."""
