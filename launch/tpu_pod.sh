#!/usr/bin/env bash
# A Cloud TPU slice: made, given the identical command on all its workers, looked after, and deleted.
#
#   launch/tpu_pod.sh watch --name=pod --zone=us-west4-a --type=v5litepod-16 --capacity=spot \
#     -- nutime pretrain --config=nutime_base --workdir=/mnt/runs/base
#
# create   make the slice
# install  put this checkout on all workers, as a wheel that knows its commit
# run      start the command on all workers, each with a log of its own; --multihost=auto is added
# status   state of the slice, and of the run on each worker
# logs     the end of every log; with --fetch=DIR all of them, a file a worker
# stop     SIGTERM to the run: it saves its state and ends with 75
# watch    all of it until the run is done: makes the slice where there is none, deletes and makes it anew when it was
#          preempted, installs, and gives the identical command again after a preemption, a hang or a kill (not after 0, 2, 3, 130)
# delete   delete the slice; nothing else does, so nothing else ends its costs
#
# --name, --zone, --project   of the slice (also NUTIME_TPU, ZONE, PROJECT)
# --type       accelerator type (default: v5litepod-16)
# --version    runtime version (default: v2-alpha-tpuv5-lite)
# --capacity   demand, spot, queued or queued-spot (default: spot)
# --create     one more flag for the command that makes the slice, say --create=--network=mine; may be given several times
# --wheel      a wheel to install (default: one is built from this checkout)
# --cache      folder of compiled programs on the workers (default: ~/nutime/compilations)
# --every      seconds between two looks of watch (default: 60)
# --restarts   how often watch starts a run that ended by itself with another status than 75 (default: 20)
# --lines      how many lines of a log (default: 20)
# --dry-run    print the commands, and call nothing
set -euo pipefail

say() { printf 'tpu_pod: %s\n' "$*"; }
refuse() { printf 'tpu_pod: %s\n' "$*" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)

action=${1-}
case $action in
  create | install | run | status | logs | stop | watch | delete) shift ;;
  -h | --help | '') sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"; exit 0 ;;
  *) refuse "$action is unknown; choose create, install, run, status, logs, stop, watch or delete" ;;
esac

name=${NUTIME_TPU-} zone=${ZONE-} project=${PROJECT-} type=v5litepod-16 version=v2-alpha-tpuv5-lite capacity=spot more=()
wheel='' cache='' every=60 restarts=20 lines=20 fetch='' dry_run=''
while (($#)); do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --capacity=*) capacity=${1#*=} ;;
    --create=*) more+=("${1#*=}") ;;
    --wheel=*) wheel=${1#*=} ;;
    --cache=*) cache=${1#*=} ;;
    --every=*) every=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --lines=*) lines=${1#*=} ;;
    --fetch=*) fetch=${1#*=} ;;
    --dry-run) dry_run=1 ;;
    --) shift; break ;;
    *) refuse "$1 is unknown; write the command after --, and see --help" ;;
  esac
  shift
done
[[ -n $name && -n $zone ]] || refuse "the slice has no name or no zone; give --name and --zone"
[[ $capacity =~ ^(demand|spot|queued|queued-spot)$ ]] || refuse "--capacity is $capacity; choose demand, spot, queued or queued-spot"
[[ $restarts =~ ^[0-9]+$ && $lines =~ ^[0-9]+$ ]] || refuse "--restarts is $restarts and --lines is $lines; give whole numbers"
# As one would type it.
quote() {
  local word words=()
  for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] && words+=("$word") || words+=("${word@Q}")
  done
  echo "${words[*]}"
}
command=''
if (($#)); then
  [[ $1 == nutime ]] || refuse "the command begins with $1; write nutime, which is that of the workers"
  command=$(quote "$@" --multihost=auto)
elif [[ $action == run || $action == watch ]]; then
  refuse "there is no command; write it after --, say: -- nutime pretrain --config=nutime_base --workdir=DIR"
fi
at=("--zone=$zone" ${project:+"--project=$project"})
worker=tpu_worker.sh

do_() {
  if [[ -n $dry_run ]]; then
    echo "+ $(quote "$@")"
  else
    "$@"
  fi
}
tpu() { do_ gcloud compute tpus "$@" "${at[@]}" --quiet; }
everywhere() { tpu tpu-vm ssh "$name" --worker=all "--command=$1" "${@:2}"; }

create() {
  local spot=()
  [[ $capacity != *spot ]] || spot=(--spot)
  if [[ $capacity == queued* ]]; then
    tpu queued-resources create "$name" "--node-id=$name" "--accelerator-type=$type" "--runtime-version=$version" "${spot[@]}" "${more[@]}"
  else
    tpu tpu-vm create "$name" "--accelerator-type=$type" "--version=$version" "${spot[@]}" "${more[@]}"
  fi
}

delete() {
  if [[ $capacity == queued* ]]; then
    tpu queued-resources delete "$name" --force
  else
    tpu tpu-vm delete "$name"
  fi
}

# Builds the wheel once, of what is committed: what is installed after a preemption is what was installed before.
build() {
  [[ -z $wheel ]] || return 0
  folder=FOLDER
  [[ -n $dry_run ]] || { folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; }
  do_ git clone --quiet "$root" "$folder/source"
  do_ python3 -m pip wheel --quiet --no-deps "--wheel-dir=$folder" "$folder/source"
  if [[ -n $dry_run ]]; then wheel=$folder/nutime_jax-VERSION-py3-none-any.whl; else wheel=$(echo "$folder"/nutime_jax-*.whl); fi
}

install() {
  tpu tpu-vm scp "$wheel" "$root/launch/$worker" "$name:" --worker=all || return
  everywhere "bash $worker install $(basename "$wheel")"
}

start() { everywhere "bash $worker start $(quote "$cache") $command"; }

# One line a worker, see tpu_worker.sh.
worker_states() {
  local ask="bash $worker state $command || echo nutime-state: absent"
  if [[ -n $dry_run ]]; then
    everywhere "$ask"
  else
    everywhere "$ask" 2>/dev/null | sed -n 's/^.*nutime-state: //p'
  fi
}

# The state of the slice: READY, or why it is not; NONE if there is none, and UNKNOWN if nobody says.
slice_state() {
  local state
  if [[ $capacity == queued* ]]; then
    state=$(ask queued-resources describe "$name" '--format=value(state.state)')
    [[ $state == ACTIVE ]] || { echo "$state"; return; }
  fi
  ask tpu-vm describe "$name" '--format=value(state)'
}

ask() {
  local said errors
  errors=$(mktemp)
  if said=$(tpu "$@" 2>"$errors"); then
    echo "$said"
  elif grep -qiE 'NOT_FOUND|not found' "$errors"; then
    echo NONE
  else
    printf 'tpu_pod: %s\n' "$(tail -n 1 "$errors")" >&2
    echo UNKNOWN
  fi
  rm -f "$errors"
}

# What the states of the workers mean together: start, running, ending (some failed, others run), failed, stopped, or a final status.
verdict() {
  local states=$1
  if [[ -z $states ]]; then echo unknown
  elif grep -qx absent <<<"$states"; then echo start
  elif grep -qxE '2|3|130' <<<"$states"; then grep -m1 -xE '2|3|130' <<<"$states"
  elif ! grep -qvx 0 <<<"$states"; then echo 0
  elif ! grep -qvxE '0|running' <<<"$states"; then echo running
  elif grep -qx running <<<"$states"; then echo ending
  elif ! grep -qvxE '0|75' <<<"$states"; then echo stopped
  else echo failed
  fi
}

watch() {
  local state states now before='' last='' failures=0 again="that did not work; tried again in $every s"
  build
  if [[ -n $dry_run ]]; then
    say "when there is no slice:"; create
    say "when it is ready and the command does not run:"; install; start
    say "every $every s:"
    [[ $capacity != queued* ]] || tpu queued-resources describe "$name" '--format=value(state.state)'
    tpu tpu-vm describe "$name" '--format=value(state)'; worker_states
    say "when it was preempted, before it is made anew:"; delete
    say "when the run ended with 75, 4 or a kill: the command above once more"
    return
  fi
  while :; do
    state=$(slice_state) now=''
    case $state in
      NONE) say "there is no slice; it is made"; create || say "$again" ;;
      PREEMPTED | TERMINATED | STOPPED | SUSPENDED | FAILED)
        say "the slice is $state; it is made anew"
        { delete && create; } || say "$again" ;;
      READY)
        states=$(worker_states) || states='' # not every worker has answered
        now=$(verdict "$states")
        [[ $now != ending || $before != ending ]] || now=failed # the others had time to end by themselves
        [[ $now == "$before" ]] || say "the slice is ready; the run: $now"
        case $now in
          start) { install && start; } || say "$again" ;;
          [0-9]*) say "the run ended with $now"; logs || true; return "$now" ;;
          stopped) say "once more"; start || say "$again" ;;
          failed)
            logs || true
            ((failures++ < restarts)) || { say "started $restarts times more; that is enough"; return 1; }
            say "once more ($failures of at most $restarts)"; start || say "$again" ;;
        esac ;;
      *) [[ $state == "$last" ]] || say "the slice is $state" ;;
    esac
    before=$now last=$state
    sleep "$every"
  done
}

logs() {
  if [[ -n $fetch ]]; then
    do_ mkdir -p "$fetch"
    everywhere "bash $worker log" "--output-directory=$fetch"
  else
    everywhere "bash $worker log $lines"
  fi
}

say "commit $(git -C "$root" describe --always --dirty 2>/dev/null || echo unknown); slice $name ($type, $capacity) in $zone"
[[ -z $command ]] || say "command $command"
case $action in
  install) build; install ;;
  run) build; install; start ;;
  status) [[ -n $dry_run ]] || say "the slice is $(slice_state)"; worker_states ;;
  stop) everywhere "bash $worker stop" ;;
  *) "$action" ;;
esac
