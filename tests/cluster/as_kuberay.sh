#!/bin/bash
# What KubeRay 1.7 does with the image (ray-operator/controllers/ray/common/{pod,job}.go), in one container: head and
# worker in login shells with a token, wait-gcs-ready, the probes, the submitter's loop and log, preStop.
# as_kuberay.sh FOLDER: the folder holds skysift.toml and a survey; prints what each step said, the log last.
set -eu
cd "$1"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=0123456789abcdef0123456789abcdef RAY_CLUSTER_NAME=image-abcde
export SKYSIFT_LOG_FORMAT=json
gcs=26379 dashboard=28265 agent=25236 metrics=28080  # not Ray's own ports: the host's network may have another Ray
start() { /bin/bash -cl -- "ulimit -n \${RAY_START_ULIMIT_OPEN_FILES:-65536}; ray start $1" >"$2.log" 2>&1 & }
start "--head --port=$gcs --num-cpus=0 --memory=3221225472 --dashboard-host=0.0.0.0 --dashboard-port=$dashboard \
    --metrics-export-port=$metrics --dashboard-agent-listen-port=$agent --block" head
head=$!
until ray health-check --address "127.0.0.1:$gcs" >/dev/null 2>&1; do
    kill -0 "$head" || { cat head.log; exit 1; }
    sleep 1
done
echo "GCS is ready"
start "--address=127.0.0.1:$gcs --num-cpus=2 --memory=3221225472 --block" worker
answers() { python -c "import urllib.request; r=urllib.request.urlopen('$1', timeout=5); exit(0 if b'success' in r.read() else 1)"; }
for url in "http://127.0.0.1:$agent/api/healthz" "http://127.0.0.1:$dashboard/api/gcs_healthz"; do
    tries=0
    until answers "$url" >/dev/null 2>&1; do
        tries=$((tries + 1))
        test "$tries" -lt 120 || { echo "no answer: $url"; answers "$url"; }
        sleep 1
    done
    echo "healthy without a token: ${url##*/}"
done
unset RAY_ADDRESS
address="http://127.0.0.1:$dashboard"
submit="if ! ray job status --address $address image-1 >/dev/null 2>&1 ; then ray job submit --address $address --no-wait \
    --submission-id image-1 -- skysift run --config $1/skysift.toml --run image ; fi ; \
    ray job logs --address $address --follow image-1"
RAY_AUTH_TOKEN=ffffffffffffffffffffffffffffffff ray job list --address "$address" >/dev/null 2>&1 && echo "a wrong token passes" && exit 1
/bin/bash -ce -- "$submit"
ray job status --address "$address" image-1
python -m pipeline.termination 1 && echo "no driver is left"
kill "$head"
