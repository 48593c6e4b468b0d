# Functions of the tests with a primary (port 5001) and its hot standby (port 5002). They load the extension when it is
# called and not at their start, have no communicator beside them until preload gives them one, and no checksums.

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

# Starts one's server anew with a communicator beside it that serves these pages.
preload() { # CLUSTER PORT SERVICE [LINE...]
    local name=$1 port=$2 service=$3
    shift 3
    stop "$name"
    {
        echo "shared_preload_libraries = 'shmuring'"
        echo "shmuring.region = '$(region_of "$name")'"
        echo "shmuring.page_service = '$service'"
        printf '%s\n' "$@"
    } >>"$WORK/$name/postgresql.conf"
    start "$name" "$port"
    until_true is_served "$port"
}

# Prefetches blocks of a relation on the primary, and waits until they are there: the end of a session cancels what it has
# in flight, prefetches too.
prefetch() { # RELATION FIRST BLOCKS
    ask 5001 "DO 'BEGIN
        PERFORM shmuring_prefetch(''$1'', ''main'', $2, $3);
        WHILE EXISTS (SELECT FROM shmuring_slots
                WHERE operation = ''prefetch'' AND state IN (''submitted'', ''processing'', ''copying'')) LOOP
            PERFORM pg_sleep(0.01);
        END LOOP;
    END'"
}

# The standby replays commits so late.
delay() { # MS
    ask 5002 "ALTER SYSTEM SET recovery_min_apply_delay = '$1ms'"
    ask 5002 'SELECT pg_reload_conf()' >/dev/null
    until_true is_true 5002 "SELECT setting = '$1' FROM pg_settings WHERE name = 'recovery_min_apply_delay'"
}

# Blocks of the files of a relation, for damage.
get() { # FILE BLOCK
    dd if="$1" bs=8192 skip="$2" count=1 status=none
}
put() { # FILE BLOCK: a block from stdin
    dd of="$1" bs=8192 seek="$2" count=1 conv=notrunc status=none
}
flip() { # FILE OFFSET
    local byte
    byte=$(dd if="$1" bs=1 skip="$2" count=1 status=none | od -An -tu1)
    printf "\\x$(printf %x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
