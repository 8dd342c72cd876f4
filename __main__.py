"""The command as a module: ``python -m synclones`` is ``synclones``."""

from synclones.cli import main

main()
