#!/usr/bin/env bash
# The measurements of docs/benchmarks.md. ADWP: the binary (build/adwp); PYTHON: one that has PyTorch, which need not be there.
# Tables are left in build/bench, as text and as JSON.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
export PYTHON=${PYTHON:-python3} PYTHONDONTWRITEBYTECODE=1
python3 "$here/fusion.py"
python3 "$here/steps.py"
bash "$here/startup.sh"
