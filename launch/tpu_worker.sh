#!/usr/bin/env bash
# One worker of a slice: tpu_pod.sh copies this file to all of them, and calls it there.
#
#   bash tpu_worker.sh install WHEEL
#   bash tpu_worker.sh start CACHE COMMAND...    in the background, as a process group of its own that outlives the connection
#   bash tpu_worker.sh state [COMMAND...]        absent (this command never began), running, lost (gone, and left no status), or the status
#   bash tpu_worker.sh stop                      SIGTERM
#   bash tpu_worker.sh log [LINES]               the end of the log, or all of it
set -euo pipefail

mkdir -p ~/nutime
cd ~/nutime
alive() { kill -0 -- "-$(cat pid)" 2>/dev/null; }

action=$1
shift
case $action in
  install) # the images bring an older Python than is needed: uv brings its own
    python3 -m pip install --user --quiet uv
    python3 -m uv venv --quiet --clear --python=3.12 venv
    python3 -m uv pip install --quiet --python=venv/bin/python "$HOME/$1[tpu,gcs]"
    ;;
  start)
    [[ ! -f pid ]] || kill -KILL -- "-$(cat pid)" 2>/dev/null || true
    rm -f status
    export JAX_COMPILATION_CACHE_DIR=${1:-$HOME/nutime/compilations} PATH=$HOME/nutime/venv/bin:$PATH
    shift
    printf '%s\n' "$*" >begun
    printf -- '--- %s: %s\n' "$(date -u +%FT%TZ)" "$*" >>log
    # The group gets SIGTERM when the machine is taken away: whoever writes the status has to live on until the run has ended.
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
