"""Sweeps: against point-by-point evaluation and `optimize`, resumed after an interruption, on a real Dask scheduler, in files."""

import json

import jsonschema
import numpy as np
import pytest
import xarray
from numpy.testing import assert_allclose

from backaction import Experiment, evaluate
from backaction.design import sweeps
from backaction.design.optimization import optimize
from backaction.design.sweeps import sweep
from backaction.errors import InputError
from support.commands import call, schema

XI = "unconditional.epr_readout.variance"
TIES = {"membrane.readout_rate_hz": "C_M * membrane.intrinsic_linewidth_hz * (membrane.occupation + 0.5)"}
ANGLES = {"spin.coupling_angle_deg": (0.0, 90.0), "membrane.coupling_angle_deg": (0.0, 90.0)}


@pytest.fixture(scope="module")
def huang():
    return Experiment.load("huang2018")


def test_grid_is_point_by_point(huang):
    axes = {"link.transmission": np.linspace(0.5, 1, 4), "C_M": [10.0, 80.0, 500.0]}
    of = [XI, "conditional.log_negativity", "dynamics.margin_hz"]
    data = sweep(huang, axes, of, ties=TIES, block=5)
    assert data[XI].dims == ("link.transmission", "C_M")
    for point in ({"link.transmission": 0.5, "C_M": 500.0}, {"link.transmission": 1.0, "C_M": 10.0}):
        e = huang.with_values(
            {"link.transmission": point["link.transmission"], "membrane.readout_rate_hz": point["C_M"] * 0.1 * 100000.5}
        )
        for name in of:
            assert float(data[name].sel(point)) == pytest.approx(float(evaluate(name, e)), rel=1e-12)
    assert json.loads(data.attrs["experiment"])["name"] == "huang2018"
    assert data["C_M"].attrs["unit"] == "1"


def test_points_without_an_answer_are_nan(huang):
    data = sweep(huang, {"spin.coupling_angle_deg": [30.0, 46.0]}, [XI])
    assert np.isnan(data[XI].values[0])
    assert np.isfinite(data[XI].values[1])


def test_every_point_is_an_optimum(huang):
    """Each point of an optimised sweep is what `optimize` finds there, on both sides of the bound theta_M = 90."""
    C_S = np.array([1.0, 3.0, 10.0, 300.0])
    ties = TIES | {"spin.readout_rate_hz": "C_S * spin.intrinsic_linewidth_hz * (spin.occupation + 0.5)"}
    data = sweep(
        huang, {"C_S": C_S}, [XI, "conditional.epr_readout.variance"], optimize=ANGLES | {"C_M": (1e-2, 1e6)}, ties=ties
    )
    assert data["converged"].values.all()
    for i, c in enumerate(C_S):
        here = huang.with_values({"spin.readout_rate_hz": 7500.0 * c})
        alone = optimize(here, XI, ANGLES | {"C_M": (1e-2, 1e6)}, ties=TIES)
        assert data[XI].values[i] == pytest.approx(alone.value, rel=1e-10)
        assert data["at C_M"].values[i] == pytest.approx(alone.at["C_M"], rel=1e-5)
        other = evaluate("conditional.epr_readout.variance", alone.experiment)
        assert data["conditional.epr_readout.variance"].values[i] == pytest.approx(other, rel=1e-7)


def test_maximised_sweep(huang):
    over = {"membrane.coupling_angle_deg": (46.0, 89.0)}
    most = sweep(
        huang, {"link.transmission": [0.6, 0.9]}, ["unconditional.log_negativity"], optimize=over, maximize=True
    )
    least = sweep(huang, {"link.transmission": [0.6, 0.9]}, ["unconditional.ppt_min"], optimize=over)
    expected = -np.log2(2 * least["unconditional.ppt_min"].values)
    assert_allclose(most["unconditional.log_negativity"].values, expected, rtol=1e-10)


def test_an_interrupted_sweep_goes_on(huang, tmp_path, monkeypatch):
    """Blocks that are finished are not computed again; the file is whole or absent; another definition starts anew."""
    target = tmp_path / "grid.nc"
    axes = {"link.transmission": np.linspace(0.5, 1, 40)}
    computed: list[int] = []
    block = sweeps.SweepPlan.block

    def failing(self, rows):
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append(int(rows[0]))
        return block(self, rows)

    monkeypatch.setattr(sweeps.SweepPlan, "block", failing)
    with pytest.raises(KeyboardInterrupt):
        sweep(huang, axes, [XI], output=target, block=10, workers=1)
    assert not target.exists()
    assert len(list((tmp_path / "grid.nc.partial").glob("*.npz"))) == 2
    again: list[int] = []

    def counting(self, rows):
        again.append(int(rows[0]))
        return block(self, rows)

    monkeypatch.setattr(sweeps.SweepPlan, "block", counting)
    data = sweep(huang, axes, [XI], output=target, block=10, workers=1)
    assert sorted(computed + again) == [0, 10, 20, 30]
    assert not (tmp_path / "grid.nc.partial").exists()
    with xarray.open_dataset(target, engine="h5netcdf") as stored:
        assert_allclose(stored[XI].values, data[XI].values, rtol=0)
        assert stored.attrs["schema"] == "backaction/sweep/1"
        assert (
            Experiment.from_toml(Experiment.load("huang2018").to_toml()).to_dict()["element"]
            == json.loads(stored.attrs["experiment"])["element"]
        )
    # a folder that another sweep left behind is not used
    (tmp_path / "grid.nc.partial").mkdir()
    (tmp_path / "grid.nc.partial" / "key").write_text("other 4")
    np.savez(tmp_path / "grid.nc.partial" / "0.npz", **{XI: np.zeros(10)})
    anew = sweep(huang, axes, [XI], output=target, block=10)
    assert_allclose(anew[XI].values, data[XI].values, rtol=0)


@pytest.mark.slow
def test_on_a_dask_scheduler(huang):
    """A real scheduler with worker processes of its own gives the same numbers."""
    distributed = pytest.importorskip("distributed")
    axes = {"link.transmission": np.linspace(0.5, 1, 12)}
    here = sweep(huang, axes, [XI], block=4)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        there = sweep(huang, axes, [XI], block=4, scheduler=cluster.scheduler_address)
    assert_allclose(there[XI].values, here[XI].values, rtol=0)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (dict(over={"link.transmision": [1.0]}), "did you mean"),
        (dict(over={"link.transmission": [0.5, 1.5]}), "must be in"),
        (dict(over={"x": [0.5]}), "no tie uses it"),
        (dict(over={}), "at least one field"),
        (dict(ties={"link.transmission": "0.5"}), "tied and cannot be swept"),
        (
            dict(over={"link.transmission": np.linspace(0.1, 1, 5000), "spin.occupation": np.linspace(0, 1, 5000)}),
            "at most 20 million",
        ),
        (dict(of=["conditional.epr_readout.variances"]), "did you mean"),
        (dict(optimize=["link.transmission"]), "swept"),
        (dict(output="/nowhere/x.nc"), "does not exist"),
        (dict(scheduler="tcp://127.0.0.1:1"), "no Dask scheduler answers"),
    ],
)
def test_bad_requests(huang, change, word):
    arguments = {"over": {"link.transmission": [0.5, 1.0]}, "of": [XI]} | change
    with pytest.raises(InputError, match=word):
        sweep(huang, **arguments)


def test_command(capsys, tmp_path):
    target = tmp_path / "x.nc"
    code, out, err = call(
        capsys, "sweep", "moller2017", "--over", "spin.larmor_offset_hz=-10 kHz:10 kHz:5,link.transmission=0.5:0.9:2", "--of",
        "unconditional.epr.variance,conditional.epr.variance", "-o", target, "--json",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    jsonschema.validate(found, schema("sweep"))
    with xarray.open_dataset(target, engine="h5netcdf") as stored:
        assert_allclose(stored["conditional.epr.variance"].values, found["of"]["conditional.epr.variance"], rtol=1e-15)
        assert stored["spin.larmor_offset_hz"].attrs["unit"] == "Hz"
    code, out, err = call(
        capsys,
        "sweep",
        "huang2018",
        "--over",
        "link.transmission=0.1:1:3:log",
        "--of",
        XI,
        "--optimize",
        "membrane.coupling_angle_deg=46:89",
    )
    assert code == 0, err
    assert "at membrane.coupling_angle_deg" in out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--over", "link.transmission=0:1", "--of", XI], "LO:HI:N"),
        (["--over", "link.transmission=0:1:0", "--of", XI], "whole number"),
        (["--over", "link.transmission=0:1:5:log", "--of", XI], "LO > 0"),
        (["--over", "link.transmission=0.1:1:5", "--of", XI, "-o", "x.csv"], "name it *.nc"),
        (["--over", "link.transmission=0.1:1:5", "--of", "nothing"], "unknown result"),
    ],
)
def test_command_refuses(capsys, arguments, word):
    code, out, err = call(capsys, "sweep", "huang2018", *arguments)
    assert code == 2
    assert word in err
    assert out == ""


def test_axes_and_results_may_be_named_one_by_one(capsys):
    """A repeated option adds; it used to replace what was said before."""
    apart = ("--over", "spin.readout_rate_hz=15e3:25e3:3", "--over", "phase.angle_deg=170:190:2")
    many = ("--of", "conditional.epr.variance", "--of", "unconditional.duan")
    one = call(capsys, "sweep", "thomas2021", *apart, *many, "--json")
    together = f"{apart[1]},{apart[3]}", f"{many[1]},{many[3]}"
    other = call(capsys, "sweep", "thomas2021", "--over", together[0], "--of", together[1], "--json")
    assert one[0] == other[0] == 0
    one, other = json.loads(one[1]), json.loads(other[1])
    assert list(one["over"]) == ["spin.readout_rate_hz", "phase.angle_deg"]
    assert one == other
