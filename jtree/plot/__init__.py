"""Pictures of vectors and of what is measured over them, labelled by path.

A matrix over all parameters:  hessian
Its eigenvalues:               spectrum
The loss around a vector:      landscape
The numbers themselves:        parameters

Each function returns a `matplotlib.figure.Figure` of its own: pyplot and its current figure are
neither used nor changed. A notebook shows the figure; `figure.savefig(path)` writes it to a file.
matplotlib is the extra `plot`, and is imported when something is drawn.
"""

from .._public import publish
from ._hessian import hessian
from ._landscape import landscape
from ._parameters import parameters
from ._spectrum import spectrum

__all__ = [
    "hessian",
    "landscape",
    "parameters",
    "spectrum",
]

publish(globals())
