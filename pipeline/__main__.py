"""``python -m pipeline`` is the ``skysift`` command."""

from pipeline.cli import main

main()
