"""Print models as tables and as layers."""
