"""The HTML page: one file, nothing fetched from elsewhere, figures inside it as SVG images."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import replace
from html import escape
from importlib import resources
from string import Template

import numpy as np
from matplotlib.figure import Figure

from pipeline.report import figures, sky, spectra, trust
from pipeline.report.contents import Contents, Facts, Spectrum
from pipeline.report.reasons import chance, words
from pipeline.report.style import svg
from pipeline.report.tables import funnel, html_table, metrics, quarantine, stages

# keys of the model's history and their names, the axis, the caption
CURVES = (
    (
        (("train_loss", "training"), ("validation_loss", "validation")),
        "loss a bin",
        "Loss at the end of each segment; validation spectra lie in sky pixels that training never sees.",
    ),
    (
        (("validation_chi2_median", "median"), ("validation_chi2", "mean")),
        "χ² a bin of validation spectra",
        "Misfit of validation spectra: 1 is noise alone. Anomalies lift the mean.",
    ),
)


def render(contents: Contents) -> str:
    """Return the whole page as HTML text."""
    sections = [
        ("counts", "Counts", _counts(contents)),
        ("quality", "Quality", _quality(contents)),
        ("training", "Training", _training(contents)),
        ("scores", "Scores", _scores(contents)),
        ("maps", "Sky and embeddings", _maps(contents)),
        ("anomalies", "Top anomalies", _gallery(contents)),
        ("reconstructions", "Reconstructions", _examples(contents)),
        ("quarantine", "Quarantine", _quarantine(contents)),
    ]
    facts = contents.facts
    return Template(_asset("report.html")).substitute(
        title=escape(f"Run {facts.run}"),
        css=_asset("style.css"),
        lead=escape(_lead(contents)),
        alarm=trust.banner(contents),
        facts=_facts(facts),
        contents=" ".join(f'<a href="#{name}">{title}</a>' for name, title, _ in sections),
        sections="\n".join(
            f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{title}</h2>\n{body}\n</section>'
            for name, title, body in sections
        ),
        footer=_footer(facts),
    )


def _asset(name: str) -> str:
    return resources.files("pipeline.report").joinpath(name).read_text(encoding="utf-8")


def _lead(contents: Contents) -> str:
    catalog = contents.catalog
    scored = int(np.isfinite(catalog.score).sum())
    kept = sum(row.spectra for row in contents.quarantine)
    text = f"{contents.planned:,} spectra planned, {len(catalog):,} ingested, {scored:,} with an anomaly score"
    return f"{text}, {kept:,} in quarantine." if kept else f"{text}, none in quarantine."


def _facts(facts: Facts) -> str:
    rows = {
        "survey": facts.survey,
        "model": facts.model_id or "none yet",
        **facts.model,
        "run created": f"{facts.created:%Y-%m-%d %H:%M} UTC" if facts.created else "",
        "report written": f"{facts.reported:%Y-%m-%d %H:%M} UTC",
        "state of the run": "" if facts.state == "running" else facts.state,  # a run that goes on writes its own page
        "skysift": facts.version,
    }
    pairs = ((name, value) for name, value in rows.items() if value)
    return "\n".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)


def picture(figure: Figure, alt: str, caption: str = "", kind: str = "") -> str:
    """Return a figure element; ``alt`` and ``caption`` are plain text."""
    data = base64.b64encode(svg(figure).encode()).decode()
    width, height = (round(float(side) * 96) for side in figure.get_size_inches())
    image = (
        f'<img src="data:image/svg+xml;base64,{data}" width="{width}" height="{height}" alt="{escape(alt)}" '
        'decoding="async">'
    )
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure{f' class={kind}' if kind else ''}>{image}{below}</figure>"


def _pair(pictures: Iterable[str]) -> str:
    return f'<div class="pair">{"".join(pictures)}</div>'


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _counts(contents: Contents) -> str:
    return (
        html_table(*funnel(contents))
        + "<h3>Stages</h3>"
        + html_table(*stages(contents.planned, contents.steps, contents.metrics, contents.facts.trained_on))
        + _note("Rows in are rows out and rows in quarantine; time and rate are of each stage's last work.")
    )


def _quality(contents: Contents) -> str:
    if not contents.metrics:
        return _note("No quality metric is recorded yet.")
    return html_table(*metrics(replace(contents, metrics=[row for row in contents.metrics if not trust.told(row)])))


def _training(contents: Contents) -> str:
    drawn = []
    for names, label, caption in CURVES:
        present = [(key, name) for key, name in names if any(key in entry for entry in contents.history)]
        if not present:
            continue
        last = contents.history[-1]
        said = ", ".join(f"{name} {last[key]:.4f}" for key, name in present if key in last)
        drawn.append(
            picture(
                figures.training_curves(contents.history, present, label),
                f"{label} against training segment; at the end of {len(contents.history)} segments: {said}.",
                caption,
            )
        )
    return _pair(drawn) if drawn else _note("There are no training curves: no model is trained yet.")


def _scores(contents: Contents) -> str:
    catalog = contents.catalog
    scored = int(np.isfinite(catalog.score).sum())
    if not scored:
        return _note("Nothing is scored yet.")
    best = float(np.nanmax(catalog.score))
    plots = [
        picture(
            figures.against(catalog, x, "score"),
            f"Density of {scored:,} anomaly scores against {name}; the highest score is {best:.1f}.",
            f"Anomaly score against {name}: in a fair score the cloud is flat, and only its upper edge is ragged.",
        )
        for x, name in (("snr", "signal to noise"), ("z", "redshift"))
    ]
    plots.append(
        picture(
            figures.p_values(catalog.p_value, catalog.training),
            f"Histogram of {scored:,} p-values over the uniform expectation.",
            "p-values: normal spectra spread evenly, anomalies pile up at zero.",
        )
    )
    plots.append(
        picture(
            figures.against(catalog, "snr", "chi2_reduced"),
            f"Density of {scored:,} reduced χ² values of the reconstruction against signal to noise.",
            "Misfit of the reconstruction: 1 is noise alone; it rises where the signal shows what the model lacks.",
        )
    )
    return trust.discoveries(contents) + _pair(plots) + _trust(contents)


def _trust(contents: Contents) -> str:
    return trust.verdicts(contents) + trust.parts(contents) + trust.uniformity(contents)


def _maps(contents: Contents) -> str:
    catalog = contents.catalog
    placed = int((np.isfinite(catalog.ra) & np.isfinite(catalog.dec)).sum())
    shown = []
    if placed:
        shown.append(
            picture(
                sky.sky_map(catalog.ra, catalog.dec, figures.top_mask(catalog.rank)),
                f"Sky map of {placed:,} spectra with the top anomalies marked.",
                "Number density on the sky; circles are the top anomalies, the dashed line on whole-sky maps is the "
                "Galactic plane.",
            )
        )
    embedding = contents.embedding
    if embedding is not None and len(embedding.z) > 2:
        shown.append(
            picture(
                figures.embedding_map(embedding),
                f"{len(embedding.z):,} embeddings on their two principal components, coloured by redshift.",
                f"{len(embedding.z):,} embeddings on the plane of their largest variance.",
            )
        )
    return _pair(shown) if shown else _note("There are neither positions nor embeddings to map yet.")


def _spectrum(source: Spectrum) -> str:
    why = source.explanation.rstrip(".") or (words(source.reason, source.z) if source.reason else "no reason")
    alt = f"Spectrum {source.targetid} at redshift {source.z:.3f}, signal to noise {source.snr:.1f}: {why}."
    where = "" if np.isnan(source.ra) else f"RA {source.ra:.5f}°, Dec {source.dec:+.5f}° · "
    score = "" if np.isnan(source.score) else f" · score {source.score:.2f}, p {chance(source.p_value)}"
    alike = f" · most like it among ordinary ones: {', '.join(source.lookalikes)}" if source.lookalikes else ""
    return picture(spectra.spectrum(source), alt, f"{where}{source.coadd}{score}{alike}", "spectrum")


def _gallery(contents: Contents) -> str:
    if not contents.top:
        return _note("There are no ranked spectra to show yet.")
    text = (
        "Flux averaged over 8 native pixels by inverse variance, before the range of those pixels in grey; the error "
        "of a single pixel in blue, the model's reconstruction in orange. Below, the residual of the averages in their "
        "σ. Masked pixels are gaps. The strongest window is shaded, and shown in native pixels beside. A p-value with "
        "≈ is extrapolated beyond the calibration spectra; q is the share of normal spectra to expect in the list down "
        "to this one."
    )
    return _note(text) + "".join(map(_spectrum, contents.top))


def _examples(contents: Contents) -> str:
    if not contents.examples:
        return _note("There are no spectra to show yet.")
    text = "Ordinary spectra (p > 0.1), drawn at random over the range of redshifts: what a good fit looks like."
    return _note(text) + "".join(map(_spectrum, contents.examples))


def _quarantine(contents: Contents) -> str:
    if not contents.quarantine:
        return _note("Nothing was kept back.")
    return html_table(*quarantine(contents))


def _footer(facts: Facts) -> str:
    text = "Wavelengths are vacuum, positions ICRS; flux is in 1e-17 erg/s/cm²/Å and not corrected for Galactic dust."
    cite = (
        "DESI data are CC BY 4.0: publications cite the data release (DR1: DESI Collaboration 2025, "
        "arXiv:2503.14745) and carry the acknowledgement of the DESI Collaboration."
        if "desi" in facts.survey.lower()
        else ""
    )
    return "".join(f"<p>{escape(part)}</p>" for part in (text, cite) if part)


def gallery_png(sources: Sequence[Spectrum]) -> dict[str, bytes]:
    """Return the spectra as PNG pictures on white, file name → bytes, for documents."""
    from pipeline.report.style import png

    return {f"{source.targetid}.png": png(spectra.spectrum(source)) for source in sources}
