"""Migration: rules that make the arrays of one checkpoint those of another.

Places:    rename, drop, tie
Axes:      transpose, take, flip, reshape
Numbers:   cast, scale, fill
Several:   stack, unstack, split, concatenate
By type:   convert, Report, linen, transposed_padding
Hints:     flattened, unflattened, defaults
Applied:   apply, Migrated, plan, Plan, Rule
Files:     rules_from_toml, rules_to_toml, convert_file, FileReport
"""

from ._convert.convert import convert as convert
from ._convert.defaults import defaults as defaults
from ._convert.images import flattened as flattened
from ._convert.images import transposed_padding as transposed_padding
from ._convert.images import unflattened as unflattened
from ._convert.linen import linen as linen
from ._convert.report import Report as Report
from ._files.convert_file import FileReport as FileReport
from ._files.convert_file import convert_file as convert_file
from ._rules.apply import Migrated as Migrated
from ._rules.apply import apply as apply
from ._rules.axes import flip as flip
from ._rules.axes import reshape as reshape
from ._rules.axes import take as take
from ._rules.axes import transpose as transpose
from ._rules.base import Rule as Rule
from ._rules.naming import drop as drop
from ._rules.naming import rename as rename
from ._rules.naming import tie as tie
from ._rules.plan import Plan as Plan
from ._rules.plan import plan as plan
from ._rules.split import concatenate as concatenate
from ._rules.split import split as split
from ._rules.stack import stack as stack
from ._rules.stack import unstack as unstack
from ._rules.toml import rules_from_toml as rules_from_toml
from ._rules.toml import rules_to_toml as rules_to_toml
from ._rules.values import cast as cast
from ._rules.values import fill as fill
from ._rules.values import scale as scale

__all__ = [
    "FileReport",
    "Migrated",
    "Plan",
    "Report",
    "Rule",
    "apply",
    "cast",
    "concatenate",
    "convert",
    "convert_file",
    "defaults",
    "drop",
    "fill",
    "flattened",
    "flip",
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
    "transpose",
    "transposed_padding",
    "unflattened",
    "unstack",
]

for _name in __all__:  # where users find it, and what help and tracebacks should say
    globals()[_name].__module__ = __name__
