# Functions of the tests: servers in directories of their own, and questions to them. To be sourced, with WORK naming a
# directory that does not exist.

mkdir -p "$WORK"
# Short, since it is part of a socket's path.
sockets=$(mktemp -d /tmp/shmuring-s.XXXXXX)
servers=()

cleanup() {
    local data
    for data in "${servers[@]}"; do
        pg_ctl stop -D "$data" -m immediate -s >/dev/null 2>&1 || true
    done
    rm -rf "$sockets"
}
trap cleanup EXIT

fail() {
    echo "error: $*" >&2
    local data
    for data in "${servers[@]}"; do
        echo "---- $data.log" >&2
        tail -n 60 "$data.log" >&2
    done
    exit 1
}

# Makes a cluster, data directory $WORK/NAME, with these lines in its configuration.
make_cluster() { # NAME LINE...
    local data=$WORK/$1
    shift
    initdb -D "$data" -U postgres --auth=trust --no-sync --locale=C -k >/dev/null
    {
        echo "listen_addresses = ''"
        echo "unix_socket_directories = '$sockets'"
        echo "fsync = off"
        echo "shared_preload_libraries = 'shmuring'"
        printf '%s\n' "$@"
    } >>"$data/postgresql.conf"
    servers+=("$data")
}

# Starts a cluster's server; the port only names the socket.
start() { # NAME PORT
    pg_ctl start -D "$WORK/$1" -l "$WORK/$1.log" -o "-p $2" -w -s || fail "$1 does not start"
}

stop() { # NAME [MODE]
    pg_ctl stop -D "$WORK/$1" -m "${2:-fast}" -w -s || fail "$1 does not stop"
}

# One statement, or several, to the server of PORT: its answer.
ask() { # PORT STATEMENT
    psql -h "$sockets" -p "$1" -U postgres -XAtq -v ON_ERROR_STOP=1 -c "$2"
}

# What the answer must be.
gives() { # PORT WANTED STATEMENT
    local got
    got=$(ask "$1" "$3") || fail "$3 failed"
    [ "$got" = "$2" ] || fail "$3 gives '$got', not '$2'"
}
