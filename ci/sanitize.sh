#!/usr/bin/env bash
# The tests of the library under the sanitizers: ThreadSanitizer for those in which threads meet, AddressSanitizer for
# all. Each must first report faults that are planted (tests/sanitizers.rs). No report is suppressed.
#
# Both are flags of nightly compilers that stable ones take when told to act as a nightly. ThreadSanitizer needs a
# standard library that is instrumented too, so rust-src: without one it misses the edges inside std and reports races
# in Arc and in scoped threads that are none. What a toolchain cannot do is skipped, by name.
set -euo pipefail
cd "$(dirname "$0")/.."

export RUSTC_BOOTSTRAP=1 CARGO_INCREMENTAL=0
export RUST_BACKTRACE=0
target_dir=${CARGO_TARGET_DIR:-target}/sanitize
host=$(rustc -vV | sed -n 's/^host: //p')
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

: >"$scratch/sum"
skipped=()
skip() { # SANITIZER REASON
    printf '\n**** SKIPPED: %s sanitizer: %s\n' "$1" "$2" >&2
    skipped+=("$1")
}

# Whether the compiler takes the flag and its programs run.
works() { # SANITIZER
    echo 'fn main() {}' >"$scratch/probe.rs"
    rustc "-Zsanitizer=$1" -Cunsafe-allow-abi-mismatch=sanitizer --target "$host" -o "$scratch/probe" "$scratch/probe.rs" \
        2>"$scratch/why" && "$scratch/probe" 2>>"$scratch/why"
}

has_std_sources() {
    local lock
    lock=$(rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock
    [ -f "$lock" ] || { rustup component add rust-src >&2 || true; }
    [ -f "$lock" ]
}

# Builds the tests; leaves "NAME PATH" of each program in $scratch/SANITIZER.
build() { # SANITIZER [CARGO OPTION...]
    local sanitizer=$1
    shift
    RUSTFLAGS="-Zsanitizer=$sanitizer $([ "$sanitizer" != thread ] || echo --cfg shmuring_tsan)" CARGO_TARGET_DIR="$target_dir/$sanitizer" \
        cargo test "$@" --target "$host" --no-run --lib --tests --message-format=json-render-diagnostics \
        >"$scratch/messages"
    sed -nE 's/.*"name":"([^"]+)","src_path".*"executable":"([^"]+)".*/\1 \2/p' "$scratch/messages" >"$scratch/$sanitizer"
    [ -s "$scratch/$sanitizer" ] || { echo "error: no test was built" >&2; exit 1; }
}

program() { # SANITIZER NAME
    sed -n "s/^$2 //p" "$scratch/$1"
}

# The planted fault must be reported, as what it is and where it is.
must_report() { # SANITIZER TEST REPORT PLACE
    local log="$scratch/planted"
    if timeout 100 "$(program "$1" sanitizers)" --exact "$2" --ignored >"$log" 2>&1 ||
        ! grep -q "$3" "$log" || ! grep -q "$4" "$log"; then
        tail -40 "$log"
        echo "error: the $1 sanitizer does not report $2 ($3, $4)" >&2
        exit 1
    fi
    echo "$1: $2 is reported"
}

run() { # SANITIZER NAME [OPTION OF THE TEST HARNESS...]
    local sanitizer=$1 name=$2 begin=$SECONDS
    shift 2
    if ! timeout 200 "$(program "$sanitizer" "$name")" "$@" >"$scratch/log" 2>&1; then
        grep -m5 -A30 'WARNING: ThreadSanitizer\|ERROR: [AL]' "$scratch/log" || tail -60 "$scratch/log"
        echo "error: $name fails under the $sanitizer sanitizer" >&2
        exit 1
    fi
    printf '%s: %-15s %s (%d s)\n' "$sanitizer" "$name" "$(sed -n 's/^test result: //p' "$scratch/log" | cut -d';' -f1-3)" \
        $((SECONDS - begin))
    sed -nE "s/^test result: ok. ([0-9]+) passed.*/$sanitizer \1/p" "$scratch/log" >>"$scratch/sum"
}

# Faults that tests provoke in child processes stay the kernel's.
common=handle_segv=0:handle_sigbus=0

if ! works thread; then
    skip thread "$(rustc -V) does not take -Zsanitizer=thread: $(head -3 "$scratch/why")"
elif ! has_std_sources; then
    skip thread "the component rust-src is not there and cannot be had: rustup component add rust-src"
else
    build thread -Zbuild-std
    export TSAN_OPTIONS="$common:${TSAN_OPTIONS:-}"
    race='WARNING: ThreadSanitizer: data race'
    must_report thread planted_race_of_a_submit_without_release "$race" 'request::RawRequest'
    must_report thread planted_race_of_a_request_changed_after_its_submit "$race" 'request::RawRequest'
    while read -r name _; do
        case $name in
            shmuring | region | region_refused | properties) ;;    # no threads that meet
            # A peer that breaks the protocol races on purpose.
            hostile) run thread "$name" --skip random_bytes_panic_and_hang_nobody_and_calm_brings_service_back ;;
            # ThreadSanitizer holds a signal back until the thread makes a call that it knows; a futex is none.
            processes) run thread "$name" --skip a_signal_or_the_interrupt_word_ends_a_wait_at_once ;;
            *) run thread "$name" ;;
        esac
    done <"$scratch/thread"
fi

if ! works address; then
    skip address "$(rustc -V) does not take -Zsanitizer=address: $(head -3 "$scratch/why")"
else
    build address
    # More memory than there is: an answer, as without the sanitizer, which a test asks for.
    export ASAN_OPTIONS="$common:allocator_may_return_null=1:${ASAN_OPTIONS:-}"
    must_report address planted_read_past_the_end 'AddressSanitizer: heap-buffer-overflow' 'planted_read_past_the_end'
    while read -r name _; do
        case $name in
            # Leaks regions on purpose: a thread that hangs must not find its region gone.
            hostile) ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0" run address "$name" ;;
            *) run address "$name" ;;
        esac
    done <"$scratch/address"
fi

awk '{ programs[$1]++; tests[$1] += $2 }
    END { for (s in tests) printf "%s sanitizer: %d programs, %d tests\n", s, programs[s], tests[s] }' "$scratch/sum"
[ ${#skipped[@]} -eq 0 ] || printf '\n**** NOT RUN: %s sanitizer\n' "${skipped[*]}" >&2
