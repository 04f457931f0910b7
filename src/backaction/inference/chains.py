"""Chains that survive an interruption: each is sampled by itself and stored when it is finished."""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np

from backaction._version import __version__
from backaction.files import replacing
from backaction.inference.maximum import Maximum
from backaction.inference.samplers import TUNE, Draws, chain, seeds
from backaction.inference.target import Target
from backaction.workers import Progress

ACCEPT = (0.8, 0.95)
"""Acceptance that step sizes are tuned to: the second where chains diverged with the first, and where samples are fitted:
they tell products of parameters so well that the posterior is a thin bent ridge, on which long steps diverge."""


def fingerprint(target: Target, mode: Maximum, draws: int, seed: int, accept: float) -> str:
    """What a stored chain belongs to: program, data, priors, mode, length, acceptance and seed."""
    digest = hashlib.sha256()
    found = target.likelihood
    tables = [*found.data, *found.maps, found.layout, *found.program.slots]
    for r in (found.records[k] for k in found.in_time):
        assert r.series is not None
        tables += [r.series.y, r.series.there]
    for a in (*target.tape.arrays, target.tape.memory, *tables, mode.u, mode.root):
        digest.update(np.ascontiguousarray(a).tobytes())
    digest.update(json.dumps([target.names, draws, seed, accept, TUNE, __version__]).encode())
    return digest.hexdigest()[:20]


def nuts(
    target: Target,
    mode: Maximum,
    draws: int,
    chains: int,
    seed: int,
    cores: int,
    say: Progress,
    keep: Path | None = None,
) -> Draws:
    """Chains of the no-U-turn sampler, `cores` at a time. An interruption loses the unfinished ones only.

    Where chains diverge all are drawn again with shorter steps.
    """
    accept = ACCEPT[1] if target.likelihood.in_time else ACCEPT[0]
    out = _run(target, mode, draws, chains, seed, cores, say, keep, accept)
    if out.facts["divergences"] > 0 and accept != ACCEPT[1]:
        say(f"{out.facts['divergences']:.0f} divergences, sampling again with shorter steps", None)
        first = out.facts
        out = _run(target, mode, draws, chains, seed, cores, say, keep, ACCEPT[1])
        seconds = first["seconds"] + out.facts["seconds"]
        out = replace(out, facts=out.facts | {"seconds": seconds, "divergences_before": first["divergences"]})
    return out


def _run(
    target: Target,
    mode: Maximum,
    draws: int,
    chains: int,
    seed: int,
    cores: int,
    say: Progress,
    keep: Path | None,
    accept: float,
) -> Draws:
    start = time.perf_counter()
    key = fingerprint(target, mode, draws, seed, accept)
    stop = Event()
    found: dict[int, tuple[np.ndarray, np.ndarray, dict[str, float]]] = {}
    for k in range(chains):
        path = None if keep is None else keep / f"{key}-{k}.npz"
        if path is not None and path.is_file():
            try:
                with np.load(path) as stored:
                    facts = {n: float(stored[n]) for n in ("divergences", "gradients")}
                    found[k] = stored["w"], stored["log_density"], facts
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                path.unlink()
    resumed = len(found)
    if resumed:
        say(f"{resumed} of {chains} chains were finished before", resumed / chains)
    own = seeds(seed, chains)
    with ThreadPoolExecutor(cores) as pool:
        running = {
            pool.submit(chain, target, mode, draws, own[k], accept, stop): k for k in range(chains) if k not in found
        }
        try:
            while running:
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    k = running.pop(future)
                    found[k] = future.result()
                    if keep is not None:
                        w, log, facts = found[k]
                        keep.mkdir(parents=True, exist_ok=True)
                        with replacing(keep / f"{key}-{k}.npz") as path, path.open("wb") as file:
                            np.savez(file, w=w, log_density=log, **facts)  # type: ignore[arg-type]
                say(f"sampling, {len(found)} of {chains} chains done", len(found) / chains)
        except BaseException:
            stop.set()
            for future in running:
                future.cancel()
            raise
    w = np.stack([found[k][0] for k in range(chains)])
    facts = {n: float(sum(found[k][2][n] for k in range(chains))) for n in ("divergences", "gradients")}
    facts |= {"seconds": time.perf_counter() - start, "resumed_chains": float(resumed), "target_accept": accept}
    log = np.stack([found[k][1] for k in range(chains)])
    return Draws(mode.place(w), log, "nuts", seed, facts)
