"""An experiment's elements joined into one system: who feeds whom, which light reaches whom, and its other limits."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backaction.elements.base import Element, Light
from backaction.errors import InputError
from backaction.systems.linear import LinearSystem, connect
from backaction.systems.periodic import PeriodicSystem

KEPT = 256
"""Systems that are kept: more than the parameter sets that one analysis looks at."""


def network(
    name: str, elements: tuple[Element, ...], connections: Mapping[str, str], beyond: bool = False
) -> LinearSystem:
    """All elements (their frequencies resolved) built and joined; `beyond`: those that turn by their constant part.

    The system of one set of values is built once.

    Raises
    ------
    InputError
        For connections that do not exist, or frames that do not fit.
    """
    given = tuple(connections.items())
    try:
        hash(elements)
    except TypeError:  # arrays of values have no hash
        join = _joined
    else:
        join = _kept
    try:
        return join(elements, given, beyond)
    except _Unconnected as error:
        raise type(error.args[0])(f"{name}: {error.args[0]}") from None


class _Unconnected(Exception):
    """What `connect` refused."""


def _joined(elements: tuple[Element, ...], connections: tuple[tuple[str, str], ...], beyond: bool) -> LinearSystem:
    given = dict(connections)
    sources, joined = _joints(elements, given)
    frames = [e.light_frame for e in elements if e.light_frame is not None]
    start = Light(frames[0]) if frames else Light()
    built: dict[str, LinearSystem] = {}
    carriers: dict[str, Light] = {}
    # an element is built once the light that reaches it is known; a loop starts with a real carrier in the lab frame
    waiting = list(elements)
    while waiting:
        ready = next((e for e in waiting if sources.get(e.name) is None or sources[e.name] in carriers), waiting[0])
        waiting.remove(ready)
        light = carriers.get(sources.get(ready.name, ""), start)
        alone = ready.periodic(light).average if beyond and ready.turns else ready.build(light)
        built[ready.name] = ready.driven(alone)
        carriers |= {p.name: Light(p.frame, p.carrier) for p in built[ready.name].outputs if p.kind == "field"}
    try:
        return connect([built[e.name] for e in elements], joined | given)
    except InputError as error:
        raise _Unconnected(error) from None


_kept = functools.lru_cache(KEPT)(_joined)


def _joints(elements: Sequence[Element], given: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Which field reaches each element, and the connections of the path that `given` ones leave in place."""
    explicit = {b: a for a, b in given.items()}
    sources: dict[str, str] = {}
    joined: dict[str, str] = {}
    previous: str | None = None
    for e in elements:
        entry = f"{e.name}.in"
        if entry in explicit:
            sources[e.name] = explicit[entry]
        elif previous is not None and previous not in given:
            sources[e.name] = previous
            joined[previous] = entry
        previous = f"{e.name}.out" if e.carries_on else None
    return sources, joined


def resolved(name: str, elements: tuple[Element, ...]) -> tuple[Element, ...]:
    """The elements with every relative frequency replaced by its value."""
    out: list[Element] = []
    for e in elements:
        if e.needs_reference:
            reference = reference_of(e, elements)
            if reference is None:
                raise InputError(f"{name}: {e.name} has a Larmor offset, but there is no optomechanical_cavity")
            e = e.resolved(*reference.effective_mechanics())
        out.append(e)
    return tuple(out)


def reference_of(element: Element, elements: Sequence[Element]) -> Element | None:
    """The element whose effective mechanics an offset of `element` refers to: the next one on the path, or any."""
    at = list(elements).index(element)
    return next((e for e in (*elements[at:], *elements[:at]) if e.mechanical), None)


def rotating_wave(name: str, elements: tuple[Element, ...]) -> tuple[Element, ...]:
    """The resolved elements, each in its rotating-wave limit.

    Raises
    ------
    InputError
        For elements that have no such limit, or oscillators that are not resonant with one another.
    """
    out: list[Element] = []
    frequencies: list[Any] = []
    for e in elements:
        limit = e.in_rotating_wave()
        if limit is None:
            raise InputError(f"{name}: {e.name} ({e.kind}) has no rotating-wave limit")
        out += limit[0]
        frequencies += [] if limit[1] is None else [limit[1]]
    apart = [np.max(np.abs(np.real(f) / np.real(frequencies[0]) - 1)) for f in frequencies]
    if max(apart, default=0.0) > 1e-9:
        raise InputError(f"{name}: the oscillators are not resonant ({max(apart):.3g} apart): no common rotating frame")
    return tuple(out)


def periodic(
    name: str, elements: tuple[Element, ...], connections: Mapping[str, str], below_hz: float | None = None
) -> PeriodicSystem:
    """The network with all that turns (slower than `below_hz`) in its one driven cavity: beyond the rotating wave.

    Raises
    ------
    InputError
        Without an element that turns, or with several.
    """
    turning = [e for e in elements if e.turns]
    if len(turning) != 1:
        raise InputError(f"{name}: beyond the rotating wave needs one driven_cavity, here are {len(turning)}")
    own = turning[0].periodic(below_hz=below_hz)
    whole = network(name, elements, connections, beyond=True)
    index = whole.indices([m.name for m in own.average.modes])
    harmonics = {}
    for k, A in own.harmonics.items():
        full = np.zeros(whole.A.shape, dtype=complex)
        full[np.ix_(index, index)] = A
        harmonics[k] = full
    return PeriodicSystem(whole, own.frequency_hz, harmonics)
