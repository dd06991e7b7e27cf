#!/usr/bin/env bash
# Makes the templates of synthetic bundles that the package ships, in target/templates.
. "$(dirname "$0")/lib.sh"
cd "$project"
run scripts/python_env.sh
run .venv/bin/python scripts/make_templates.py target/templates
