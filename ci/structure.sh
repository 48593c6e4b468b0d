#!/usr/bin/env bash
# Rules of the source that no compiler checks. Prints each line that breaks one, and fails if there is any.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8

broken=0
# Reads lines on stdin: there must be none. Called as `none RULE < <(...)`, not behind a pipe: it sets a variable.
none() { # RULE
    local lines
    lines=$(cat)
    [ -n "$lines" ] || return 0
    printf '%s:\n%s\n\n' "$1" "$lines" >&2
    broken=1
}

# The lines of Rust files that are in the product, as FILE:LINE:TEXT: without comments, and without the items under a
# cfg that switches tests or model checkers on.
product() { # FILE...
    awk '
        FNR == 1 { skip = 0 }
        /^#\[cfg\((all\()?(test|feature = "(loom|shuttle)"|any\(feature = "(loom|shuttle)")/ { skip = 1; next }
        skip == 1 && /^#\[/ { next }
        skip == 1 { skip = /;$/ ? 0 : 2; if (!skip) next }
        skip == 2 { if (/^}/) skip = 0; next }
        { text = $0; sub(/^[ \t]*\/\/.*/, "", text); sub(/[ \t]\/\/ .*/, "", text) }
        text != "" { print FILENAME ":" FNR ":" text }
    ' "$@"
}

sources() { # DIRECTORY...
    local d
    for d in "$@"; do [ ! -d "$d" ] || find "$d" -name '*.rs' -not -path '*/target/*'; done | sort
}
mapfile -t library < <(sources src)
mapfile -t product_files < <(sources src communicator/src ffi/src)
mapfile -t long_files < <(sources src communicator/src ffi/src benches ffi/benches; find ffi/include extension -name '*.[ch]' | sort)

library_lines=$(product "${library[@]}")
product_lines=$(product "${product_files[@]}")
[ "$(wc -l <<<"$library_lines")" -gt 1000 ] || { echo "error: the sources were not found" >&2; exit 1; }

# 1. One role a file, short enough to be read in one go.
none "files longer than 500 lines" < <(
    for file in "${long_files[@]}"; do
        n=$(wc -l <"$file")
        [ "$n" -le 500 ] || echo "$file: $n lines"
    done
)

# rustfmt sees to this in Rust.
none "lines longer than 120 columns" < <(
    for file in "${long_files[@]}"; do
        case $file in *.[ch]) expand -t 8 "$file" | awk -v f="$file" 'length > 120 { print f ":" FNR }' ;; esac
    done
)

# 2. Unsafe code only where the reason is known.
unsafe_allowed() {
    case $1 in
        src/sync.rs | src/layout.rs) ;;                  # cells, and types that may lie in shared memory
        src/region/*.rs) ;;                              # mappings
        src/handshake.rs) ;;                             # the configuration, governed by the magic (RG_1)
        src/buffers.rs) ;;                               # copies from and to buffers of a pool
        src/memory.rs) ;;                                # allocates without a panic
        src/communicator/bridge.rs) ;;                   # eventfd system calls
        src/communicator/role.rs) ;;                     # takes the role that a lock proves
        src/backend/*.rs | src/communicator/claim.rs) ;; # request and result bytes, governed by the slot word (I1)
        src/futex.rs | src/clock.rs | src/spin.rs) ;;    # system calls and instructions
        src/fork.rs | src/liveness.rs) ;;                # system calls
        ffi/src/*.rs) ;;                                 # pointers from C
        communicator/src/cli/child.rs) ;;                # kill(2)
        communicator/src/cli/mod.rs) ;;                  # signal(2)
        communicator/src/cli/replace.rs) ;;              # pidfd system calls
        communicator/src/cli/serve.rs) ;;                # the SIGBUS handler
        communicator/src/cli/slots.rs) ;;                # volatile look at request bytes
        communicator/src/cli/pool.rs) ;;                 # a mapped file of blocks
        communicator/src/cli/demo/ledger.rs) ;;          # a mapped file
        communicator/src/cli/torture/buffers.rs) ;;      # looks at blocks of pools, canaries
        communicator/src/service/store/dir.rs) ;;        # system calls
        *) return 1 ;;
    esac
}
none "unsafe outside of the files that the list in ci/structure.sh allows" < <(
    grep -E '\bunsafe( *\{| +(fn|impl|trait|extern)|\()' <<<"$product_lines" | while IFS= read -r line; do
        unsafe_allowed "${line%%:*}" || echo "$line"
    done
)

# 3. Atomics of the library come from src/sync.rs alone, so that the models run the same code.
none "std atomics or cells named outside src/sync.rs" < <(
    grep -E '(std|core)::(sync::atomic|cell)\b' <<<"$library_lines" | grep -v '^src/sync\.rs:'
)

# 4. Sequential consistency is for sleeping and waking alone.
none "SeqCst outside src/sync.rs and src/doorbell.rs" < <(
    grep -w 'SeqCst' <<<"$library_lines" | grep -Ev '^src/(sync|doorbell)\.rs:'
)

# 5. Code that runs in backends does not panic. (clippy denies unwrap, expect, panic! and indexing as well.) The asserts
# of src/layout.rs are in `const _: ()`, so they run at compile time.
none "panics in src/" < <(
    grep -E '\.(unwrap|expect|unwrap_err)\(|\b(panic|unreachable|todo|unimplemented|assert|assert_eq|assert_ne)!' \
        <<<"$library_lines" | grep -Ev '^src/layout\.rs:[0-9]+: +assert!\('
)

# 6. Nothing unfinished, nothing of a private machine. The words are spelt so that this file does not hold them.
mapfile -t tracked < <(git ls-files -co --exclude-standard | grep -Ev '^(Cargo\.lock|LICENSE)$')
none "unfinished work" < <(grep -InHwsE 'TO''DO|FIX''ME|XX''X' -- "${tracked[@]}")
none "paths of a private machine" < <(
    grep -InHsE '(^|[^A-Za-z0-9_.])/(ho''me|ro''ot|Us''ers|wo''rk|mn''t)/[A-Za-z0-9_.-]' -- "${tracked[@]}"
)

# 7. The Rust of the protocol files was made of them as they are.
none "files of communicator/proto that ci/proto.sh has not made anew" < <(
    cd communicator/proto
    sha256sum --check --quiet checksums 2>&1 || true
    comm -3 <(ls ./*.proto ./*.rs) <(awk '{ print $2 }' checksums | sort)
)

# 8. The tests that the documents name exist, in the file that they are named with. A name of five words is a test's.
mapfile -t documents < <(printf '%s\n' "${tracked[@]}" | grep -E '^(README|CONTRIBUTING|docs/.*)\.md$')
mapfile -t rust < <(printf '%s\n' "${tracked[@]}" | grep '\.rs$')
words=$(cat "${documents[@]}" | tr -s '\n ' ' ')
functions=$(grep -HoE '\bfn [a-z0-9_]+' "${rust[@]}")
none "tests that documents name and that are none" < <(
    comm -23 <(grep -oE '\b[a-z0-9]+(_[a-z0-9]+){4,}\b' <<<"$words" | sort -u) <(sed 's/.*:fn //' <<<"$functions" | sort -u)
)
none "functions that documents name in another file" < <(
    grep -oE '[a-z0-9_/-]+\.rs`?:? `?[a-z0-9]+(_[a-z0-9]+)+\b' <<<"$words" | tr -d '`:' | sort -u |
        while read -r file function; do
            grep -qE "(^|/)${file#/}:fn $function\$" <<<"$functions" || echo "${file#/}: $function"
        done
)

# 9. The table of recovery and the kills at every instruction are about the same cases. "... x" is each that ends so.
none "cases of the single_step tests that the tables of docs/recovery.md lack, or have and that are none" < <(
    awk '
        function fits(name, quoted) {
            if (quoted ~ /^\.\.\. /) return substr(" " name, length(name) - length(quoted) + 5) == substr(quoted, 4)
            if (quoted ~ / \.\.\.$/) return index(name, substr(quoted, 1, length(quoted) - 4)) == 1
            return name == quoted
        }
        FNR == NR { if (match($0, /name: "[^"]+"/)) missing[substr($0, RSTART + 7, RLENGTH - 8)] = 1; next }
        /^\|/ {
            n = split($0, part, "\"")
            for (i = 2; i < n; i += 2) {
                found = 0
                for (name in missing) if (fits(name, part[i])) { found = 1; missing[name] = 0 }
                if (!found) print part[i]
            }
        }
        END { for (name in missing) if (missing[name]) print name }
    ' <(cat tests/single_step/*.rs ffi/tests/single_step.rs) docs/recovery.md | sort -u
)

if [ "$broken" -ne 0 ]; then
    echo "error: rules of the source are broken, see above" >&2
    exit 1
fi
echo "${#product_files[@]} files follow the rules"
