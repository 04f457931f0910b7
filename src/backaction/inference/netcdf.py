"""A posterior as ArviZ data (NetCDF): draws, derived quantities, likelihoods, predictions, data, priors, provenance.

Groups: `posterior` (parameters), `derived`, `sample_stats`, `log_likelihood` (per record), `posterior_predictive` and
`observed_data` (bins in shot-noise units, one variable per record), `constant_data` (frequencies, averages), `prior`,
`unconstrained` (`coordinates`: the sampler's u). A "/" in a name (records in folders) is "|" here: NetCDF allows none. Opens
with `arviz` or `xarray.open_datatree`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from backaction.files import provenance, replacing, to_json
from backaction.inference.posterior import Posterior
from backaction.numerics.matrices import Array

PREDICTED = 100
"""Draws for which bins are predicted."""


def data_tree(found: Posterior) -> Any:
    """The posterior as an xarray DataTree in ArviZ's layout."""
    import arviz_base

    target, labels = found.target, found.target.labels()
    shape = found.draws.u.shape[:2]
    names = [r.name for r in found.campaign.records]  # of files, perhaps in folders
    models, chosen = _picked(found)
    rng = np.random.default_rng(found.draws.seed)
    fine = found.ready.fine.campaign.records
    error = found.ready.fine.model_error(found.draws.flat[chosen])[:, None]
    replicas = {}
    for r, mu in zip(fine, models, strict=True):
        replicas[r.name] = found.campaign.likelihood.replica(rng, mu, r.density_sn, r.averages, error)[None]
    prior = target.values(rng.standard_normal((1, 1000, target.size)))
    groups = {
        "posterior": {n: found.values[..., i] for i, n in enumerate(labels)},
        "derived": {n: q.values for n, q in found.derived.items()},
        "sample_stats": {"lp": found.draws.log_density},
        "log_likelihood": {"total": _likelihood(found).reshape(shape)},
        "posterior_predictive": replicas,
        "prior": {n: prior[..., i] for i, n in enumerate(labels)},
        "observed_data": {r.name: r.density_sn for r in fine},
        "constant_data": {f"{r.name}: {k}": v for r in fine for k, v in (
            ("frequency_hz", r.spectrum.frequency_hz), ("averages", r.averages))},
        "unconstrained": {"coordinates": found.draws.u},
    }  # fmt: skip
    groups = {group: {_variable(n): v for n, v in items.items()} for group, items in groups.items()}
    bins = {n: [f"bin of {n}"] for n in names}
    dims = bins | {f"{n}: {k}": [f"bin of {n}"] for n in names for k in ("frequency_hz", "averages")}
    dims = {_variable(n): [_variable(d) for d in own] for n, own in dims.items()} | {"coordinates": ["coordinate"]}
    tree = arviz_base.from_dict(groups, dims=dims, coords={"coordinate": list(target.names)})
    tree.attrs = {
        "schema": "backaction/posterior/1",
        "provenance": to_json(provenance(seed=found.draws.seed, method=found.draws.method), None),
        "document": to_json(found.document(), None),
        "experiments": to_json({r.name: r.experiment.to_dict() for r in fine}, None),
        "predicted_draws": chosen.tolist(),
    }
    return tree


def _variable(name: str) -> str:
    """A name as NetCDF may hold it."""
    return name.replace("/", "|")


def write_posterior(found: Posterior, path: str | Path) -> None:
    """Write `data_tree` as NetCDF (HDF5); the file appears when it is whole."""
    tree = data_tree(found)
    with replacing(path) as temporary:
        tree.to_netcdf(temporary, engine="h5netcdf")


def read_posterior(path: str | Path) -> Any:
    """The DataTree of a file written by `write_posterior`, in memory."""
    import xarray

    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        return tree.load()


def _picked(found: Posterior) -> tuple[list[Array], Array]:
    flat = found.draws.flat
    chosen = np.unique(np.linspace(0, len(flat) - 1, min(PREDICTED, len(flat))).astype(int))
    return found.ready.fine.models(flat[chosen]), chosen


def _likelihood(found: Posterior) -> Array:
    u = found.draws.flat
    return found.draws.log_density.ravel() + 0.5 * np.sum(u * u, axis=-1)
