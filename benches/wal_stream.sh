#!/usr/bin/env bash
# Writes the WAL of a pgbench load and run on a real PostgreSQL, as pg_waldump prints it, for `cargo bench --bench written`:
#   benches/wal_stream.sh FILE [SCALE [SECONDS]]
# Needs Debian's package postgresql and root, since a server does not run as root: it is started as user postgres.
set -euo pipefail

out=$(realpath "$1") scale=${2:-50} seconds=${3:-60}
bin=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -1)
dir=$(mktemp -d /tmp/shmuring-wal-XXXXXX)
chown postgres "$dir"
cd "$dir"
as() { setpriv --reuid=postgres --regid=postgres --init-groups env -i HOME=/tmp LANG=C.UTF-8 PATH="$bin:/usr/bin:/bin" "$@"; }
trap 'as pg_ctl -D "$dir/data" -m immediate stop >&2 || true; rm -rf "$dir"' EXIT

as initdb -D "$dir/data" -U postgres --auth=trust --no-sync --locale=C -k >&2
# Nothing is recycled, and a checkpoint in the middle, so that full-page images come twice.
options="-c listen_addresses='' -c unix_socket_directories=$dir -c fsync=off -c max_wal_size=64GB -c wal_keep_size=64GB"
as pg_ctl -D "$dir/data" -o "$options -c shared_buffers=256MB" -l "$dir/log" -w start >&2
client=(-h "$dir" -U postgres)
begin=$(as psql "${client[@]}" -Atc 'SELECT pg_current_wal_lsn()' postgres)
as pgbench "${client[@]}" -i -q -s "$scale" postgres >&2
as psql "${client[@]}" -q -c CHECKPOINT postgres
as pgbench "${client[@]}" -c 4 -j 2 -M prepared -T "$seconds" postgres >&2
end=$(as psql "${client[@]}" -Atc 'SELECT pg_current_wal_flush_lsn()' postgres)
as pg_waldump -p "$dir/data/pg_wal" -s "$begin" -e "$end" >"$out"
wc -l "$out" >&2
