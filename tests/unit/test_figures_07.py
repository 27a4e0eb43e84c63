"""The picture of a prior's misfit carries its data."""

import numpy as np
import torch

from gmvae_lib.figures import misfit


def test_the_three_panels_show_both_densities_and_their_log_ratio():
    x = torch.linspace(-2, 2, 9)
    log_q, log_p = -torch.ones(9, 9), torch.arange(81.0).reshape(9, 9) / 40 - 2
    picture = misfit(x, x, log_q, log_p, "title", "Three maps.", marks={"hole": torch.tensor([[0.0, 1.0]]),
                                                                        "crowded": torch.tensor([[1.0, 1.0]] * 2)})
    q, p, ratio = picture.figure.axes[:3]
    for axis, values in ((q, log_q.exp()), (p, log_p.exp()), (ratio, log_q - log_p)):
        assert np.allclose(axis.collections[0].get_array(), values)
        assert axis.get_title() and axis.get_xlabel() == "$z_1$"
    assert [line.get_xydata().tolist() for line in ratio.lines] == [[[0.0, 1.0]], [[1.0, 1.0]] * 2]
    assert [text.get_text() for text in ratio.get_legend().get_texts()] == ["hole", "crowded"]
    assert q.collections[0].get_clim() == p.collections[0].get_clim() and picture.alt == "Three maps."
