#!/bin/sh
# Makes .venv from requirements.txt. Needs Python 3.11 or later; Debian ships its venv module apart, so that is fetched.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

say() { printf 'bootstrap: %s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        say "needs root for: $*; run it as root, or install sudo"
        return 1
    fi
}

case $PWD in
    *[[:space:]]*)
        say "$PWD has a space in it, which supervisord and Ansible cannot do with; clone to another directory"
        exit 1
        ;;
esac

if [ -L .venv ]; then
    say ".venv is a link to $(readlink .venv), and what is there would be deleted; remove the link first"
    exit 1
fi

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    say "$python is older than 3.11; name a newer one with PYTHON="
    exit 1
fi

if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    say "installing python3-venv"
    as_root apt-get update --quiet=2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends python3-venv
fi

say "making .venv (once for every change of requirements.txt)"
"$python" -m venv --clear .venv
# What is used is compiled when it is used first: of the thousands of files in the package "ansible", few ever are.
.venv/bin/pip install --quiet --disable-pip-version-check --no-compile --require-hashes --requirement requirements.txt
.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
touch .venv/installed
