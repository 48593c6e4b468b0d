# Functions of the tests with a primary (port 5001) and its hot standby (port 5002). They load the extension when it is
# called and not at their start, have no communicator beside them, and no checksums.

# Makes both; statements on stdin are executed before the copy is made. PostgreSQL's lines of configuration as arguments.
make_pair() { # LINE...
    local statements
    statements=$(cat)
    make_cluster primary "$@"
    sed -i -E '/^(shared_preload_libraries|shmuring\.)/d' "$WORK/primary/postgresql.conf"
    pg_checksums --disable --no-sync -D "$WORK/primary" >/dev/null 2>&1
    start primary 5001
    ask 5001 'CREATE EXTENSION shmuring'
    ask 5001 "$statements"
    pg_basebackup -h "$sockets" -p 5001 -U postgres -D "$WORK/standby" -R -X stream -c fast --no-sync
    servers+=("$WORK/standby")
    start standby 5002
    catch_up
}

is_true() { # PORT QUESTION
    [ "$(ask "$1" "$2")" = t ]
}

# The standby has replayed what the primary has.
catch_up() {
    until_true is_true 5002 "SELECT pg_last_wal_replay_lsn() >= '$(ask 5001 'SELECT pg_current_wal_flush_lsn()')'"
}

# ... and has it in its files, so that it will not replay it again.
settle() {
    ask 5001 CHECKPOINT
    catch_up
    ask 5002 CHECKPOINT
}

# The processes of the standby's server.
processes() {
    echo "$(postmaster_of standby)" $(ps -o pid= --ppid "$(postmaster_of standby)")
}
