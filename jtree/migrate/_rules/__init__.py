"""Rules of migrations: one file for each family, and what applies them."""
