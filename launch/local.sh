#!/usr/bin/env bash
# Run a command on this machine, with all its devices; after a preemption, a hang or a kill run the same command again.
#
#   launch/local.sh [--restarts=100] [--pause=10] [--log=FILE] [--dry-run] -- nutime pretrain --config=quickstart --workdir=runs/mine
#
# --restarts  maximum number of restarts (default: 100)
# --pause     seconds before the first restart; doubled after each run of less than ten minutes, up to 5 minutes (default: 10)
# --log       file to which the output is also written (default: runs/local.log)
# --dry-run   print the command, and run nothing
#
# The command is run again after exit status 75 (preempted, state saved), 4 (hung) and those of a kill; not after 0, 1, 2, 3 and
# 130. SIGTERM and Ctrl-C reach the run as SIGTERM: it saves its state, exits with 75, and is not started again.
# JAX_COMPILATION_CACHE_DIR is the folder of compiled programs (default: ~/.cache/nutime/compilations).
set -euo pipefail

say() { printf 'local: %s\n' "$*"; }
refuse() { printf 'local: %s\n' "$*" >&2; exit 2; }

restarts=100 pause=10 log=runs/local.log dry_run=
while (($#)); do
  case $1 in
    --restarts=*) restarts=${1#*=} ;;
    --pause=*) pause=${1#*=} ;;
    --log=*) log=${1#*=} ;;
    --dry-run) dry_run=1 ;;
    -h | --help) sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    --) shift; break ;;
    *) refuse "$1 is unknown; write the command after --, and see --help" ;;
  esac
  shift
done
(($#)) || refuse "there is no command; write it after --, as -- nutime pretrain --config=quickstart --workdir=runs/mine"
[[ $restarts =~ ^[0-9]+$ && $pause =~ ^[0-9]+$ ]] || refuse "--restarts is $restarts and --pause is $pause; write whole numbers"

export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/nutime/compilations}
commit=$(git -C "$(dirname "$0")" describe --always --dirty 2>/dev/null || echo unknown)
say "commit $commit; log $log; compiled programs $JAX_COMPILATION_CACHE_DIR"
printf -v line '%q ' "$@"
say "command ${line% }"
[[ -z $dry_run ]] || { say "this was a dry run"; exit 0; }

mkdir -p "$(dirname "$log")"
printf -- '--- %s, commit %s: %s\n' "$(date -u +%FT%TZ)" "$commit" "$line" >>"$log"
child='' stopped='' first=$pause
trap 'stopped=1; [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true' TERM INT
for ((number = 0; ; number++)); do
  began=$SECONDS status=0
  "$@" > >(trap '' INT TERM; exec tee -a "$log") 2>&1 &
  child=$!
  wait "$child" || status=$?
  if [[ -n $stopped ]]; then # the signal ended the wait, not the run
    status=0
    wait "$child" || status=$?
  fi
  say "ended with $status after $((SECONDS - began)) s" | tee -a "$log"
  if [[ -n $stopped ]] || ! ((status == 75 || status == 4 || (status > 128 && status != 130))); then
    exit "$status"
  fi
  ((number < restarts)) || { say "restarted $restarts times; giving up"; exit "$status"; }
  ((SECONDS - began < 600)) || pause=$first
  say "starting again in $pause s ($((number + 1)) of at most $restarts)" | tee -a "$log"
  sleep "$pause" &
  wait $! || true
  [[ -z $stopped ]] || exit "$status"
  pause=$((pause * 2 > 300 ? 300 : pause * 2))
done
