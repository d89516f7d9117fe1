#!/usr/bin/env bash
# The measurements of docs/benchmarks.md that take minutes. ADWP: the binary (build/adwp).
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
lscpu 2>/dev/null | sed -n 's/^Model name: */cpu: /p'
echo "cpus to be used: $(nproc)"
bash "$here/startup.sh"
bash "$here/steps.sh"
