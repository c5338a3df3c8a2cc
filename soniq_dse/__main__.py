"""``python -m soniq_dse``."""

from soniq_dse.cli import main

main()
