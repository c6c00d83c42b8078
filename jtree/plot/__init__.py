"""Plots of vectors, matrices and losses over parameters, labeled by path.

A matrix over all parameters:  hessian
Eigenvalues:                   spectrum
The curvature of each layer:   layerwise
The loss around a vector:      landscape
The values of a vector:        parameters

Each function returns a new `matplotlib.figure.Figure`, and neither uses nor changes pyplot. A
notebook displays the figure, and `figure.savefig(path)` writes it to a file. matplotlib is the
optional dependency `jtree[plot]`, and is imported when something is drawn.
"""

from .._public import publish
from ._hessian import hessian
from ._landscape import landscape
from ._layerwise import layerwise
from ._parameters import parameters
from ._spectrum import spectrum

__all__ = [
    "hessian",
    "landscape",
    "layerwise",
    "parameters",
    "spectrum",
]

publish(globals())
