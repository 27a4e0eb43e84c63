"""Every picture of the course. Each function returns a `Picture`: a matplotlib figure and what it shows, in words."""

from gmvae_lib.figures.bugs import published_ascent, six_programs, unequal_pair
from gmvae_lib.figures.choice import count_panels, fit_panels
from gmvae_lib.figures.course import PARTS, course_map
from gmvae_lib.figures.evaluation import intervals, score_map
from gmvae_lib.figures.family import log_panels, simplex_panels, six_models
from gmvae_lib.figures.labels import Labels, apart
from gmvae_lib.figures.latent import RATIO, clusters, discriminant_plane, latent_plane, misfit
from gmvae_lib.figures.mixtures import (
    blend,
    cloud_panels,
    density_panels,
    draw_outlines,
    draw_soft_points,
    ellipse,
    em_stages,
    full_covariances,
    hills,
    jensen,
    mixture_panels,
    shares,
)
from gmvae_lib.figures.picture import COLORS, LINES, MARKERS, STYLE, Blitted, Picture, array, style, subplots
from gmvae_lib.figures.plots import counts, curve_panels, curves, heatmaps, images, scatter, strip, table
from gmvae_lib.figures.rates import rate_plane
from gmvae_lib.figures.scaling import bars, choices, lanes
from gmvae_lib.figures.starts import start_panels, walk_panels
from gmvae_lib.figures.variational import gaussian_outlines, joint_slices, stacked_panels

__all__ = [
    "COLORS", "MARKERS", "LINES", "STYLE", "Picture", "Blitted", "Labels", "apart",
    "style", "subplots", "array", "ellipse",
    "full_covariances", "blend", "draw_soft_points", "draw_outlines", "mixture_panels", "shares", "em_stages",
    "density_panels", "cloud_panels", "hills", "jensen", "curves", "curve_panels", "images", "scatter", "strip",
    "heatmaps", "counts", "table", "fit_panels", "count_panels",
    "joint_slices", "gaussian_outlines", "stacked_panels",
    "rate_plane", "start_panels", "walk_panels", "six_models", "simplex_panels", "log_panels",
    "intervals", "score_map", "bars", "lanes", "choices",
    "six_programs", "published_ascent", "unequal_pair",
    "latent_plane", "discriminant_plane", "clusters", "misfit", "RATIO", "PARTS", "course_map",
]
