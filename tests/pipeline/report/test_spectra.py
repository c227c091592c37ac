import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.report.contents import Reason, Spectrum
from pipeline.report.spectra import BIN, WAVELENGTH, binned, spectrum
from pipeline.report.style import png, svg

MASKED = slice(4000, 4120)  # as the fixture's


def test_bins_are_means_by_inverse_variance() -> None:
    flux, ivar = np.arange(16.0), np.tile([1.0, 3.0], 8)
    found = binned(flux, ivar, np.zeros(16), size=8)
    assert found.mean[0] == pytest.approx(np.average(flux[:8], weights=ivar[:8]))
    assert found.pull[0] == pytest.approx((ivar * flux)[:8].sum() / np.sqrt(ivar[:8].sum()))
    assert (found.low[0], found.high[0]) == (0.0, 7.0)
    assert found.error[0] == pytest.approx(np.sqrt(8 / 16.0))


def test_pure_noise_has_unit_residuals() -> None:
    rng = np.random.default_rng(1)
    sigma = rng.uniform(0.2, 3.0, len(WAVELENGTH))
    found = binned(5.0 + sigma * rng.standard_normal(len(sigma)), sigma**-2, np.full(len(sigma), 5.0))
    assert np.std(found.pull) == pytest.approx(1.0, abs=0.08)


def test_masked_pixels_are_gaps(spectrum_of: Callable[..., Spectrum]) -> None:
    source = spectrum_of(reason=Reason("emission", 9.0, float(WAVELENGTH[4060]), 2000.0))
    assert not np.isfinite(source.flux[MASKED]).all()  # the fixture's masked pixels hold NaN and 9e9
    found = binned(source.flux, source.ivar, source.model)
    inside = slice(MASKED.start // BIN, MASKED.stop // BIN)
    for values in (found.mean, found.error, found.low, found.high, found.pull):
        assert np.isnan(values[inside]).all()
        assert np.isfinite(values[: inside.start]).all()
    drawn = [line.get_ydata() for ax in spectrum(source).axes for line in ax.get_lines()]
    assert len(drawn) > 8
    assert all(np.nanmax(np.abs(np.asarray(y, dtype=float))) < 1e4 for y in drawn)


def test_a_bin_partly_masked_uses_the_rest() -> None:
    flux, ivar = np.array([1.0] * 7 + [np.nan]), np.array([1.0] * 7 + [0.0])
    assert binned(flux, ivar, None, size=8).mean[0] == 1.0


@pytest.mark.parametrize("z", [0.05, 0.3, 0.77, 1.3, 2.0, 2.6, 3.4, 5.0])
@pytest.mark.parametrize("kind", ["density", "emission"])
def test_labels_of_lines_do_not_overlap(spectrum_of: Callable[..., Spectrum], z: float, kind: str) -> None:
    figure = spectrum(spectrum_of(z=z, reason=Reason(kind, 9.0, 6210.0, 500.0)))
    boxes = _boxes(figure, "line")
    assert len(boxes) >= 2
    assert all(right.x0 >= left.x1 for left, right in itertools.pairwise(boxes))
    panel = figure.axes[0].get_window_extent()
    assert boxes[0].x0 >= panel.x0 - 1
    assert boxes[-1].x1 <= panel.x1 + 1


def _boxes(figure: Figure, gid: str) -> list:  # type: ignore[type-arg]
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text for ax in figure.axes for text in ax.texts if text.get_gid() == gid]
    return sorted((text.get_window_extent(renderer) for text in texts), key=lambda box: float(box.x0))


def test_titles_do_not_collide(spectrum_of: Callable[..., Spectrum]) -> None:
    long = Reason("absorption", 14.2, 7605.0, 1100.0)
    figure = spectrum(replace(spectrum_of(z=4.2, reason=long), rank=1_234_567))
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    title, reason = (text.get_window_extent(renderer) for text in figure.texts)
    rest = figure.axes[0].child_axes[0].xaxis.label.get_window_extent(renderer)
    assert title.y0 >= reason.y1
    assert reason.y0 >= rest.y1 or reason.x1 <= rest.x0
    assert max(title.x1, reason.x1) <= figure.bbox.x1
    assert title.y1 <= figure.bbox.y1


def test_axes_say_what_they_are(spectrum_of: Callable[..., Spectrum]) -> None:
    figure = spectrum(spectrum_of(z=1.0, reason=Reason("global", 5.0)))
    top, below = figure.axes[:2]
    assert "10^{-17}" in top.get_ylabel()
    assert "erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$" in top.get_ylabel()
    assert below.get_xlabel() == "observed wavelength, vacuum / Å"
    assert below.get_ylabel() == "residual / σ"
    rest = top.child_axes[0]
    assert rest.get_xlabel() == "rest wavelength / Å"
    figure.draw_without_rendering()
    assert rest.get_xlim() == pytest.approx(np.array(top.get_xlim()) / 2.0)


@pytest.mark.parametrize("change", [{"model": None}, {"reason": None}, {"p_value": np.nan, "score": np.nan, "rank": 0}])
def test_spectra_without_model_reason_or_rank_are_drawn(
    spectrum_of: Callable[..., Spectrum], change: dict[str, object]
) -> None:
    source = replace(spectrum_of(reason=Reason("emission", 9.0, 6210.0, 500.0)), **change)  # type: ignore[arg-type]
    assert svg(spectrum(source)).startswith("<svg")


@pytest.mark.parametrize("window", [6210.0, 3601.0, 9823.0])
def test_a_spectrum_without_information_is_drawn(spectrum_of: Callable[..., Spectrum], window: float) -> None:
    source = spectrum_of(reason=Reason("emission", 9.0, window, 500.0))
    blind = replace(source, ivar=np.zeros_like(source.ivar), flux=np.full_like(source.flux, np.nan))
    assert svg(spectrum(blind)).startswith("<svg")


def test_figures_are_the_same_each_time(spectrum_of: Callable[..., Spectrum]) -> None:
    source = spectrum_of(reason=Reason("absorption", 9.0, 6210.0, 500.0))
    assert svg(spectrum(source)) == svg(spectrum(source))
    assert png(spectrum(source)) == png(spectrum(source))


def test_svg_follows_the_readers_scheme(spectrum_of: Callable[..., Spectrum]) -> None:
    text = svg(spectrum(spectrum_of()))
    assert "prefers-color-scheme:dark" in text
    assert "var(--c0)" in text
    assert len(text) < 350_000
