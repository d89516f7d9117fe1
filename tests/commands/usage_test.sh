#!/usr/bin/env bash
# Exit status and messages of wrong usage, of help, and of output that cannot be written.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

refuses 2 'Usage: adwp COMMAND' adwp
refuses 2 'no command .serch' adwp serch
refuses 2 'no command .serch' adwp help serch
for command in check emit opt run-ir search eval profile; do
  refuses 2 "adwp $command: which" adwp "$command"
  refuses 2 'unrecognized option' adwp "$command" --no-such-option
  adwp "$command" --help >help.txt || fail "$command --help"
  grep -q "^Usage: adwp $command" help.txt || fail "$command --help says nothing of $command"
  adwp help "$command" | cmp - help.txt || fail "help $command and $command --help differ"
done
adwp help >help.txt
for command in check search eval emit opt run-ir profile version; do
  grep -q "^  $command " help.txt || fail "help does not name $command"
done
adwp version | grep -qE '^adwp [0-9]+\.[0-9]+\.[0-9]+$' || fail "version"
adwp --version | grep -q '^adwp ' || fail "--version"

refuses 2 'one FILE' adwp check a.adwp b.adwp
refuses 2 'KEY=VALUE' adwp check "$small" --set search.train
refuses 2 'whole number' adwp profile "$small" --step=train_step --threads=0
refuses 2 'whole number' adwp profile "$small" --step=train_step --threads=two
refuses 2 'whole number' adwp profile "$small" --step=train_step --steps=99999999999999999999
refuses 2 'is spec, lower, autodiff' adwp emit "$small" --stage=grahp
refuses 2 'is train_step' adwp emit "$small" --stage=graph --step=training
refuses 2 'into which folder' adwp search "$small"
refuses 2 'one folder' adwp search "$small" -o run --resume run
refuses 2 'name of a folder' adwp search "$small" -o ''
refuses 2 'name of a folder' adwp search --resume ''
refuses 2 'give no FILE' adwp search "$small" --resume run
refuses 2 '--set is for a new run' adwp search --resume run --set search.train=1
refuses 2 'not both' adwp eval run --soft --arch arch.json

if [ -c /dev/full ]; then
  into_full() { adwp check --show-defaults "$small" >/dev/full; }
  refuses 1 'standard output' into_full
fi
