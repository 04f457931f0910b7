import json
import struct

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import read_record
from backaction.errors import InputError
from support.reference import shared

SAMPLES = np.arange(1000, dtype="<i2")


def hdf5(path, data=SAMPLES, **attributes):
    given = {
        "sample_rate_hz": 1e6,
        "unit": "V",
        "volts_per_count": 0.5,
        "sampling": "average of the current",
        "t0_s": 2.0,
    }
    with h5py.File(path, "w") as f:
        d = f.create_dataset("photocurrent", data=data)
        for k, v in (given | attributes).items():
            if v is not None:
                d.attrs[k] = v
    return path


def lecroy(path, samples=SAMPLES, byte_order=1, cut=0, processing=0):
    """A minimal LECROY_2_3 file written from the template's published layout."""
    block = bytearray(346)
    o = "<" if byte_order else ">"
    block[0:8] = b"WAVEDESC"
    block[16:26] = b"LECROY_2_3"
    put = lambda kind, at, *v: struct.pack_into(o + kind, block, at, *v)
    put("h", 32, 1)
    struct.pack_into("<h" if byte_order else ">h", block, 34, byte_order)
    put("i", 36, 346)
    put("i", 60, samples.size * 2)
    block[76:85] = b"LECROYXYZ"
    put("i", 116, samples.size)
    put("f", 156, 0.25)
    put("f", 160, 1.0)
    put("f", 176, 4e-7)
    put("d", 180, -0.5)
    block[196:197] = b"V"
    put("d", 296, 12.5)
    block[304:308] = bytes([34, 15, 19, 10])
    put("h", 308, 2016)
    put("h", 318, processing)
    body = samples.astype(o + "i2").tobytes()
    path.write_bytes(b"#9000000000" + bytes(block) + body[: len(body) - cut])
    return path


def test_hdf5_is_file_backed_and_scaled(tmp_path):
    r = read_record(hdf5(tmp_path / "a.h5"))
    assert (r.sample_rate_hz, r.unit, r.scale, r.sampling, r.start_s) == (1e6, "V", 0.5, "average", 2.0)
    assert_allclose(r.values(10, 13), [5.0, 5.5, 6.0])
    assert not isinstance(r.source, np.ndarray)


def test_hdf5_dataset_by_name(tmp_path):
    path = hdf5(tmp_path / "a.h5")
    with h5py.File(path, "a") as f:
        f["other"] = np.zeros(5)
    with pytest.raises(InputError, match="several datasets; name one as"):
        read_record(path)
    assert read_record(f"{path}:photocurrent").size == 1000
    with pytest.raises(InputError, match="did you mean 'photocurrent'"):
        read_record(f"{path}:photocurent")


def test_npz(tmp_path):
    np.savez(tmp_path / "a.npz", y=np.ones(50), sample_rate_hz=10.0, unit="A", sampling="instantaneous")
    r = read_record(tmp_path / "a.npz")
    assert (r.size, r.unit, r.sampling) == (50, "A", "instantaneous")


@pytest.mark.parametrize("kind", ["json", "toml"])
def test_raw_with_sidecar(tmp_path, kind):
    SAMPLES.tofile(tmp_path / "a.bin")
    facts = {"dtype": "<i2", "sample_rate_hz": 1e3, "unit": "V", "scale": 0.1, "sampling": "average"}
    text = json.dumps(facts) if kind == "json" else "\n".join(f"{k} = {json.dumps(v)}" for k, v in facts.items())
    (tmp_path / f"a.bin.{kind}").write_text(text)
    r = read_record(tmp_path / "a.bin")
    assert isinstance(r.source, np.memmap)
    assert_allclose(r.values(5, 6), [0.5])


@pytest.mark.parametrize("byte_order", [1, 0])
def test_lecroy_both_byte_orders(tmp_path, byte_order):
    r = read_record(lecroy(tmp_path / "a.trc", byte_order=byte_order))
    assert_allclose(r.values(4, 6), [0.0, 0.25])  # gain x count - offset
    assert (r.sample_rate_hz, r.unit, r.start_s, r.sampling) == (2.5e6, "V", -0.5, "instantaneous")
    assert r.metadata["date"] == "2016-10-19T15:34:12.500000"
    assert r.metadata["instrument"] == "LECROYXYZ"


def test_lecroy_processed_trace_asks_for_its_sampling(tmp_path):
    path = lecroy(tmp_path / "a.trc", processing=1)
    with pytest.raises(InputError, match="does not say 'sampling'"):
        read_record(path)
    assert read_record(path, sampling="average").sampling == "average"


def test_real_lecroy_file():
    r = read_record(shared("data/levitated_nanosphere/CH1_RUN00000001_REPEAT0000.raw"))
    assert (r.size, r.sample_rate_hz, r.unit) == (250_002, 2.5e6, "V")
    assert r.metadata["date"].startswith("2016-10-19")
    assert r.metadata["instrument"] == "LECROYHDO6104"
    assert_allclose(r.scale, 0.00125, rtol=1e-6)
    assert 0.3 < np.mean(r.values()) < 0.8


def test_simulated_records_of_the_reference_folder():
    r = read_record(shared("data/records/hybrid_clean.h5"))
    assert (r.size, r.sample_rate_hz, r.sampling) == (2_000_000, 1e7, "average")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("sample_rate_hz", "does not say 'sample_rate_hz': samples per second"),
        ("unit", "does not say 'unit'"),
        ("sampling", "does not say 'sampling'"),
        ("volts_per_count", "integer samples without 'scale'"),
    ],
)
def test_nothing_is_guessed_and_what_is_missing_is_asked_for(tmp_path, missing, message):
    path = hdf5(tmp_path / "a.h5", **{missing: None})
    with pytest.raises(InputError, match=message):
        read_record(path)
    given = {"sample_rate_hz": 1e6, "unit": "V", "sampling": "average", "scale": 0.5}
    assert read_record(path, **given).size == 1000
