#!/usr/bin/env bash
# One worker of a slice: tpu_pod.sh copies this file to each worker and calls it there.
#
#   bash tpu_worker.sh install WHEEL [FILE...]   install the wheel; move the files, which are in the home folder, to ~/nutime
#   bash tpu_worker.sh start CACHE COMMAND...    start in ~/nutime, as a background process group that outlives the connection
#   bash tpu_worker.sh state [COMMAND...]        absent (this command never started), running, lost (exited without a status), or the status
#   bash tpu_worker.sh stop                      send SIGTERM
#   bash tpu_worker.sh log [LINES]               print the end of the log, or all of it
set -euo pipefail

mkdir -p ~/nutime
cd ~/nutime
alive() { kill -0 -- "-$(cat pid)" 2>/dev/null; }

action=$1
shift
case $action in
  install) # the Python of the images is too old; uv downloads another
    for file in "${@:2}"; do
      rm -rf "./$file"
      mv "$HOME/$file" .
    done
    python3 -m pip install --user --quiet uv
    python3 -m uv venv --quiet --clear --python=3.12 venv
    python3 -m uv pip install --quiet --python=venv/bin/python "$HOME/$1[train,tpu,gcs]"
    ;;
  start)
    [[ ! -f pid ]] || kill -KILL -- "-$(cat pid)" 2>/dev/null || true
    rm -f status
    export JAX_COMPILATION_CACHE_DIR=${1:-$HOME/nutime/compilations} PATH=$HOME/nutime/venv/bin:$PATH
    shift
    printf '%s\n' "$*" >begun
    printf -- '--- %s: %s\n' "$(date -u +%FT%TZ)" "$*" >>log
    # The group gets SIGTERM when the machine is taken away: the shell that writes the status must outlive the run.
    # shellcheck disable=SC2016
    setsid nohup bash -c 'trap : TERM; "$@" >>log 2>&1; echo $? >status.new; mv status.new status' run "$@" </dev/null >/dev/null 2>&1 &
    echo $! >pid
    ;;
  state)
    if [[ ! -f pid ]] || { (($#)) && [[ $(cat begun) != "$*" ]]; }; then state=absent
    elif [[ -f status ]]; then state=$(cat status)
    elif alive; then state=running
    else state=lost
    fi
    echo "nutime-state: $state"
    ;;
  stop) kill -TERM -- "-$(cat pid)" ;;
  log) tail -n "${1:-+1}" log ;;
esac
