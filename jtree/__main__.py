"""`python -m jtree`: the command `jtree`."""

from .cli import app

if __name__ == "__main__":
    app(prog_name="jtree")
