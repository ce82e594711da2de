#!/usr/bin/env bash
# Run one command on all workers of a Cloud TPU slice, or of several slices.
#
#   launch/tpu_pod.sh watch --name=pod --zone=us-west4-a --type=v5litepod-16 --delete-when-done \
#     -- nutime pretrain --config=nutime_paper --workdir=gs://BUCKET/base
#   launch/tpu_pod.sh watch --name=pod --zone=us-east5-a --type=v6e-64 --capacity=queued-spot --copy=mine.py \
#     -- nutime pretrain --config=mine.py --workdir=gs://BUCKET/mine
#
# create   create the slice
# install  install this checkout on all workers, as a wheel, and copy the files of --copy
# run      install, and start the command on all workers, with one log per worker
# status   print the state of the slice, and of the run on each worker
# logs     print the end of each log; with --fetch=DIR download all logs, one file per worker
# stop     send SIGTERM to the run: it saves its state and exits with 75
# watch    do all of this until the run is done: create the slice if there is none, or again after a preemption, install, and
#          start the same command again after a preemption, a hang or a kill (not after status 0, 2, 3, 130)
# delete   delete the slice; costs end only here and with --delete-when-done
#
# The command starts with nutime or python, in a folder with the files of --copy. `nutime pretrain` also gets --multihost=auto.
#
# --name, --zone, --project   of the slice (also NUTIME_TPU, ZONE, PROJECT)
# --type       accelerator type (default: v5litepod-16)
# --version    runtime version (default: that of the type)
# --capacity   demand, spot, queued or queued-spot (default: spot)
# --slices     number of slices; more than 1 need a queued capacity (default: 1)
# --copy       file or folder to copy to each worker; repeatable
# --create     flag for the command that creates the slice, as --create=--network=mine; repeatable
# --ssh        flag for ssh and scp, as --ssh=--internal-ip, or --ssh=--tunnel-through-iap with a queued capacity; repeatable
# --wheel      wheel to install (default: built from this checkout)
# --cache      folder of compiled programs on the workers, or gs://BUCKET/FOLDER (default: ~/nutime/compilations)
# --every      seconds between two checks of watch (default: 60)
# --restarts   maximum starts of watch after exits with another status than 75 (default: 20)
# --lines      number of lines of each log (default: 20)
# --delete-when-done   with watch: delete the slice when the run has ended
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

name=${NUTIME_TPU-} zone=${ZONE-} project=${PROJECT-} type=v5litepod-16 version='' capacity=spot slices=1
wheel='' cache='' every=60 restarts=20 lines=20 fetch='' delete_when_done='' dry_run=''
copies=() create_flags=() ssh_flags=()
while (($#)); do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --capacity=*) capacity=${1#*=} ;;
    --slices=*) slices=${1#*=} ;;
    --copy=*) copies+=("${1#*=}") ;;
    --create=*) create_flags+=("${1#*=}") ;;
    --ssh=*) ssh_flags+=("${1#*=}") ;;
    --wheel=*) wheel=${1#*=} ;;
    --cache=*) cache=${1#*=} ;;
    --every=*) every=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --lines=*) lines=${1#*=} ;;
    --fetch=*) fetch=${1#*=} ;;
    --delete-when-done) delete_when_done=1 ;;
    --dry-run) dry_run=1 ;;
    --) shift; break ;;
    *) refuse "$1 is unknown; write the command after --, and see --help" ;;
  esac
  shift
done
[[ -n $name && -n $zone ]] || refuse "the slice has no name or no zone; add --name and --zone"
[[ $capacity =~ ^(demand|spot|queued|queued-spot)$ ]] || refuse "--capacity is $capacity; choose demand, spot, queued or queued-spot"
[[ $restarts =~ ^[0-9]+$ && $lines =~ ^[0-9]+$ ]] || refuse "--restarts is $restarts and --lines is $lines; write whole numbers"
[[ $slices =~ ^[1-9][0-9]*$ ]] || refuse "--slices is $slices; write a whole number above 0"
[[ $slices == 1 || $capacity == queued* ]] || refuse "--slices=$slices needs --capacity=queued or --capacity=queued-spot"
for path in "${copies[@]}"; do
  [[ -e $path ]] || refuse "--copy=$path does not exist; write the path of a file or folder"
done
if [[ -z $version ]]; then
  case $type in
    v6e-*) version=v2-alpha-tpuv6e ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v2-* | v3-* | v4-*) version=tpu-ubuntu2204-base ;;
    *) refuse "the runtime version of --type=$type is unknown; add --version" ;;
  esac
fi

# A command line that a shell reads as these words.
quote() {
  local word words=()
  for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] && words+=("$word") || words+=("${word@Q}")
  done
  echo "${words[*]}"
}
command=''
if (($#)); then
  [[ $1 == nutime || $1 == python ]] || refuse "the command starts with $1; write nutime or python, which are those of the workers"
  [[ "$1 ${2-}" != 'nutime pretrain' ]] || set -- "$@" --multihost=auto
  command=$(quote "$@")
elif [[ $action == run || $action == watch ]]; then
  refuse "there is no command; write it after --, as -- nutime pretrain --config=nutime_paper --workdir=gs://BUCKET/base"
fi
at=("--zone=$zone" ${project:+"--project=$project"})
worker=tpu_worker.sh
# A queued resource reaches all workers of all its slices.
if [[ $capacity == queued* ]]; then kind=queued-resources all=(--node=all --worker=all); else kind=tpu-vm all=(--worker=all); fi
if ((slices > 1)); then nodes=$(seq -f "$name-%g" 0 $((slices - 1))); else nodes=$name; fi

do_() {
  if [[ -n $dry_run ]]; then
    echo "+ $(quote "$@")"
  else
    "$@"
  fi
}
tpu() { do_ gcloud compute tpus "$@" "${at[@]}" --quiet; }
everywhere() { tpu "$kind" ssh "$name" "${all[@]}" "${ssh_flags[@]}" "--command=$1" "${@:2}"; }

create() {
  local flags=("${create_flags[@]}")
  [[ $capacity != *spot ]] || flags+=(--spot)
  if [[ $capacity != queued* ]]; then
    tpu tpu-vm create "$name" "--accelerator-type=$type" "--version=$version" "${flags[@]}"
  else
    if ((slices > 1)); then flags+=("--node-count=$slices" "--node-prefix=$name"); else flags+=("--node-id=$name"); fi
    tpu queued-resources create "$name" "--accelerator-type=$type" "--runtime-version=$version" "${flags[@]}"
  fi
}

# Creates the slice. A lack of capacity is retried by the caller; an error that stays the same ends the script.
create_or_stop() {
  local errors status=0 permanent='unrecognized arguments|INVALID_ARGUMENT|PERMISSION_DENIED|UNAUTHENTICATED|NOT_FOUND|[Qq]uota'
  [[ -z $dry_run ]] || { create; return; }
  errors=$(mktemp)
  create 2>"$errors" || status=$?
  cat "$errors" >&2
  if ((status)) && ! grep -qi 'no more capacity' "$errors" && grep -qE "$permanent" "$errors"; then
    rm -f "$errors"
    refuse "the slice cannot be created; fix the error above, and run the command again"
  fi
  rm -f "$errors"
  return "$status"
}

delete() {
  if [[ $capacity == queued* ]]; then
    tpu queued-resources delete "$name" --force
  else
    tpu tpu-vm delete "$name"
  fi
}

# Builds the wheel once, from the commit: after a preemption the same wheel is installed.
build() {
  [[ -z $wheel ]] || return 0
  folder=FOLDER
  [[ -n $dry_run ]] || { folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; }
  do_ git clone --quiet "$root" "$folder/source"
  do_ python3 -m pip wheel --quiet --no-deps "--wheel-dir=$folder" "$folder/source"
  if [[ -n $dry_run ]]; then wheel=$folder/nutime_jax-VERSION-py3-none-any.whl; else wheel=$(echo "$folder"/nutime_jax-*.whl); fi
}

install() {
  local path names=("$(basename "$wheel")")
  for path in "${copies[@]}"; do names+=("$(basename "$path")"); done
  tpu "$kind" scp "$wheel" "$root/launch/$worker" "${copies[@]}" "$name:" "${all[@]}" "${ssh_flags[@]}" --recurse || return
  everywhere "bash $worker install $(quote "${names[@]}")"
}

start() { everywhere "bash $worker start $(quote "$cache") $command"; }

# Prints one line per worker, see tpu_worker.sh.
worker_states() {
  local ask="bash $worker state $command || echo nutime-state: absent"
  if [[ -n $dry_run ]]; then
    everywhere "$ask"
  else
    everywhere "$ask" 2>/dev/null | sed -n 's/^.*nutime-state: //p'
  fi
}

# Prints the state of the slice: READY, or the first other state; NONE if it does not exist, UNKNOWN if there is no answer.
slice_state() {
  local state node
  if [[ $capacity == queued* ]]; then
    state=$(ask queued-resources describe "$name" '--format=value(state.state)')
    [[ $state == ACTIVE ]] || { echo "$state"; return; }
  fi
  for node in $nodes; do
    state=$(ask tpu-vm describe "$node" '--format=value(state)')
    [[ $state == READY ]] || break
  done
  echo "$state"
}

ask() {
  local answer errors
  errors=$(mktemp)
  if answer=$(tpu "$@" 2>"$errors"); then
    echo "$answer"
  elif grep -qiE 'NOT_FOUND|not found' "$errors"; then
    echo NONE
  else
    printf 'tpu_pod: %s\n' "$(tail -n 1 "$errors")" >&2
    echo UNKNOWN
  fi
  rm -f "$errors"
}

# Combines the states of the workers: start, running, ending (some failed, others run), failed, stopped, or a final status.
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
  local state states now before='' last='' failures=0 retry="that failed; next attempt in $every s"
  build
  if [[ -n $dry_run ]]; then
    say "if there is no slice:"; create
    say "when it is ready and the command does not run:"; install; start
    say "every $every s:"
    [[ $capacity != queued* ]] || tpu queued-resources describe "$name" '--format=value(state.state)'
    tpu tpu-vm describe "${nodes%%$'\n'*}" '--format=value(state)'; worker_states
    say "after a preemption, before it is created again:"; delete
    say "after status 75, 4 or a kill: the command above again"
    return
  fi
  while :; do
    state=$(slice_state) now=''
    case $state in
      NONE) say "there is no slice; creating it"; create_or_stop || say "$retry" ;;
      PREEMPTED | TERMINATED | STOPPED | SUSPENDED | FAILED)
        say "the slice is $state; creating it again"
        { delete && create_or_stop; } || say "$retry" ;;
      READY)
        states=$(worker_states) || states='' # not every worker has answered
        now=$(verdict "$states")
        [[ $now != ending || $before != ending ]] || now=failed # the other workers had time to exit
        [[ $now == "$before" ]] || say "the slice is ready; the run: $now"
        case $now in
          start) { install && start; } || say "$retry" ;;
          [0-9]*) say "the run ended with $now"; finish; return "$now" ;;
          stopped) say "starting again"; start || say "$retry" ;;
          failed)
            ((failures++ < restarts)) || { say "the run failed $failures times; giving up"; finish; return 1; }
            logs || true
            say "starting again ($failures of at most $restarts)"; start || say "$retry" ;;
        esac ;;
      *) [[ $state == "$last" ]] || say "the slice is $state" ;;
    esac
    before=$now last=$state
    sleep "$every"
  done
}

finish() {
  logs || true
  [[ -z $delete_when_done ]] || { say "deleting the slice"; delete; }
}

logs() {
  if [[ -n $fetch ]]; then
    do_ mkdir -p "$fetch"
    everywhere "bash $worker log" "--output-directory=$fetch"
  else
    everywhere "bash $worker log $lines"
  fi
}

say "commit $(git -C "$root" describe --always --dirty 2>/dev/null || echo unknown); slice $name ($slices x $type, $version, $capacity) in $zone"
[[ -z $command ]] || say "command $command"
case $action in
  install) build; install ;;
  run) build; install; start ;;
  status) [[ -n $dry_run ]] || say "the slice is $(slice_state)"; worker_states ;;
  stop) everywhere "bash $worker stop" ;;
  *) "$action" ;;
esac
