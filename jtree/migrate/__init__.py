"""Migration: rules that rewrite arrays by path, and conversion between frameworks.

Paths:         rename, drop, tie
Axes:          transpose, take, flip, reshape
Values:        cast, scale, fill
Combinations:  stack, unstack, split, concatenate
Application:   apply, Migrated, plan, Plan, Rule
Files:         convert_file, FileReport, rules_from_toml, rules_to_toml
Models:        convert, linen, transposed_padding
Flux.jl:       from_flux_vector, to_flux_vector
Hints:         flattened, unflattened, defaults, as_base
Reports:       Report, ConvertedLayer, Setting
"""

from .._public import publish
from ._convert.bases import as_base
from ._convert.convert import convert
from ._convert.defaults import defaults
from ._convert.images import flattened, transposed_padding, unflattened
from ._convert.linen import linen
from ._convert.report import ConvertedLayer, Report, Setting
from ._files.convert_file import FileReport, convert_file
from ._flux.vector import from_flux_vector, to_flux_vector
from ._rules.apply import Migrated, apply
from ._rules.axes import flip, reshape, take, transpose
from ._rules.base import Rule
from ._rules.naming import drop, rename, tie
from ._rules.plan import Plan, plan
from ._rules.split import concatenate, split
from ._rules.stack import stack, unstack
from ._rules.toml import rules_from_toml, rules_to_toml
from ._rules.values import cast, fill, scale

__all__ = [
    "ConvertedLayer",
    "FileReport",
    "Migrated",
    "Plan",
    "Report",
    "Rule",
    "Setting",
    "apply",
    "as_base",
    "cast",
    "concatenate",
    "convert",
    "convert_file",
    "defaults",
    "drop",
    "fill",
    "flattened",
    "flip",
    "from_flux_vector",
    "linen",
    "plan",
    "rename",
    "reshape",
    "rules_from_toml",
    "rules_to_toml",
    "scale",
    "split",
    "stack",
    "take",
    "tie",
    "to_flux_vector",
    "transpose",
    "transposed_padding",
    "unflattened",
    "unstack",
]

publish(globals())
