"""The widgets. A `Panel` is a picture that follows its controls; each chapter's panel says what to draw.

Before a cell is run, and where there is no kernel, readers see the panel's static picture; run, it becomes live.
Pictures go to a `widgets.Image`, which nbval and static viewers tolerate; errors are shown in the panel.
"""

from gmvae_lib.explorers.chapter_00 import GMVAEExplorer
from gmvae_lib.explorers.chapter_01 import MixtureExplorer
from gmvae_lib.explorers.chapter_02 import EMExplorer
from gmvae_lib.explorers.chapter_03 import KExplorer
from gmvae_lib.explorers.chapter_04 import DivergenceExplorer
from gmvae_lib.explorers.chapter_05 import LatentExplorer, quick_vae
from gmvae_lib.explorers.chapter_06 import BetaExplorer, LiveTraining
from gmvae_lib.explorers.chapter_07 import HoleExplorer
from gmvae_lib.explorers.chapter_08 import RateExplorer, quick_gmvae
from gmvae_lib.explorers.chapter_10 import GumbelExplorer
from gmvae_lib.explorers.chapter_11 import BoundExplorer, quick_plane
from gmvae_lib.explorers.chapter_12 import TimelineExplorer
from gmvae_lib.explorers.chapter_13 import BugExplorer
from gmvae_lib.explorers.panel import Panel, with_box

__all__ = [
    "Panel", "with_box", "GMVAEExplorer", "MixtureExplorer", "EMExplorer", "KExplorer", "DivergenceExplorer",
    "quick_vae", "LatentExplorer", "BetaExplorer", "LiveTraining", "HoleExplorer", "quick_gmvae", "RateExplorer",
    "GumbelExplorer", "quick_plane", "BoundExplorer", "TimelineExplorer", "BugExplorer",
]
