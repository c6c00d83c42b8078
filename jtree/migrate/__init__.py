"""Migration: rules that make the arrays of one checkpoint those of another.

Places:    rename, drop, tie
Axes:      transpose, permute, flip, reshape
Numbers:   cast, scale, fill
Several:   stack, unstack, split, merge
By type:   convert, Report, linen, flattened, unflattened, neutral, transposed_padding
Applied:   apply, Migrated, plan, Plan, Rule
Files:     read_rules, to_toml, convert_file, Converted
"""

from ._apply import Migrated as Migrated
from ._apply import apply as apply
from ._axes import flip as flip
from ._axes import permute as permute
from ._axes import reshape as reshape
from ._axes import transpose as transpose
from ._convert import convert as convert
from ._file import Converted as Converted
from ._file import convert_file as convert_file
from ._flattened import flattened as flattened
from ._flattened import transposed_padding as transposed_padding
from ._flattened import unflattened as unflattened
from ._linen import linen as linen
from ._neutral import neutral as neutral
from ._numbers import cast as cast
from ._numbers import fill as fill
from ._numbers import scale as scale
from ._places import drop as drop
from ._places import rename as rename
from ._places import tie as tie
from ._plan import Plan as Plan
from ._plan import plan as plan
from ._report import Report as Report
from ._rule import Rule as Rule
from ._split import merge as merge
from ._split import split as split
from ._stack import stack as stack
from ._stack import unstack as unstack
from ._toml import read_rules as read_rules
from ._toml import to_toml as to_toml
