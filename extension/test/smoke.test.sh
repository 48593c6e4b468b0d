# The extension is loaded by a server, and made in a database.
make_cluster a
start a 5001
ask 5001 'CREATE EXTENSION shmuring'
gives 5001 "$(shmuring --version | cut -d ' ' -f 2)" 'SELECT shmuring_version()'
stop a
