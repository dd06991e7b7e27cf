"""scripts/reference.py as a module: its name is taken by the package beside it."""

import importlib.util
import pathlib

_path = pathlib.Path(__file__).resolve().parents[1] / "reference.py"
_spec = importlib.util.spec_from_file_location("reference_main", _path)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
main = _module.main
