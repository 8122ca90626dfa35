#!/bin/sh
# Make sure that RabbitMQ and Redis are installed, which the tests and benchmarks start themselves;
# as root on Debian or Ubuntu they are installed, elsewhere their absence is told.
set -eu

PATH=$PATH:/usr/sbin:/sbin
missing=""
if [ ! -x /usr/lib/rabbitmq/bin/rabbitmq-server ] && ! command -v rabbitmq-server >/dev/null; then
    missing="rabbitmq-server"
fi
command -v redis-server >/dev/null || missing="$missing redis-server"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    missing=${missing# }
    echo "This needs $missing: install it (on Debian and Ubuntu: sudo apt-get install $missing)." >&2
    exit 1
fi

# The packages would start their services, on the ports of whoever has some already; this file keeps
# them from it (invoke-rc.d and deb-systemd-invoke ask it). One that exists says what its owner wants.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing
