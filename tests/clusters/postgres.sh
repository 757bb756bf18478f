#!/bin/bash
# A PostgreSQL server on loopback for the tests marked postgres: Debian or Ubuntu, apt-get install postgresql.
#   tests/clusters/postgres.sh start|restart|stop FOLDER PORT
# Its user and password are test:test, its database is test. The server can't run as root, then it runs as postgres.
set -eu
bin=$(ls -d /usr/lib/postgresql/*/bin 2> /dev/null | sort -V | tail -1)
data=$2/data
as_user() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
options="-p $3 -c listen_addresses=127.0.0.1 -c unix_socket_directories=$2 -c fsync=off"
case $1 in
start)
    mkdir -p "$2" && echo test > "$2/password"
    [ "$(id -u)" != 0 ] || chown -R postgres "$2"
    as_user "$bin/initdb" -D "$data" -U test --pwfile="$2/password" -A scram-sha-256 > /dev/null
    as_user "$bin/pg_ctl" -D "$data" -w -l "$2/log" -o "$options" start > /dev/null
    PGPASSWORD=test "$bin/createdb" -h 127.0.0.1 -p "$3" -U test test
    ;;
restart) as_user "$bin/pg_ctl" -D "$data" -m immediate -w -l "$2/log" -o "$options" restart > /dev/null ;;
stop) as_user "$bin/pg_ctl" -D "$data" -m immediate stop > /dev/null ;;
esac
