#!/usr/bin/env bash
# Makes .clients, the Python environment of scripts/tests_clients: openpi's client, and readers of recordings.
# Runs in milliseconds when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."
stamp=$(sha256sum scripts/requirements-clients.txt | cut -d' ' -f1)
[ "$(cat .clients/stamp 2>/dev/null || true)" = "$stamp" ] && exit 0
echo "installing the Python environment .clients" >&2
python3 -m venv .clients
.clients/bin/python -m pip install --quiet --disable-pip-version-check -r scripts/requirements-clients.txt
echo "$stamp" >.clients/stamp
