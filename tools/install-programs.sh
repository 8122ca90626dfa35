#!/bin/sh
# Make sure that the programs of these Debian packages are there: rabbitmq-server, redis-server,
# chromium, chromium-driver. As root on Debian or Ubuntu what is missing is installed; elsewhere its
# absence is told. The tests and benchmarks start all of them themselves.
set -eu

PATH=$PATH:/usr/sbin:/sbin:/usr/lib/rabbitmq/bin
missing=""
for package in "$@"; do
    program=$package
    [ "$package" != chromium-driver ] || program=chromedriver
    command -v "$program" >/dev/null || missing="$missing $package"
done
missing=${missing# }
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
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
echo "Installing $missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086  # a list of packages
apt-get install -y -qq --no-install-recommends $missing >/dev/null
