#!/usr/bin/env bash
# Prints a working Python 3.12 with the venv module, for what runs on no other: that of PI0_REFERENCE_PYTHON if that is set.
set -euo pipefail

fail() { printf 'python312: error: %s\n' "$*" >&2; exit 1; }
is_python312() { "$1" -c 'import sys, venv; sys.exit(sys.version_info[:2] != (3, 12))' >/dev/null 2>&1; }

if [[ -n "${PI0_REFERENCE_PYTHON:-}" ]]; then
  is_python312 "$PI0_REFERENCE_PYTHON" \
    || fail "PI0_REFERENCE_PYTHON=$PI0_REFERENCE_PYTHON is not a working Python 3.12 with the venv module"
  printf '%s\n' "$PI0_REFERENCE_PYTHON"
  exit
fi
# A pyenv shim named python3.12 is on PATH even when pyenv has not selected 3.12, and
# then fails when run: so every candidate is run, not just looked up.
for candidate in python3.12 python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python3.12; do
  if is_python312 "$candidate"; then
    printf '%s\n' "$candidate"
    exit
  fi
done
fail "no Python 3.12 found on PATH or among pyenv's versions. Install one (for example" \
  "'pyenv install 3.12', or your distribution's python3.12 and python3.12-venv) or set PI0_REFERENCE_PYTHON"
