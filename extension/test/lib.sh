# Functions of the tests: servers in directories of their own, and questions to them. To be sourced, with WORK naming a
# directory that does not exist.

mkdir -p "$WORK"
# Short, since it is part of a socket's path.
sockets=$(mktemp -d /tmp/shmuring-s.XXXXXX)
servers=()
# Longest wait for what must happen, in seconds: only a failure takes so long.
patience=60

cleanup() {
    local data postmaster
    # Nothing of a test is stopped for good.
    for data in "${servers[@]}"; do
        postmaster=$(head -n 1 "$data/postmaster.pid" 2>/dev/null) || postmaster=
        kill -CONT $(communicators_of "${data##*/}") ${postmaster:+"$postmaster" $(children_of "$postmaster")} \
            2>/dev/null || true
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
        tail -n 60 "$data.log" "$data/shmuring.log" >&2 || true
    done
    exit 1
}

# Waits until a command succeeds.
until_true() { # COMMAND ARGUMENT...
    local end=$((SECONDS + patience))
    while [ "$SECONDS" -lt "$end" ]; do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.05
    done
    fail "in vain: $*"
}

region_of() { # NAME
    echo "$WORK/$1.region"
}

# Makes a cluster, data directory $WORK/NAME, with these lines in its configuration. It serves pages of its own files.
make_cluster() { # NAME LINE...
    local name=$1 data=$WORK/$1
    shift
    initdb -D "$data" -U postgres --auth=trust --no-sync --locale=C -k >/dev/null
    {
        echo "listen_addresses = ''"
        echo "unix_socket_directories = '$sockets'"
        echo "fsync = off"
        echo "max_connections = 30"
        echo "autovacuum = off"
        echo "shared_preload_libraries = 'shmuring'"
        echo "shmuring.region = '$(region_of "$name")'"
        echo "shmuring.page_service = 'datadir:$data'"
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

# The postmaster of a cluster.
postmaster_of() { # NAME
    head -n 1 "$WORK/$1/postmaster.pid"
}

# The processes that a postmaster has started.
children_of() { # PID
    pgrep -P "$1" || true
}

# Processes of `shmuring serve`, of `shmuring watch`, over a cluster's region.
communicators_of() { # NAME
    pgrep -f "shmuring serve --region $(region_of "$1") " || true
}
watchers_of() { # NAME
    pgrep -f "shmuring watch --region $(region_of "$1") " || true
}
is_served() { # PORT
    [ "$(ask "$1" 'SELECT is_serving FROM shmuring_communicator')" = t ]
}
# Served, by somebody else than PID.
is_served_anew() { # PORT PID
    [ "$(ask "$1" "SELECT is_serving AND pid <> $2 FROM shmuring_communicator")" = t ]
}
is_gone() { # PID
    ! kill -0 "$1" 2>/dev/null
}

# One statement, or several, to the server of PORT: its answer.
ask() { # PORT STATEMENT
    psql -h "$sockets" -p "$1" -U postgres -XAtq -v ON_ERROR_STOP=1 <<<"$2"
}

# What the answer must be.
gives() { # PORT WANTED STATEMENT
    local got
    got=$(ask "$1" "$3") || fail "$3 failed"
    [ "$got" = "$2" ] || fail "$3 gives '$got', not '$2'"
}

# The statement must fail with this SQLSTATE, and say this.
refuses() { # PORT SQLSTATE TEXT STATEMENT
    local said
    if said=$(psql -h "$sockets" -p "$1" -U postgres -XAtq -v ON_ERROR_STOP=1 -v VERBOSITY=verbose 2>&1 <<<"$4"); then
        fail "$4 succeeds"
    fi
    [[ $said == *" $2: "* && $said == *"$3"* ]] || fail "$4 says '$said', not $2 and '$3'"
}
