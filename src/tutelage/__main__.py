"""`python -m tutelage` is the command `tutelage`, for places where scripts are not on the path."""

from __future__ import annotations

from tutelage.cli import main

if __name__ == "__main__":
    main()
