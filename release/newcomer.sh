#!/usr/bin/env bash
# What a newcomer does with the README alone, in an empty folder with an environment of its own, each command timed:
# install, serve, log, look, and go on with a database that `mlflow server` made. One argument: the clone. The port is a
# free one in place of the README's 5000, which another server may have.
set -euo pipefail
clone=$(realpath "${1:-.}")
folder=$(mktemp -d)
cd "$folder"
trap 'kill "${server:-}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$folder"' EXIT
port=$(python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
export MLFLOW_TRACKING_URI=http://localhost:$port
python3 -m venv environment
export PATH="$folder/environment/bin:$PATH"

timed() {  # NAME COMMAND...: how long it took
    local name=$1 begin=$EPOCHREALTIME
    shift
    "$@" >"$folder/log" 2>&1 || { cat "$folder/log" >&2; echo "$name: failed" >&2; exit 1; }
    printf '%-60s %7.1f s\n' "$name" "$(python3 -c "print($EPOCHREALTIME - $begin)")"
}

serve() {  # OPTIONS...: until it answers
    headrace serve --port "$port" "$@" >"$folder/server" 2>&1 &
    server=$!
    until curl -sf "$MLFLOW_TRACKING_URI/ready" >/dev/null; do
        kill -0 "$server" || { cat "$folder/server"; return 1; }
        sleep 0.1
    done
}

stop() { kill "$server"; wait "$server" || true; }

look() {  # grep reads to the end: with -q it closes the pipe at the first hit, and who still writes fails
    curl -sf "$MLFLOW_TRACKING_URI/" | grep '<title>MLflow' &&
        headrace usage --backend-store-uri "$1" | grep churn-ada
}

timed "pip install ." pip install -q "$clone"
timed "headrace serve, until it answers" serve
# shellcheck disable=SC2016  # they are README's marks, not ours
sed -n '/^```python$/,/^```$/p' "$clone/README.md" | sed '1d;$d' >shown.py
sed "s|http://localhost:5000|$MLFLOW_TRACKING_URI|" shown.py >readme.py
timed "the README's script, 100 metrics" python3 readme.py
timed "the UI's page, headrace usage" look sqlite:///headrace-data/mlflow.db
stop
python3 - <<'PYTHON'  # not timed: a database that stock has made and written
import mlflow
mlflow.set_tracking_uri("sqlite:///old.db")
mlflow.set_experiment("churn-ada")
with mlflow.start_run():
    mlflow.log_metric("Validation LogLoss", 0.5)
PYTHON
timed "headrace serve on a database of MLflow's, until it answers" serve --backend-store-uri sqlite:///old.db
timed "its experiments" look sqlite:///old.db
stop
