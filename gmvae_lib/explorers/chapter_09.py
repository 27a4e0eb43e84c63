"""The widget of chapter 9: K and beta on a trained GMVAE, with what the clusters are worth."""

import numpy as np
import torch

from gmvae_lib.evaluation import ari, clustering_accuracy, homogeneity, match_clusters, nmi, purity
from gmvae_lib.explorers.chapter_00 import GMVAEExplorer
from gmvae_lib.figures import COLORS, MARKERS


class ClusterExplorer(GMVAEExplorer):
    """Chapter 0's widget with the clusters' worth beside them: which digits each component holds, five scores, and the
    held-out bound for every K.

    Every K has its own mixture, by the method of `GMVAEExplorer`. Arguments are the same.
    """

    MOSAIC, SIZE = [["map", "samples", "samples", "samples"], ["map", "confusion", "scores", "bound"]], (11.5, 6.6)
    RATIOS = {"width_ratios": (1.3, 1.6, 0.62, 0.8), "height_ratios": (1.15, 1)}
    TITLE = ("A widget: clusters of handwritten digits. Sliders set the number of components K and the rate's weight "
             "beta; a map of the latent space, samples of each component, a table of digits against components, five "
             "scores, and the held-out bound follow when the notebook runs.")
    SCORES = {"accuracy": clustering_accuracy, "NMI": nmi, "ARI": ari, "purity": purity, "homogeneity": homogeneity}

    def _prepare_rest(self, axes):
        most, digits = len(self.partitions), range(int(self.test.y.max()) + 1)
        self._table = axes["confusion"].imshow(np.zeros((len(digits), most)), cmap="Blues", vmin=0, vmax=1,
                                               aspect="auto", interpolation="nearest")
        self._columns = [axes["confusion"].text(0, len(digits) - 0.3, str(k + 1), ha="center", va="top",
                                                fontweight="bold", fontsize=8) for k in range(most)]
        axes["confusion"].set(title="Where the digits went", ylabel="digit", yticks=digits, xticks=[])
        axes["confusion"].set_xlabel("component", labelpad=14)
        rows = np.arange(len(self.SCORES))
        self._bars = axes["scores"].barh(rows, np.zeros(len(rows)), color=COLORS[0], height=0.6).patches
        self._values = [axes["scores"].text(0, row, "", va="center", fontsize=10) for row in rows]
        axes["scores"].set(title="Scores", xlim=(0, 1.25), xticks=(0, 0.5, 1))
        axes["scores"].set_yticks(rows, self.SCORES)
        axes["scores"].invert_yaxis()
        ks = range(1, most + 1)
        self.bounds = {k: -sum(self._measure(k, 1.0)[3:]) for k in ks}
        axes["bound"].plot(ks, self.bounds.values(), color=COLORS[8], marker=".")
        self._here = axes["bound"].plot([1], [self.bounds[1]], MARKERS[1], color=COLORS[1], markersize=10)[0]
        axes["bound"].set(title="Held-out bound", xlabel="K (at β = 1)", ylabel="−(D + R) (nats)")
        axes["bound"].xaxis.get_major_locator().set_params(integer=True)
        axes["bound"].yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
        for name in ("confusion", "scores", "bound"):
            axes[name].grid(False)
        return [self._table, *self._columns, *self._bars, *self._values, self._here]

    def _draw_rest(self, prior, beta, mean, labels):
        n_components, y, most = prior.n_components, self.test.y, len(self.partitions)
        counts = torch.zeros(int(y.max()) + 1, n_components)
        counts.index_put_((y, labels), torch.ones(len(y)), accumulate=True)
        matched = match_clusters(y, labels)
        order = sorted(range(n_components), key=lambda k: (matched.get(k, most), k))
        self._table.set_data((counts[:, order] / counts.sum(1, keepdim=True)).numpy())
        self._table.set_extent((-0.5, most - 0.5, len(counts) - 0.5, -0.5))
        for place, text in enumerate(self._columns):
            text.set_visible(place < n_components)
            if place < n_components:
                k = order[place]
                text.set(x=(place + 0.5) * most / n_components - 0.5, text=str(k + 1), color=COLORS[k % 10])
        self.scores = {name: score(y, labels) for name, score in self.SCORES.items()}
        for bar, text, value in zip(self._bars, self._values, self.scores.values(), strict=True):
            bar.set_width(value)
            text.set(x=value + 0.03, text=f"{value:.2f}")
        self._here.set_data([n_components], [self.bounds[n_components]])

    def _caption(self, n_components, beta, rate, distortion, accuracy):
        words = super()._caption(n_components, beta, rate, distortion, accuracy)
        best = max(self.bounds, key=self.bounds.get)
        return words + (f" Purity is {self.scores['purity']:.0%} and homogeneity {self.scores['homogeneity']:.2f}: "
                        f"they rise with K, and are no accuracies. At β = 1 the held-out bound is "
                        f"{self.bounds[n_components]:.1f} nats for this K, and highest for K = {best}.")
