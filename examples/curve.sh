#!/usr/bin/env bash
# bash examples/curve.sh RUN: the curve of a run, from its metrics.jsonl, as text. A bar is the accuracy: on the validation images
# where an epoch has one, else on the training images.
set -euo pipefail

awk '
  function value(key,    at, rest) { # of a JSON object on one line; "" where it has no such key
    at = index($0, "\"" key "\":")
    if (!at) return ""
    rest = substr($0, at + length(key) + 3)
    sub(/[,}].*/, "", rest)
    gsub(/"/, "", rest)
    return rest
  }
  BEGIN { printf "%5s  %-6s  %8s  %8s  %8s\n", "epoch", "stage", "loss", "train", "valid" }
  value("kind") == "epoch" {
    valid = value("valid_accuracy")
    shown = valid == "" ? value("accuracy") : valid
    bar = sprintf("%*s", shown * 50, "")
    gsub(/ /, valid == "" ? "-" : "#", bar)
    printf "%5d  %-6s  %8.4f  %6.1f %%  %8s  %s%s\n", value("epoch") + 1, value("stage"), value("loss"), 100 * value("accuracy"),
      valid == "" ? "" : sprintf("%.1f %%", 100 * valid), bar, value("best") == "true" ? " best so far" : ""
  }' "${1:?which run folder?}/metrics.jsonl"
