"""Gaussian states: a covariance with its modes, its convention and, where it is known, an exact square root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from backaction.errors import ConventionError, InputError, nearest
from backaction.numerics.matrices import Array, block_diagonal, rotation_matrix, symplectic
from backaction.systems.labels import LAB, Frame

Order = Literal["xpxp", "xxpp"]


@dataclass(frozen=True)
class Convention:
    """Vacuum variance of one quadrature (1/2 for [X, P] = i) and the order of the quadratures."""

    vacuum: float = 0.5
    order: Order = "xpxp"

    def __str__(self) -> str:
        layout = "X1, P1, X2, P2, ..." if self.order == "xpxp" else "X1, X2, ..., P1, P2, ..."
        return f"vacuum variance {self.vacuum:g}, order {layout}"


OURS = Convention()
"""The package's own convention: [X, P] = i, vacuum variance 1/2, order X1, P1, X2, P2, ..."""


@dataclass(frozen=True, eq=False)
class GaussianState:
    """A zero-mean Gaussian state of named modes.

    Parameters
    ----------
    covariance
        Symmetrised covariance, shape (..., 2k, 2k) for k modes, in `convention`.
    modes
        Mode names, in the order of the covariance.
    root
        Optional F with covariance = F F^T, columns graded by size. Strong squeezing is exact in F where the
        covariance has already rounded it away (two-mode squeezing beyond r = 8 in doubles).
    """

    covariance: Array
    modes: tuple[str, ...]
    frame: Frame = LAB
    convention: Convention = OURS
    root: Array | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        V = np.asarray(self.covariance)
        object.__setattr__(self, "covariance", V)
        object.__setattr__(self, "modes", tuple(self.modes))
        if V.ndim < 2 or V.shape[-2:] != (2 * len(self.modes),) * 2:
            raise InputError(f"GaussianState: covariance of shape {V.shape} does not fit {len(self.modes)} modes")

    # -- constructors ---------------------------------------------------------------------------------------------

    @classmethod
    def vacuum(cls, *modes: str) -> GaussianState:
        """The vacuum of the named modes."""
        root = np.sqrt(0.5) * np.eye(2 * len(modes))
        return cls(root @ root.T, modes, root=root)

    @classmethod
    def thermal(cls, **occupations: float) -> GaussianState:
        """Product of thermal states, `thermal(membrane=2.0, spin=0.8)`."""
        root = np.diag(np.repeat(np.sqrt(np.array(list(occupations.values())) + 0.5), 2))
        return cls(root @ root.T, tuple(occupations), root=root)

    @classmethod
    def two_mode_squeezed(cls, r: float, first: str = "first", second: str = "second") -> GaussianState:
        """Two-mode squeezed vacuum with <X1 X2> = sinh(2r)/2, <P1 P2> = -sinh(2r)/2; log-negativity 2r/ln 2."""
        up, down = np.exp(r) / 2, np.exp(-r) / 2
        # columns: the two squeezed, then the two anti-squeezed normal modes
        root = np.array([[down, 0, up, 0], [0, down, 0, up], [-down, 0, up, 0], [0, down, 0, -up]])
        return cls(root @ root.T, (first, second), root=root)

    # -- conventions ----------------------------------------------------------------------------------------------

    def to(self, vacuum: float = 0.5, order: Order = "xpxp") -> GaussianState:
        """The same state in another convention."""
        target = Convention(float(vacuum), order)
        V = self.covariance * (target.vacuum / self.convention.vacuum)
        root = None if self.root is None else self.root * np.sqrt(target.vacuum / self.convention.vacuum)
        if order != self.convention.order:
            k = len(self.modes)
            interleaved = np.arange(2 * k).reshape(k, 2).T.ravel()
            index = interleaved if order == "xxpp" else np.argsort(interleaved)
            V = V[..., index, :][..., index]
            root = None if root is None else root[..., index, :]
        return replace(self, covariance=V, convention=target, root=root)

    def _same(self, other: GaussianState) -> None:
        if self.convention != other.convention:
            raise ConventionError(f"two conventions: {self.convention} and {other.convention}; convert with .to()")
        if self.frame != other.frame:
            raise ConventionError(f"two frames: {self.frame} and {other.frame}")

    def __sub__(self, other: GaussianState) -> Array:
        """Difference of the covariances; raises unless convention, frame and modes agree."""
        self._same(other)
        if self.modes != other.modes:
            raise ConventionError(f"two sets of modes: {self.modes} and {other.modes}")
        return self.covariance - other.covariance

    # -- parts and transformations --------------------------------------------------------------------------------

    def reduced(self, *modes: str) -> GaussianState:
        """The state of some modes, in the order given."""
        index: list[int] = []
        for m in modes:
            if m not in self.modes:
                raise InputError(f"no mode '{m}'{nearest(m, self.modes)}")
            i = self.modes.index(m)
            index += [2 * i, 2 * i + 1] if self.convention.order == "xpxp" else [i, i + len(self.modes)]
        if self.convention.order == "xxpp":
            index = index[0::2] + index[1::2]
        V = self.covariance[..., index, :][..., index]
        return replace(self, covariance=V, modes=modes, root=None if self.root is None else self.root[..., index, :])

    def transformed(self, matrix: Array) -> GaussianState:
        """M V M^T with a symplectic (or any linear) M in this state's own order."""
        root = None if self.root is None else matrix @ self.root
        V = matrix @ self.covariance @ np.swapaxes(matrix, -1, -2) if root is None else root @ np.swapaxes(root, -1, -2)
        return replace(self, covariance=V, root=root)

    def rotated(self, **angles_deg: float) -> GaussianState:
        """Rotate modes: (X + iP) -> e^{i angle}(X + iP)."""
        for m in angles_deg:
            if m not in self.modes:
                raise InputError(f"no mode '{m}'{nearest(m, self.modes)}")
        ours = self.to()
        turned = ours.transformed(block_diagonal([rotation_matrix(angles_deg.get(m, 0.0)) for m in self.modes]))
        return turned.to(self.convention.vacuum, self.convention.order)

    # -- simple properties ----------------------------------------------------------------------------------------

    @property
    def purity(self) -> Any:
        """Tr rho^2 = 1/(2^k sqrt(det V)) with vacuum 1/2."""
        k = len(self.modes)
        if self.root is not None and self.root.shape[-1] == 2 * k:
            F = self.to().root
            assert F is not None
            size = np.sqrt(np.sum(F * F, axis=-2, keepdims=True))
            return 1.0 / (2.0**k * np.abs(np.linalg.det(F / size)) * np.prod(size, axis=-1)[..., 0])
        return 1.0 / (2.0**k * np.sqrt(np.linalg.det(self.to().covariance)))

    def occupation(self, mode: str) -> Any:
        """Mean quanta (<X^2> + <P^2> - 1)/2 of one mode."""
        V = self.to().reduced(mode).covariance
        return (V[..., 0, 0] + V[..., 1, 1] - 1.0) / 2

    def symplectic_eigenvalues(self) -> Array:
        """Ascending nu_j >= 1/2, the Williamson variances. Shape (..., k)."""
        if self.root is not None:
            F = self.to().root
            assert F is not None
            M = np.swapaxes(F, -1, -2) @ symplectic(len(self.modes)) @ F
            return np.sort(np.linalg.svd(M, compute_uv=False), axis=-1)[..., -2 * len(self.modes) :: 2]
        return symplectic_spectrum(self.to().covariance)

    def is_physical(self, tolerance: float = 1e-9) -> Any:
        """Whether V + i Omega/2 >= 0 (necessary, never sufficient evidence that a model is right)."""
        V = self.to().covariance
        low = np.linalg.eigvalsh(V + 0.5j * symplectic(len(self.modes)))[..., 0]
        return low > -tolerance * np.max(np.abs(V), axis=(-2, -1))

    def __repr__(self) -> str:
        shape = self.covariance.shape[:-2]
        head = f"GaussianState of {', '.join(self.modes)} ({self.frame} frame; {self.convention})"
        if shape:
            return f"{head}, {shape} points"
        return head + "\n" + np.array2string(self.covariance, precision=6, suppress_small=True)


def symplectic_spectrum(V: Array) -> Array:
    """Ascending symplectic eigenvalues of V (vacuum 1/2, order xpxp): singular values of L^T Omega L, V = L L^T."""
    L = square_root(V)
    M = np.swapaxes(L, -1, -2) @ symplectic(V.shape[-1] // 2) @ L
    return np.sort(np.linalg.svd(M, compute_uv=False), axis=-1)[..., ::2]


def square_root(V: Array) -> Array:
    """L with V = L L^T (Cholesky; by eigenvalues, clipped at zero, where rounding has made V indefinite)."""
    try:
        return np.linalg.cholesky(V)
    except np.linalg.LinAlgError:
        w, U = np.linalg.eigh(V)
        return U * np.sqrt(np.clip(w, 0.0, None))[..., None, :]


def join_states(states: Sequence[GaussianState]) -> GaussianState:
    """Product state of several states of the same convention (order xpxp) and frame."""
    for s in states[1:]:
        states[0]._same(s)
    if states[0].convention.order != "xpxp":
        raise ConventionError("join() needs the order xpxp; convert with .to(order='xpxp')")
    V = block_diagonal([s.covariance for s in states])
    return replace(states[0], covariance=V, modes=sum((s.modes for s in states), ()), root=None)
