"""Figures of what `dima predict` measured, each drawn from the content of prediction.json alone.

Every function checks nothing (`dima.run.prediction_schema` does), draws with matplotlib's own canvas, writes one file
whose suffix chooses PNG, PDF or SVG, and returns the figure, or None, writing nothing, where nothing was measured.
"""

from dima.run.prediction_figures.errors import plot_errors
from dima.run.prediction_figures.gains import plot_gains
from dima.run.prediction_figures.overlay import plot_overlay
from dima.run.prediction_figures.samples import plot_fan, plot_ranks

__all__ = ["plot_errors", "plot_fan", "plot_gains", "plot_overlay", "plot_ranks"]
