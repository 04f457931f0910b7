"""The house: names mean one thing, functions are short, what is computed once is computed once, a new thing is one file."""

import ast
import collections
import contextlib
import functools
import importlib
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose

import backaction
from backaction import Experiment, Homodyne, Record, analyze, evaluate, read_record, simulate
from backaction.records.simulation import reference

ROOT = pathlib.Path(backaction.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
PACKAGES = [p.parent for p in sorted(ROOT.rglob("__init__.pyi"))]
LOOPS = "numerics/loops/"


def tree(file):
    return ast.parse(file.read_text("utf-8"))


def place(file):
    return file.relative_to(ROOT).as_posix()


def test_a_public_name_is_defined_once():
    """Commands and papers have names of their own world; `Line` and `Quantity` are words of the TOML of elements and of calibrations."""
    from backaction.cli import app

    commands = {command.callback.__name__ for command in app.registered_commands}
    defined = collections.defaultdict(list)
    for file in FILES:
        if place(file).startswith("papers/"):
            continue
        for node in tree(file).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                if place(file).startswith("cli/") and node.name in commands | {"register"}:
                    continue
                defined[node.name].append(place(file))
    assert {name: at for name, at in defined.items() if len(at) > 1} == {}


def test_no_function_is_longer_than_sixty_lines():
    """Decorators, signature and docstring counted; compiled loops, which are one piece for the compiler, are listed."""
    long = {}
    for file in FILES:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.FunctionDef):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                if node.end_lineno - first + 1 > 60:
                    long[f"{place(file)}:{node.name}"] = node.end_lineno - first + 1
    assert set(long) == {
        f"{LOOPS}kalman.py:filter_varying", f"{LOOPS}kalman.py:filter_square_root", f"{LOOPS}kalman.py:retrodict_varying",
        f"{LOOPS}density.py:density", f"{LOOPS}riccati.py:eliminated_doubling", f"{LOOPS}riccati.py:lyapunov_doubling",
        f"{LOOPS}spectrum.py:noise_density",
    }  # fmt: skip
    assert max(len(f.read_text("utf-8").splitlines()) for f in FILES) <= 500


def test_no_old_module_name_is_left():
    old = [
        "band",
        "binning",
        "calibration_figures",
        "calibration_report",
        "campaign",
        "checkpoints",
        "checks",
        "consistency",
        "constrained",
        "currents",
        "derivatives",
        "derived",
        "doubling",
        "drawn",
        "drift",
        "entanglement",
        "expressions",
        "formats",
        "hessenberg",
        "inference_data",
        "jobs",
        "kalman",
        "kernels",
        "loops",
        "matrices",
        "measured",
        "monitor",
        "newton",
        "nuisance",
        "occupations",
        "optimization",
        "plots",
        "posterior",
        "posterior_plots",
        "prior",
        "priors",
        "problems",
        "programs",
        "rank_statistics",
        "realizability",
        "response",
        "results",
        "samplers",
        "sampling",
        "scheduling",
        "sensing",
        "setups",
        "shot_noise",
        "simulation",
        "smoothing",
        "spectral_likelihood",
        "stability",
        "state",
        "steady",
        "sweeps",
        "system",
        "time_domain",
        "tracing",
        "trackfile",
        "tracks",
        "unrolled",
        "wiener",
        "advice",
    ]
    here = pathlib.Path(__file__).resolve()
    places = [
        *FILES,
        *(
            p
            for d in ("tests", "benchmarks", "examples", "docs")
            for p in here.parents[1].glob(f"{d}/**/*")
            if p.suffix in (".py", ".md")
        ),
    ]
    pattern = re.compile(rf"(?:from |import )?\bbackaction\.({'|'.join(old)})\b(?! *\()")
    named = {}
    for file in places:
        if file.resolve() != here:
            found = [
                m.group(0) for m in pattern.finditer(file.read_text("utf-8")) if m.group(1) not in backaction.__all__
            ]
            if found:
                named[str(file)] = found
    assert named == {}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.relative_to(ROOT).as_posix() or "root")
def test_what_a_package_promises_is_there(package):
    """Every export imports, and none has the name of one of the package's modules (the module would hide it)."""
    name = ".".join(["backaction", *package.relative_to(ROOT).parts])
    module = importlib.import_module(name)
    for export in module.__all__:
        assert getattr(module, export) is not None
    assert set(module.__all__).isdisjoint(f.stem for f in package.glob("*.py"))


def test_names_of_the_first_hour():
    """The forty names of the first release stay, and six joined."""
    first = [
        "__version__",
        "Experiment",
        "Prior",
        "LinearSystem",
        "connect",
        "GaussianState",
        "Record",
        "read_record",
        "SpinOscillator",
        "SidebandOscillator",
        "Oscillator",
        "OptomechanicalCavity",
        "DrivenCavity",
        "Loss",
        "Rotation",
        "BeamSplitter",
        "Squeezer",
        "Homodyne",
        "TechnicalNoise",
        "gaussian_state",
        "evaluate",
        "gradient",
        "budget",
        "transfer",
        "epr",
        "epr_variance",
        "ppt_min",
        "log_negativity",
        "optimize",
        "sweep",
        "simulate",
        "track",
        "Tracker",
        "load_track",
        "calibrate",
        "analyze",
        "Campaign",
        "infer",
        "unconditional",
        "conditional",
        "BackactionError",
    ]
    assert set(first) | {
        "Posterior",
        "Spectrum",
        "ShotNoise",
        "shot_noise",
        "InputError",
        "ModelError",
        "sensitivity",
    } <= set(backaction.__all__)


def test_the_former_name_of_the_shot_level_says_so(thomas):
    shot = reference("shot", thomas, 1e-3, 1e7, 1)
    with pytest.warns(DeprecationWarning, match="shot_noise"):
        old = backaction.calibrate(shot, shot, None, 0.0, (1e6, 2e6))
    assert old == backaction.shot_noise(shot, shot, None, 0.0, (1e6, 2e6))


def test_one_analysis_builds_each_system_once_and_averages_the_record_once(thomas, monkeypatch):
    """`analyze --quick` of thomas2021: one system a parameter set, one averaged spectrum of the record."""
    from backaction.experiment import network
    from backaction.records import shot_level, spectrum, taken

    record, shot = simulate(thomas, 0.02, 1e7, 3).records[0], reference("shot", thomas, 0.02, 1e7, 4)
    built, averaged = collections.Counter(), collections.Counter()
    network._kept.cache_clear()
    join, average = network._joined, spectrum.averaged_spectrum

    def joining(elements, connections, beyond):
        with contextlib.suppress(TypeError):  # a batch of points, or a trace: no parameter set
            built[hash((elements, connections, beyond))] += 1
        return join(elements, connections, beyond)

    def averaging(what, *arguments, **options):
        averaged[what.name if what is not record else "the record"] += 1
        return average(what, *arguments, **options)

    monkeypatch.setattr(network, "_joined", joining)
    monkeypatch.setattr(network, "_kept", functools.lru_cache(network.KEPT)(joining))
    for module in (spectrum, taken, shot_level):
        monkeypatch.setattr(module, "averaged_spectrum", averaging)
    found = analyze(thomas, record, shot, quick=True)
    assert found.fit.status == "converged"
    assert averaged["the record"] == 1
    assert max(built.values()) == 1
    assert len(built) >= 2  # the experiment as given and at its maximum


TOY_ELEMENT = '''
"""A toy: a phase flip, out = -in."""
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from backaction.elements.base import Element, Light
from backaction.elements.optics import static
from backaction.systems.labels import Port

@dataclass(frozen=True, kw_only=True)
class Mirror(Element):
    """out = -in: a reflection."""
    kind: ClassVar[str] = "toy_mirror"

    def build(self, light=Light()):
        ports = (Port(f"{self.name}.in"  , "field"),), (Port(f"{self.name}.out", "field", carrier=light.carrier),)
        return static(-np.eye(2), 0.5 * np.eye(2), *ports)

    def in_rotating_wave(self):
        return (self,), None
'''


def module_of(folder, name, text, monkeypatch):
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


def test_a_new_element_is_one_file_and_one_line(tmp_path, monkeypatch, capsys, thomas):
    """It is read from TOML, joined, drawn into every state and spectrum, shown and described; two mirrors change nothing."""
    from backaction.elements.kinds import ELEMENTS
    from support.commands import call

    toy = module_of(tmp_path, "toy_mirror", TOY_ELEMENT, monkeypatch)
    monkeypatch.setitem(ELEMENTS, toy.Mirror.kind, toy.Mirror)  # the one line
    text = thomas.to_toml()
    mirrors = "".join(f'\n[[element]]\nname = "m{i}"\nkind = "toy_mirror"\n' for i in (1, 2))
    at = text.index('[[element]]\nname = "membrane"')
    (tmp_path / "toy.toml").write_text(text[:at] + mirrors + "\n" + text[at:])
    e = Experiment.load(tmp_path / "toy.toml")
    assert_allclose(evaluate("conditional.epr.variance", e), evaluate("conditional.epr.variance", thomas), rtol=1e-12)
    assert Experiment.from_toml(e.to_toml()) == e
    code, out, _ = call(capsys, "show", str(tmp_path / "toy.toml"), "--json")
    assert (code, '"toy_mirror"' in out) == (0, True)


def test_a_new_measure_is_one_function_and_one_line(monkeypatch, thomas):
    """A trace of the covariance: evaluated, differentiated, swept by its name."""
    from backaction import gradient
    from backaction.states import measures

    def family(view):
        return {"toy_trace": measures.Measure(lambda V: np.trace(V, axis1=-2, axis2=-1))}

    monkeypatch.setattr(measures, "FAMILIES", [*measures.FAMILIES, family])  # the one line
    V = backaction.gaussian_state(thomas).covariance
    assert_allclose(evaluate("conditional.toy_trace", thomas), np.trace(V), rtol=1e-14)
    field, h = "detector.efficiency", 1e-5
    ends = [evaluate("conditional.toy_trace", thomas.with_values({field: thomas.value(field) + s})) for s in (-h, h)]
    assert_allclose(gradient("conditional.toy_trace", thomas, [field])[0], (ends[1] - ends[0]) / (2 * h), rtol=1e-7)


def test_a_new_reader_is_one_function_and_one_line(tmp_path, monkeypatch):
    """Samples as text, one a line."""
    from backaction.records.formats import READERS

    def read_text(path, inner, given):
        return Record(np.loadtxt(path), **given, name=path.name)

    monkeypatch.setitem(READERS, ".toytxt", read_text)  # the one line
    y = np.random.default_rng(0).standard_normal(100)
    np.savetxt(tmp_path / "r.toytxt", y)
    record = read_record(tmp_path / "r.toytxt", sample_rate_hz=1e5, unit="V", sampling="average")
    assert_allclose(record.values(0, 100), y)


def test_an_experiment_with_any_description_is_read_back(thomas):
    """Control characters, quotes and infinities in what a user may write: U+007F broke the former writer."""
    from dataclasses import replace

    for text in ("a\x7fb", 'say "yes"\n\ttwice \\', "Ωµ ✓", "\x01 \x02a"):
        e = replace(thomas, description=text)
        assert Experiment.from_toml(e.to_toml()) == e


def test_poles_belong_to_the_mode_that_takes_part_in_them():
    """In moller2017 the spin drives the membrane: the size of eigenvectors gave both poles to the membrane."""
    from backaction.experiment.describe import document

    owners = {p["mode"]: p["frequency_hz"] for p in document(Experiment.load("moller2017"))["poles"]}
    assert {"spin", "membrane"} <= set(owners)


def test_sensing_with_a_detector_of_two_words():
    """A current is known by its place among the outputs, not by the absence of a space in its name."""
    from backaction.design.sensing import Signal, sensitivity
    from backaction.systems.response import Response

    e = Experiment.load("moller2017")
    named = Experiment([*e.elements[:-1], Homodyne(name="my detector")], modes=e.modes)
    plain = Experiment([*e.elements[:-1], Homodyne(name="detector")], modes=e.modes)
    f = np.linspace(1.2e6, 1.3e6, 5)
    a, b = (
        sensitivity(Response.from_system(x.system, f, x.reported_modes()), Signal("membrane.bath", 90.0), f)
        for x in (named, plain)
    )
    assert a.currents == ("my detector",)
    assert_allclose(a.density, b.density, rtol=1e-12)


def test_plots_of_others_do_not_break_the_sampler(tmp_path):
    """arviz_plots under a newer matplotlib fails with an AttributeError while nutpie's ArviZ is imported."""
    (tmp_path / "arviz_plots").mkdir()
    (tmp_path / "arviz_plots" / "__init__.py").write_text("import matplotlib.style\nmatplotlib.style.no_such_thing.x\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from backaction.inference.samplers import _nutpie\n"
        "_nutpie(); _nutpie(); print('arviz_plots' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


@pytest.mark.parametrize("paper", ["thomas2021", "moller2017", "huang2018", "ockeloen2018"])
def test_reference_values_are_those_of_the_notes(paper):
    """The shipped copies, where the notes are beside the project."""
    import json

    from support.reference import numbers, shared

    assert numbers(paper) == json.loads(shared(f"physics/{paper}/numbers.json").read_text())
