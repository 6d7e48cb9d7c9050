"""Figures of what `dima infer` measured, each drawn from the content of inference.json alone.

Every function checks nothing (`dima.run.infer_schema` does), draws with matplotlib's own canvas, writes one file whose
suffix chooses PNG, PDF or SVG, and returns the figure, or None, writing nothing, where nothing was measured.
"""

from dima.run.inference_figures.calibration import plot_fan, plot_ranks
from dima.run.inference_figures.plane import plot_density, plot_embedding
from dima.run.inference_figures.scores import plot_scores

__all__ = ["plot_density", "plot_embedding", "plot_fan", "plot_ranks", "plot_scores"]
