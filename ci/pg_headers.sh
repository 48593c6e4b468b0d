#!/usr/bin/env bash
# Compiles the extension against the headers of later versions of PostgreSQL: it is one source for all of them, and only
# the oldest has servers in the other checks. The headers come from the system's own mirror of Debian, unpacked and not
# installed. A version that cannot be had there is skipped, and that is said: it is no fault of the project's.
#
# PG_HEADERS (17:trixie 18:sid): versions, and the suite that has each; or VERSION:/DIRECTORY, headers that are there.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d /tmp/shmuring-headers.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/none"

# apt as it is, but for what it knows of packages: lists of its own, and nothing installed.
quiet_apt() { # COMMAND...
    timeout 180 "$@" -qq -o Dir::State="$scratch/state" -o Dir::State::lists="$scratch/lists" \
        -o Dir::State::status="$scratch/status" -o Dir::Cache="$scratch/cache" -o Dir::Etc::sourcelist="$scratch/sources" \
        -o Dir::Etc::sourceparts="$scratch/none" -o Dir::Etc::preferencesparts="$scratch/none" \
        -o APT::Sandbox::User= -o Acquire::Retries=1 \
        -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none -o Acquire::http::Timeout=20 >&2
}

# Unpacks the headers of a version into $scratch/VERSION.
get() { # VERSION SUITE
    local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
        sed -n 's/^Debian Debian //p' | head -n 1)
    [ -n "$mirror" ] && [ -f "$keyring" ] || return 1
    rm -rf "$scratch/lists"
    mkdir -p "$scratch"/{state,lists/partial,cache/archives/partial,"$1"}
    : >"$scratch/status"
    echo "deb [signed-by=$keyring] $mirror $2 main" >"$scratch/sources"
    quiet_apt apt-get update || return 1
    (cd "$scratch/$1" && quiet_apt apt-get download "postgresql-server-dev-$1") || return 1
    dpkg-deb -x "$scratch/$1"/*.deb "$scratch/$1"
}

# The flags that PostgreSQL compiles extensions with, and more warnings. Callbacks have parameters that they do not need.
read -ra flags <<<"$("$(command -v "/usr/lib/postgresql/${PG_MAJOR:-15}/bin/pg_config" || echo pg_config)" --cflags)"
flags+=(-fPIC -fvisibility=hidden -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-error=vla -Wno-unused-parameter -Iffi/include
    -Iextension)

compiled=0 skipped=0
for wanted in ${PG_HEADERS:-17:trixie 18:sid}; do
    version=${wanted%%:*} from=${wanted#*:}
    case $from in
        /*) headers=$from ;;
        *)
            headers=$scratch/$version/usr/include/postgresql/$version/server
            get "$version" "$from" || true
            ;;
    esac
    if [ ! -f "$headers/postgres.h" ]; then
        echo "SKIPPED: the headers of PostgreSQL $version cannot be had, so nobody knows whether the extension compiles there" >&2
        skipped=$((skipped + 1))
        continue
    fi
    for file in extension/*.c extension/test/*.c; do
        "${CC:-cc}" "${flags[@]}" -isystem "$headers" -isystem "${headers%/*}/internal" -c -o "$scratch/object.o" "$file"
    done
    echo "PostgreSQL $version: compiled"
    compiled=$((compiled + 1))
done
echo "$compiled versions of PostgreSQL compiled, $skipped skipped"
