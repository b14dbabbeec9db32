#!/usr/bin/env bash
# `make demo`: a real prompt flow server behind flowtap, real questions, and what flowtap saw of them.
# Serves until Ctrl-C; with --once it ends after the checks, with 0 if all held. With --judge a small
# language model judges the samples, too. Ports: DEMO_PORT, DEMO_ADMIN_PORT, DEMO_FLOW_PORT,
# DEMO_JUDGE_PORT. Writes below target/, .cache/ and flowtap-data/ only.

set -euo pipefail
set -m # each server gets a process group of its own, and Ctrl-C reaches this script alone
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export DEMO_PORT=${DEMO_PORT:-8080} DEMO_ADMIN_PORT=${DEMO_ADMIN_PORT:-9464}
export DEMO_FLOW_PORT=${DEMO_FLOW_PORT:-9000} DEMO_DATA=$PWD/flowtap-data/demo
export DEMO_JUDGE_PORT=${DEMO_JUDGE_PORT:-9001}
LOGS=$DEMO_DATA/logs
source tests/peers/venv.sh

once='' judge=''
for word in "$@"; do
    case $word in
    --once) once=yes ;;
    --judge) judge=yes ;;
    *)
        echo "demo: $word is unknown; allowed: --once, --judge" >&2
        exit 64
        ;;
    esac
done

STEPS=6
step() { printf '[%d/%d] %s\n' "$1" "$STEPS" "$2"; }

servers=()
end_servers() {
    local pid
    trap - EXIT INT TERM
    exec 2>/dev/null # bash would tell how each server ended
    for ((i = ${#servers[@]} - 1; i >= 0; i--)); do # flowtap first, so that it can drain
        pid=${servers[i]}
        kill -TERM -- "-$pid" 2>/dev/null || continue
        for _ in {1..100}; do
            kill -0 -- "-$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL -- "-$pid" 2>/dev/null || true
    done
}
trap end_servers EXIT
trap 'echo; echo "stopping ..."; exit 0' INT TERM

# start NAME COMMAND...: in the background, its output in the demo's logs.
start() {
    local name=$1
    shift
    "$@" >"$LOGS/$name.log" 2>&1 </dev/null &
    servers+=($!)
}

# await NAME URL SECONDS: until the server last started answers; tells its last words if it does not.
await() {
    local name=$1 url=$2 limit=$3 begun=$SECONDS pid=${servers[-1]}
    until "$python" deploy/demo/ask.py up "$url"; do
        if ! kill -0 "$pid" 2>/dev/null || ((SECONDS - begun > limit)); then
            printf '%s did not come up within %s s; the end of %s:\n' "$name" "$limit" "$LOGS/$name.log" >&2
            tail -n 20 "$LOGS/$name.log" >&2
            exit 1
        fi
        sleep 0.3
    done
}

python=$(peers_python)
if ! command -v cargo >/dev/null; then
    echo "flowtap is built with Rust (1.95 or newer); cargo was not found." >&2
    exit 1
fi
"$python" deploy/demo/ask.py free DEMO_PORT DEMO_ADMIN_PORT DEMO_FLOW_PORT ${judge:+DEMO_JUDGE_PORT}

step 1 "building flowtap (the first time takes 5 to 10 minutes) ..."
web/build.sh
if [[ -t 2 ]]; then # someone watches: show the compiler's progress
    cargo build --locked
else
    cargo build --locked --quiet
fi
flowtap=${CARGO_TARGET_DIR:-target}/debug/flowtap

step 2 "installing prompt flow (the first time takes a minute or two) ..."
tests/peers/promptflow.sh
if [[ $judge ]]; then
    tests/peers/llm.sh
fi

rm -rf "$DEMO_DATA"
mkdir -p "$LOGS"

step 3 "starting a prompt flow server on port $DEMO_FLOW_PORT ..."
mapfile -t quiet < <(tests/peers/promptflow.sh env)
start promptflow env "${quiet[@]}" .cache/peers/promptflow/bin/pf flow serve --source examples/flows/qa_stream \
    --host 127.0.0.1 --port "$DEMO_FLOW_PORT" --engine fastapi --skip-open-browser
await promptflow "http://127.0.0.1:$DEMO_FLOW_PORT/health" 300

if [[ $judge ]]; then
    start judge .cache/peers/llm/bin/python -m llama_cpp.server --host 127.0.0.1 --port "$DEMO_JUDGE_PORT" \
        --model "$(tests/peers/llm.sh model)" --model_alias smollm2-135m --n_ctx 2048 \
        --n_threads 1 --n_threads_batch 1 --interrupt_requests false
    await judge "http://127.0.0.1:$DEMO_JUDGE_PORT/v1/models" 300
    export FLOWTAP_JUDGE__URL=http://127.0.0.1:$DEMO_JUDGE_PORT FLOWTAP_JUDGE__MODEL=smollm2-135m
    export FLOWTAP_JUDGE__MAX_TOKENS=40 FLOWTAP_JUDGE__CONCURRENCY=1 FLOWTAP_EVALUATE__CRITERIA='[fluency]'
fi

step 4 "starting flowtap on port $DEMO_PORT before it ..."
start flowtap "$flowtap" run --config examples/demo.yaml
await flowtap "http://127.0.0.1:$DEMO_ADMIN_PORT/readyz" 30

step 5 "asking questions ..."
"$python" deploy/demo/ask.py ask

step 6 "what flowtap saw:"
"$python" deploy/demo/ask.py show

if [[ $once ]]; then
    echo "all checks held"
    exit 0
fi
cat <<END

Still serving. Ask yourself, then look again:
    curl http://127.0.0.1:$DEMO_PORT/score -d '{"question": "Is the tent waterproof?"}'
Ctrl-C ends flowtap and the prompt flow server.
END
wait -n "${servers[@]}" || true
echo "a server ended by itself; its log is in $LOGS" >&2
exit 1
