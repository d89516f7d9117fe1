#!/usr/bin/env bash
# Bad worlds: data, run folders, checkpoints and caches that are missing, wrong or full. Each is one clear message and status 1,
# and nothing that was there is lost.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# ---- data ----
# The same model on CIFAR-10's binary format: files of 40 records of a label and 3 x 32 x 32 bytes.
sed 's/format  synthetic/format  cifar10-binary/; /train   120 images/d; /test    40 images/d' "$small" >cifar.adwp
make_batch() { # FILE RECORDS
  local i
  for ((i = 0; i < $2; i++)); do
    # shellcheck disable=SC2059
    printf "\\x0$((i % 10))"
    head -c 3072 /dev/urandom
  done >"$1"
}
make_data() {
  rm -rf data
  mkdir -p data/cifar-10-batches-bin
  local i
  for i in 1 2 3 4 5; do cp batch.bin "data/cifar-10-batches-bin/data_batch_$i.bin"; done
  cp batch.bin data/cifar-10-batches-bin/test_batch.bin
}
make_batch batch.bin 40
batch=data/cifar-10-batches-bin/data_batch_3.bin
search_data() {
  rm -rf run
  adwp search cifar.adwp -q -o run "$@"
}

make_data
search_data --data data >/dev/null || fail "search on good data"
search_data --data data/cifar-10-batches-bin >/dev/null || fail "search with the inner folder"
refuses 1 '--data' search_data
refuses 1 'no-such-folder' search_data --data no-such-folder
rm $batch
refuses 1 'data_batch_3.bin' search_data --data data
make_data
truncate -s -100 $batch
refuses 1 'data_batch_3.bin' search_data --data data
make_data
: >$batch
refuses 1 'data_batch_3.bin' search_data --data data
make_data
truncate -s $((3073 * 4000000)) $batch # sparse: 12 GB that take no room
refuses 1 'data_batch_3.bin' search_data --data data
make_data
flip $batch 3073 # a label of 254
refuses 1 'data_batch_3.bin' search_data --data data
make_data
rm $batch
mkdir $batch
refuses 1 'data_batch_3.bin' search_data --data data

# ---- run folders ----
: >file
refuses 1 'folder file' adwp search "$small" -q -o file/run
refuses 1 'file' adwp search "$small" -q -o file
mkdir read-only
chmod 555 read-only
if [ "$(id -u)" -ne 0 ]; then refuses 1 'read-only' adwp search "$small" -q -o read-only; fi
mkdir nothing
refuses 1 'nothing' adwp search --resume nothing
refuses 1 'no-run' adwp search --resume no-run

# A disk that is full: no file may grow past 64 KiB, which a checkpoint does.
adwp search "$small" -q -o good >/dev/null
limited() { (ulimit -f 64 && adwp "$@"); }
refuses 1 'limited' limited search "$small" -q -o limited
[ ! -e limited/arch.json ] || fail "a run that could not write its checkpoint has a result"
adwp search --resume limited >/dev/null 2>stderr.txt || fail "resume after the disk was full"
grep -q 'no checkpoint yet: the run starts from its beginning' stderr.txt || fail "a resume without a checkpoint does not say so"
same_results good limited

# A real one where a small file system can be had.
mkdir small-disk
if mount -t tmpfs -o size=128k none small-disk 2>/dev/null; then
  trap 'umount "$scratch/small-disk"; rm -rf "$scratch"' EXIT
  refuses 1 'small-disk' adwp search "$small" -q -o small-disk/run
  mount -o remount,size=64m small-disk
  adwp search --resume small-disk/run -q >/dev/null || fail "resume after there is room again"
  same_results good small-disk/run
else
  echo "no tmpfs can be mounted here: the full disk was only tried as a limit on files"
fi

# ---- checkpoints ----
part_way() { # a run that has a checkpoint and is not done
  rm -rf part
  "$ADWP" search "$small" -q -o part --set search.total=1000 >/dev/null 2>&1 &
  local process=$!
  await part/checkpoint.safetensors $process
  kill -9 $process
  wait $process 2>/dev/null || true
}
part_way
cp -r part other
adwp search "$small" -q -o wide --set small.channels=8 >/dev/null
cp wide/checkpoint.safetensors other/
refuses 1 'other/checkpoint.safetensors' adwp search --resume other -q
cmp wide/checkpoint.safetensors other/checkpoint.safetensors || fail "the wrong checkpoint was changed"

size=$(stat -c %s part/checkpoint.safetensors)
for place in 0 3 8 40 1000 $((size / 3)) $((size / 2)) $((size - 1)); do
  rm -rf flipped
  cp -r part flipped
  flip flipped/checkpoint.safetensors "$place"
  refuses 1 'flipped/checkpoint.safetensors' adwp search --resume flipped -q
done
for left in 0 7 100 $((size - 1)); do
  rm -rf flipped
  cp -r part flipped
  truncate -s "$left" flipped/checkpoint.safetensors
  refuses 1 'flipped/checkpoint.safetensors' adwp search --resume flipped -q
done
size=$(stat -c %s good/weights.safetensors)
for place in 2 20 $((size / 2)) $((size - 1)); do
  cp good/weights.safetensors spare
  flip good/weights.safetensors "$place"
  # A weight's bits carry no hash of their own; a broken head is an error, a broken value a worse accuracy.
  adwp eval good >/dev/null 2>stderr.txt || grep -q 'good/weights.safetensors' stderr.txt || fail "flipped weights"
  cp spare good/weights.safetensors
done
rm -rf flipped
cp -r part flipped
sed -i '1s/./x/' flipped/metrics.jsonl
refuses 1 'flipped/metrics.jsonl' adwp search --resume flipped -q
rm flipped/metrics.jsonl
refuses 1 'flipped/metrics.jsonl.*put it back, or begin again in another folder' adwp search --resume flipped -q
mkfifo flipped/metrics.jsonl
refuses 1 'flipped/metrics.jsonl: it is not a regular file' timeout 60 "$ADWP" search --resume flipped -q
mkfifo pipe.adwp
refuses 1 'pipe.adwp: it is not a regular file' timeout 60 "$ADWP" check pipe.adwp
refuses 1 'part/weights.safetensors' adwp eval part

# A second process keeps out.
"$ADWP" search "$small" -q -o busy --set search.total=100000 >/dev/null 2>&1 &
process=$!
await busy/checkpoint.safetensors $process
refuses 1 'busy' adwp search --resume busy -q
kill -9 $process
wait $process 2>/dev/null || true

# ---- the kernel cache: whatever happens to it, the run and its bytes are the same ----
entries=$(find cache -type f | LC_ALL=C sort)
[ -n "$entries" ] || fail "there is no kernel cache"
number=0
for entry in $entries; do
  size=$(stat -c %s "$entry")
  case $((number++ % 4)) in
  0) flip "$entry" $((size / 2)) ;;
  1) truncate -s $((size / 2)) "$entry" ;;
  2) : >"$entry" ;;
  3) flip "$entry" $((size - 1)) ;;
  esac
done
adwp search "$small" -q -o damaged-cache >/dev/null || fail "search with a damaged cache"
same_results good damaged-cache
warns_of_cache() { # FAULT COMMAND...: it succeeds, and one line says that the cache is not used
  local fault=$1
  shift
  "$@" >/dev/null 2>stderr.txt || fail "with a cache of which '$fault': $*"
  [ "$(grep -c 'cannot use the kernel cache' stderr.txt)" -eq 1 ] || fail "not one line on a cache of which '$fault': $*"
  grep -q "cannot use the kernel cache $scratch/.*adwp: $fault" stderr.txt || fail "no '$fault' on the cache: $*"
}
adwp search --resume good 2>stderr.txt >/dev/null
grep -q 'cannot use' stderr.txt && fail "a warning of a cache that is fine"
XDG_CACHE_HOME=$scratch/file warns_of_cache 'it cannot be made' adwp search "$small" -q -o no-cache
same_results good no-cache
mkdir open
: >open/adwp
XDG_CACHE_HOME=$scratch/open warns_of_cache 'it is not a folder' adwp eval good --json
rm open/adwp
mkdir -m 777 open/adwp
XDG_CACHE_HOME=$scratch/open warns_of_cache 'other users can write into it' adwp eval good --sample 2
XDG_CACHE_HOME=$scratch/open warns_of_cache 'other users can write into it' adwp profile "$small" --step=eval --steps=1
[ -z "$(ls open/adwp)" ] || fail "a cache that must not be used is"
for entry in $entries; do mkdir -p "taken/${entry#cache/}"; done # where root cannot write either
XDG_CACHE_HOME=$scratch/taken warns_of_cache 'it cannot be written' adwp search "$small" -q -o no-entry
same_results good no-entry
env -u XDG_CACHE_HOME -u HOME "$ADWP" search "$small" -q -o homeless >/dev/null || fail "search without a home"
same_results good homeless
