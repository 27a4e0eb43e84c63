# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] slideshow={"slide_type": "slide"}
# # Solutions: Start here
#
# The exercise of [chapter 0](../00_start_here.ipynb).

# %% slideshow={"slide_type": "-"}
from gmvae_lib.exercises import check

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercise 0.1
#
# One image is a row, so we average over the rows, which are axis 0.

# %% slideshow={"slide_type": "-"}
def mean_image(x):
    return x.mean(0)


check("0.1", mean_image)

# %% [markdown] slideshow={"slide_type": "-"}
# Averaging over axis 1 gives one number for each image, its mean brightness.
