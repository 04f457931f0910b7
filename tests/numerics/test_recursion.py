"""The compiled recursion against the plain loop, and where its code is kept."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from backaction.numerics.compile import cache_folder
from backaction.numerics.recursion import Recursion


def plain(A, B, outputs, u, x):
    """One step at a time."""
    out = [np.empty((len(u), len(C))) for C, _ in outputs]
    states = []
    for k, value in enumerate(u):
        for (C, D), o in zip(outputs, out, strict=True):
            o[k] = C @ x + D @ value
        x = A @ x + B @ value
        states.append(x)
    return out, np.array(states)


def problem(n, q, p, T, seed=0):
    rng = np.random.default_rng(seed)
    A = 0.95 * np.linalg.qr(rng.standard_normal((n, n)))[0]
    B = rng.standard_normal((n, q))
    outputs = [(rng.standard_normal((r, n)), rng.standard_normal((r, q))) for r in p]
    return A, B, outputs, rng.standard_normal((T, q)), rng.standard_normal(n)


# sizes are few, because each is compiled
@settings(max_examples=40)
@given(
    st.sampled_from([(2, 1, ()), (6, 1, (4, 1)), (3, 2, (2,)), (4, 5, (1, 4))]),
    st.integers(0, 60),
    st.sampled_from([-1.7, 1e-6, 0.3, 1.0, 40.0]),
    st.floats(-2, 2),
)
def test_recursion_equals_the_plain_loop(size, T, scale, offset):
    n, q, p = size
    A, B, outputs, u, x = problem(n, q, p, T)
    expected, states = plain(A, B, outputs, scale * u + offset, x)
    out = [np.empty_like(e) for e in expected]
    last = Recursion(A, B, outputs, scale, offset).run(u, x, out)
    for a, b in zip(out, expected, strict=True):
        assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    assert_allclose(last, states[-1] if T else x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("every", [1, 2, 3, 4, 5, 7, 11, 12, 64])
def test_states_at_every_nth_step(every):
    A, B, _, u, x = problem(3, 1, (), 400)
    _, states = plain(A, B, [], u, x)
    kernel = Recursion(A, B, [], divides=every)
    steps = len(u) - len(u) % every
    ends = np.empty((steps // every, 3))
    kernel.run(u[:steps], x, (), ends, every)
    assert_allclose(ends, states[every - 1 : steps : every], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.float32, np.float64])
def test_samples_are_read_as_they_are_stored(kind):
    A, B, outputs, u, x = problem(6, 1, (4,), 103)
    stored = np.round(40 * u).astype(kind) if np.issubdtype(kind, np.integer) else u.astype(kind)
    expected, _ = plain(A, B, outputs, 0.025 * stored.astype(float) - 0.3, x)
    out = np.empty((103, 4))
    Recursion(A, B, outputs, 0.025, -0.3).run(stored, x, [out])
    assert_allclose(out, expected[0], rtol=1e-12, atol=1e-12)
    single = np.empty((103, 4), np.float32)
    Recursion(A, B, outputs, 0.025, -0.3, [np.float32]).run(stored, x, [single])
    assert_allclose(single, expected[0], rtol=0, atol=3e-6 * np.max(np.abs(expected[0])))


SCRIPT = """
import numpy as np
from backaction.numerics.compile import cache_folder
from backaction.numerics.recursion import Recursion
out = np.empty((9, 1))
Recursion(0.5 * np.eye(1), np.ones((1, 1)), [(np.ones((1, 1)), np.zeros((1, 1)))]).run(np.ones((9, 1)), np.zeros(1), [out])
assert np.allclose(out[:, 0], 2 * (1 - 0.5 ** np.arange(9)))
print(cache_folder())
"""


def test_code_is_kept_in_the_cache_folder_and_used_again(tmp_path):
    env = {**os.environ, "BACKACTION_CACHE": str(tmp_path / "kernels")}
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(tmp_path / "kernels")
    assert len(list((tmp_path / "kernels").glob("recursion_*.py"))) == 1
    assert list((tmp_path / "kernels" / "__pycache__").glob("*.nbc"))


def test_a_file_where_the_cache_folder_should_be_only_costs_time(tmp_path):
    (tmp_path / "taken").write_text("")
    env = {**os.environ, "BACKACTION_CACHE": str(tmp_path / "taken")}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_a_changed_kernel_file_is_not_believed(tmp_path):
    env = {**os.environ, "BACKACTION_CACHE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", SCRIPT], env=env, check=True, capture_output=True)
    (kernel,) = tmp_path.glob("recursion_*.py")
    kernel.write_text(kernel.read_text().replace("M0[", "2.0 * M0["))
    subprocess.run([sys.executable, "-c", SCRIPT], env=env, check=True, capture_output=True)


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("BACKACTION_CACHE", str(tmp_path / "a" / "b"))
    assert cache_folder() == tmp_path / "a" / "b"
