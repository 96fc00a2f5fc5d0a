#!/usr/bin/env bash
# Drives docker-compose.yml as an operator would: a coordinator and two workers in containers, a model submitted from the host,
# one worker stopped mid-job, the other cut off from the coordinator for a while. Expects one published version with every item
# completed exactly once, and leaves nothing behind but the base image, if it had to make one.
#
#   cargo build --release && tests/compose.sh
#
# AOTFARM_BIN: the binary to test [target/release/aotfarm]; it must run on Debian bookworm.
# Where Docker, or a way to a base image, is absent, it prints why and exits with 0.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
bin=${AOTFARM_BIN:-$root/target/release/aotfarm}
project=aotfarmtest$$
made_base=aotfarm-test-base:bookworm

say() { echo "compose: $*"; }
skip() { say "skipped: $*"; exit 0; }
fail() { say "FAILED: $*" >&2; exit 1; }

command -v docker >/dev/null || skip "there is no docker"
docker info --format '{{.ServerVersion}}' >/dev/null 2>&1 || skip "the Docker daemon does not answer"
if docker compose version >/dev/null 2>&1; then
    compose_command=(docker compose)
elif command -v docker-compose >/dev/null; then
    compose_command=(docker-compose)
else
    skip "there is neither docker compose nor docker-compose"
fi
[ -x "$bin" ] || fail "there is no $bin: run cargo build --release, or set AOTFARM_BIN"

stage=$(mktemp -d)
compose() { (cd "$stage" && "${compose_command[@]}" -p "$project" "$@"); }
clean_up() {
    status=$?
    if [ "$status" != 0 ]; then
        say "the containers' last words:"
        compose logs --tail=20 2>&1 || true
    fi
    compose down -v --remove-orphans >/dev/null 2>&1 || true
    docker image rm "$project" >/dev/null 2>&1 || true
    rm -rf "$stage"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# The base image: pulled, or made.
base=debian:bookworm-slim
if docker image inspect "$made_base" >/dev/null 2>&1; then
    base=$made_base
elif ! docker image inspect "$base" >/dev/null 2>&1 && ! timeout 60 docker pull -q "$base" >/dev/null 2>&1; then
    command -v debootstrap >/dev/null || skip "$base cannot be pulled, and there is no debootstrap to make it (apt-get install debootstrap)"
    [ "$(id -u)" = 0 ] || skip "$base cannot be pulled, and debootstrap needs root to make it"
    say "making the base image"
    debootstrap --variant=minbase --include=gcc,libc6-dev,ca-certificates bookworm "$stage/base" >"$stage/base.log" 2>&1 \
        || { tail -3 "$stage/base.log"; skip "$base cannot be pulled, and debootstrap failed"; }
    tar -C "$stage/base" -c . | docker import - "$made_base" >/dev/null
    rm -rf "$stage/base"
    base=$made_base
fi
say "base image $base"

# A build context of its own: the test needs other names, and must not disturb a farm that runs from the checkout.
mkdir -p "$stage/target/release"
cp "$root/Dockerfile" "$root/docker-compose.yml" "$root/.dockerignore" "$stage/"
cp "$bin" "$stage/target/release/aotfarm"
for service in coordinator worker-1 worker-2; do
    printf '%s:\n    image: %s\n' "  $service" "$project"
done | sed '1i services:' >"$stage/docker-compose.override.yml"

port=$(for p in $(seq 17070 17170); do (: </dev/tcp/127.0.0.1/"$p") 2>/dev/null || { echo "$p"; break; }; done)
export AOTFARM_BASE=$base AOTFARM_PORT=$port
export AOTFARM_COORDINATOR=http://127.0.0.1:$port
export HOME=$stage

# wait_for WHAT SECONDS COMMAND…: until the command succeeds.
wait_for() {
    local what=$1 seconds=$2 end
    shift 2
    end=$((SECONDS + seconds))
    until "$@"; do
        [ $SECONDS -lt $end ] || fail "waited $seconds s for $what"
        sleep 0.3
    done
    say "$what"
}
container() { compose ps -q "$1"; }
answers() { "$bin" ls >/dev/null 2>&1; }
workers_in_state() { [ "$("$bin" --json workers | grep -c "\"state\":\"$2\"")" -ge "$1" ]; }
items_done() { [ "$("$bin" --json logs "$job" --items | grep -c '"state":"done"')" -ge "$1" ]; }
job_is() { "$bin" --json job "$job" | grep -q "\"state\":\"$1\""; }
job_ended() { job_is published || job_is failed || job_is cancelled; }
still_running() { ! job_ended || fail "the job ended before its workers could be disturbed"; }

say "building the image"
compose build >"$stage/build.log" 2>&1 || { tail -20 "$stage/build.log"; fail "the image does not build"; }
compose up -d >"$stage/up.log" 2>&1 || { tail -20 "$stage/up.log"; fail "the containers do not start"; }
wait_for "the coordinator answers on the host" 60 answers
wait_for "two workers are alive" 60 workers_in_state 2 alive

"$bin" example resnet18 -o "$stage/model.graph" >/dev/null
job=$("$bin" submit "$stage/model.graph" --name model --tune-at 1 --trials 6 --budget 20s --detach)
say "job $job"

wait_for "five items are done" 300 items_done 5
still_running
compose stop -t 2 worker-1 >/dev/null 2>&1
say "stopped worker-1"

before=$("$bin" --json logs "$job" --items | grep -c '"state":"done"')
wait_for "worker-2 goes on alone" 300 items_done $((before + 3))
still_running
network=${project}_farm
second=$(container worker-2)
docker network disconnect "$network" "$second"
say "cut worker-2 off"
wait_for "the coordinator misses worker-2" 60 workers_in_state 1 stale
still_running

compose start worker-1 >/dev/null 2>&1
wait_for "worker-1 is back" 60 workers_in_state 1 alive
docker network connect --alias worker-2 "$network" "$second"
say "connected worker-2 again"
wait_for "both are alive" 90 workers_in_state 2 alive
wait_for "the job ended" 600 job_ended
job_is published || { "$bin" job "$job"; "$bin" logs "$job" | tail -20; fail "the job did not publish"; }

versions=$("$bin" --json history model | wc -l)
[ "$versions" = 1 ] || fail "expected one published version, found $versions"
items=$("$bin" --json logs "$job" --items)
unfinished=$(grep -vc '"state":"done"' <<<"$items" || true)
repeated=$(grep '"state":"done"' <<<"$items" | grep -vc '"completions":1,' || true)
[ "$unfinished" = 0 ] || { grep -v '"state":"done"' <<<"$items"; fail "$unfinished items were not finished"; }
[ "$repeated" = 0 ] || fail "$repeated items were not completed exactly once"
"$bin" pull model -o "$stage/pulled" >/dev/null
"$bin" run "$stage/pulled/model.so" >/dev/null
say "passed: one version, $(wc -l <<<"$items") items, each completed exactly once; it was pulled and it runs"
