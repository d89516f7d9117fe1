#!/usr/bin/env bash
# Every .case file beside this one: commands with the exact text that they print.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

ADWP=$ADWP "$top/tests/run" "$commands"/*.case
