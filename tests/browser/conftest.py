"""The browser is driven by a module that `tools/picture.py` uses as well."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "jupyter"))
