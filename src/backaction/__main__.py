"""`python -m backaction`."""

from backaction.cli import main

main()
