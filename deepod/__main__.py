"""``python -m deepod`` is the command ``deepod``."""

from deepod.cli import main

raise SystemExit(main())
