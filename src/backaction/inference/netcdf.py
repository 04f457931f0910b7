"""A posterior as ArviZ data (NetCDF): draws, derived quantities, likelihoods, predictions, data, priors, provenance.

Groups: `posterior` (parameters), `derived`, `sample_stats`, `log_likelihood` (per record), `posterior_predictive` and
`observed_data` (bins in shot-noise units, one variable per record), `constant_data` (frequencies, averages), `prior`,
`unconstrained` (`coordinates`: the sampler's u), `record_fields` (what a record's experiment is given, at 200 draws); the
attribute `next` is what to measure next. A "/" in a name (records in folders) is "|" here: NetCDF allows none. Opens with
`arviz` or `xarray.open_datatree`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from backaction.errors import InputError, nearest
from backaction.experiment import toml
from backaction.experiment.experiment import Experiment
from backaction.files import provenance, replacing, to_json
from backaction.inference.advice import advice
from backaction.inference.posterior import Posterior
from backaction.numerics.matrices import Array

PREDICTED = 100
"""Draws for which bins are predicted."""
KEPT = 200
"""Draws for which the fields of every record are kept, ties included."""


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
    fields = {r.name: found.fields(k) for k, r in enumerate(found.campaign.records)}
    some = np.linspace(0, len(found.draws.flat) - 1, min(KEPT, len(found.draws.flat))).astype(int)
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
        "record_fields": {f"{r}: {f}": v[None, some] for r, of in fields.items() for f, v in of.items()},
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
        "record_means": to_json({r: {f: float(np.mean(v)) for f, v in of.items()} for r, of in fields.items()}, None),
        "main_record": names[found.main_record],
        "next": to_json([asdict(g) for g in advice(found)], None),
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
    """The DataTree of a file written by `write_posterior`, in memory.

    Raises
    ------
    InputError
        For a file that is none.
    """
    import xarray

    try:
        with xarray.open_datatree(path, engine="h5netcdf") as tree:
            found = tree.load()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError):
        raise InputError(f"{path}: not readable as NetCDF, as `fit -o` writes it") from None
    if str(found.attrs.get("schema", "")).rpartition("/")[0] != "backaction/posterior":
        raise InputError(f"{path}: not a posterior of `fit -o`")
    return found


def mean_experiment(tree: Any, record: str | None = None) -> tuple[Experiment, dict[str, Array], dict[str, Any]]:
    """(experiment at the posterior mean, {field: draws}, {"record", "next"}) of a file read by `read_posterior`.

    The record is the one named, or the posterior's main one.

    Raises
    ------
    InputError
        For an unknown record, or a file of a version that did not keep what is needed.
    """
    if "record_means" not in tree.attrs:
        raise InputError("this posterior was written by an earlier version: fit again, or give fitted.toml")
    means, experiments = (json.loads(tree.attrs[k]) for k in ("record_means", "experiments"))
    if record is None:
        record = str(tree.attrs["main_record"])
    elif record not in means:
        raise InputError(f"no record '{record}'{nearest(record, means)}; known: {', '.join(means)}")
    experiment = Experiment.from_toml(toml.write(experiments[record]), record).with_values(means[record], record)
    head, group = f"{record}: ", tree["record_fields"].dataset
    draws = {str(n).removeprefix(head): group[n].values.ravel() for n in group.data_vars if str(n).startswith(head)}
    return experiment, draws, {"record": record, "next": json.loads(tree.attrs["next"])}


def _picked(found: Posterior) -> tuple[list[Array], Array]:
    flat = found.draws.flat
    chosen = np.unique(np.linspace(0, len(flat) - 1, min(PREDICTED, len(flat))).astype(int))
    return found.ready.fine.models(flat[chosen]), chosen


def _likelihood(found: Posterior) -> Array:
    u = found.draws.flat
    return found.draws.log_density.ravel() + 0.5 * np.sum(u * u, axis=-1)
