"""Tables beside the claims: what the text leaves open, and how much it matters."""

from __future__ import annotations

from backaction.papers.moller2017.context import RATIOS, Moller
from backaction.papers.moller2017.models import back_action_ratio, detuned_ratio


def readings(c: Moller) -> str:
    """The four ratios of each figure for every reading of Gamma_S."""
    lines = []
    for figure, title in ((c.fig3, "Fig. 3"), (c.fig4, "Fig. 4")):
        lines += [f"**{title}** (printed: {_row({k: v for k, (v, _) in RATIOS[figure.key].items()})})", ""]
        lines += [
            "| reading | Gamma_S (kHz) | n_S | negative QBA | total | positive QBA | spin thermal |",
            "|---|---|---|---|---|---|",
        ]
        for name, rate in figure.readings().items():
            found = figure.ratios(lambda sign, r=rate, f=figure: f.with_rate(r, sign))
            lines.append(
                f"| {name} | {rate / 1e3:.1f} | {figure.occupation(rate):.2f} | "
                + " | ".join(f"{found[k]:.3f}" for k in RATIOS[figure.key])
                + " |"
            )
        lines += [
            "",
            f"chi^2 of the free Gamma_S: {figure.free_rate[1]:.2f} for 2 degrees of freedom (the spin part is the total less the other two).",
            "",
        ]
    return "\n".join(lines)


def _row(values: dict[str, float]) -> str:
    return ", ".join(f"{k} {v:.3f}" for k, v in values.items())


def bands(c: Moller) -> str:
    """How the ratios depend on the band, which the paper does not state."""
    lines = ["| band around the resonance | " + " | ".join(RATIOS["fig3"]) + " |", "|---|---|---|---|---|"]
    rate = c.fig3.free_rate[0]
    for half in (15e3, 25e3, 50e3, 100e3):
        found = c.fig3.ratios(lambda sign: c.fig3.with_rate(rate, sign), half)
        lines.append(f"| ± {half / 1e3:g} kHz | " + " | ".join(f"{found[k]:.4f}" for k in RATIOS["fig3"]) + " |")
    return "\n".join(lines)


def limits(c: Moller) -> str:
    """Closed forms of the ideal limit beside the full model at kappa = 100 Omega, gamma_M = 27 Hz."""
    rows = [
        ("equal, r = 1, negative", c.ideal_ratio(100, 27.0), back_action_ratio(1, 1, 1, -1)),
        ("equal, r = 1, positive", c.ideal_ratio(100, 27.0, sign=1), back_action_ratio(1, 1, 1, 1)),
        ("gamma_S = gamma_M/4, negative", c.ideal_ratio(100, 27.0, spin_width=0.25), back_action_ratio(1, 1, 0.25, -1)),
        (
            "r = 0.75, gamma_S = 1.5 gamma_M, positive",
            c.ideal_ratio(100, 27.0, sign=1, r=0.75, spin_width=1.5),
            back_action_ratio(0.75, 1, 1.5, 1),
        ),
        ("detuned by gamma_M, sin varphi = -D/G'", c.ideal_ratio(100, 27.0, detuned=1.0), detuned_ratio(1, 1, 1)),
        ("detuned by 2 gamma_M", c.ideal_ratio(100, 27.0, detuned=2.0), detuned_ratio(2, 1, 1)),
    ]
    lines = ["| case | full model | closed form |", "|---|---|---|"]
    return "\n".join(lines + [f"| {name} | {full:.4f} | {form:.4f} |" for name, full, form in rows])


SECTIONS = {
    "What each reading of Gamma_S gives": readings,
    "The band matters": bands,
    "The limit and beyond": limits,
}
