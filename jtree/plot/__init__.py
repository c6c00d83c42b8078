"""Pictures of vectors and of what is measured over them, labelled by path.

A matrix over all parameters:  hessian
Its eigenvalues:               spectrum
The loss around a vector:      landscape
The numbers themselves:        parameters

Each function returns a `matplotlib.figure.Figure` of its own: pyplot and its current figure are
neither used nor changed. A notebook shows the figure; `figure.savefig(path)` writes it to a file.
matplotlib is the extra `plot`, and is imported when something is drawn.
"""

from ._hessian import hessian as hessian
from ._landscape import landscape as landscape
from ._parameters import parameters as parameters
from ._spectrum import spectrum as spectrum
