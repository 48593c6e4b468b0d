#!/usr/bin/env bash
# The communicator of shmuring inside a C process, with the command `shmuring` as its backend: writes and reads through
# it, a kill, a take-over by the next, and one by `shmuring serve`.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
ci/checked.sh --quiet --no-run
shmuring=$target/checked/shmuring

scratch=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill -9 "$server" 2>/dev/null || true
    rm -rf "$scratch"
}
trap cleanup EXIT
fail() { echo "error: $*" >&2; cat "$scratch/said" "$scratch/log" >&2; exit 1; }

cc -std=c11 -Wall -Wextra -Wpedantic -Wconversion -Werror -I ffi/include ffi/tests/c/host.c -o "$scratch/host" \
    "$target/checked/deps/libshmuring_ffi.a" -lgcc_s -lutil -lrt -lpthread -lm -ldl -Wl,--gc-sections,-S
region=$scratch/region service=store:$scratch/pages
relation=(--region "$region" --rel 1663/5/16384)

serve() { # EPOCH PROGRAM ARGUMENT...
    local epoch=$1
    shift
    "$@" >"$scratch/said" 2>"$scratch/log" &
    server=$!
    for _ in $(seq 1 300); do
        ! grep -hqE "serving.* epoch[ =]$epoch\b" "$scratch/said" "$scratch/log" || return 0
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    fail "no communicator of epoch $epoch"
}
ends() { # SIGNAL WANTED
    local status=0
    kill "-$1" "$server"
    # The shell says that it was killed.
    wait "$server" 2>/dev/null || status=$?
    [ "$status" -eq "$2" ] || fail "it ended with $status in place of $2"
    server=
}

# The region is made by the command, which then makes room.
serve 1 "$shmuring" serve --region "$region" --service "$service" --slots 64
ends TERM 0

head -c $((8192 * 24)) /dev/urandom >"$scratch/written"
serve 2 "$scratch/host" serve "$region" "$service"
"$shmuring" write "${relation[@]}" --block 0 --create --extend --in "$scratch/written"
"$shmuring" read "${relation[@]}" --block 0 --count 24 --out "$scratch/read"
cmp "$scratch/written" "$scratch/read" || fail "other pages were read than were written"
if "$shmuring" serve --region "$region" --service "$service" 2>"$scratch/refused"; then fail "two communicators"; fi
grep -q "another communicator (pid $server)" "$scratch/refused" || fail "$(cat "$scratch/refused")"

# Killed in the middle of writes; the next finishes what was claimed.
writers=()
for i in 1 2 3; do
    head -c $((8192 * 8)) /dev/urandom >"$scratch/page$i"
    (for _ in $(seq 1 40); do
        "$shmuring" write "${relation[@]}" --block $((i * 8 - 8)) --in "$scratch/page$i" --timeout 60000 || exit 1
    done) &
    writers+=($!)
done
for epoch in 3 4 5; do
    sleep 0.5
    ends KILL 137
    serve "$epoch" "$scratch/host" serve "$region" "$service"
done
for pid in "${writers[@]}"; do wait "$pid" || fail "a writer saw an error"; done
for i in 1 2 3; do
    "$shmuring" read "${relation[@]}" --block $((i * 8 - 8)) --count 8 --out "$scratch/read"
    cmp "$scratch/page$i" "$scratch/read" || fail "other pages were read than were written by writer $i"
done
ends TERM 0
grep -qx 'stopped 0' "$scratch/said" || fail "it did not stop clean"

# And the command takes over from the host.
serve 6 "$shmuring" serve --region "$region" --service "$service"
"$shmuring" read "${relation[@]}" --block 8 --count 8 --out "$scratch/read"
cmp "$scratch/page2" "$scratch/read" || fail "other pages after the last take-over"
ends TERM 0
echo "a C host served, was killed three times, and was taken over from"
