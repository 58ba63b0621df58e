#!/bin/sh
# Sets up this clone: the Mosquitto broker as a system package, and .venv with fl-mqtt in it (editable).
#
#   scripts/setup.sh         installs what the programs need
#   scripts/setup.sh --dev   installs what the tests need as well
#   scripts/setup.sh --docs  installs what builds the documentation site as well
#
# PYTHON=python3.12   the interpreter (default: the first of python3, python3.14 … that is 3.11 or later)
# TORCH_INDEX=URL     takes torch and torchvision, and nothing else, from another package index
#
# Without TORCH_INDEX, a Linux machine without an NVIDIA device gets PyTorch's CPU build, if the index for it answers.
# PyPI's build has several GB of CUDA.
#
# It asks no questions, and changes nothing outside this folder except system packages, which it names first. If
# everything is installed, it ends at once. It is POSIX sh, the newest shell that macOS and Debian have in common.
set -eu

cd "$(dirname "$0")/.."
here=$(pwd -P)
dev=no
[ "${1:-}" = --dev ] && dev=yes
docs=no
[ "${1:-}" = --docs ] && docs=yes

# Debian's directory of the broker is not in the PATH of ordinary users, Homebrew's not in that of new shells.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/opt/homebrew/bin:/opt/homebrew/sbin
export PATH
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# pip's cache is outside this folder, and torch would add gigabytes to it. A cache that the user chose is used.
[ -n "${PIP_CACHE_DIR:-}" ] || export PIP_NO_CACHE_DIR=1
[ -t 1 ] || export PIP_PROGRESS_BAR=off

CPU_INDEX=https://download.pytorch.org/whl/cpu
CPU_INDEX_TIMEOUT=5 # seconds
NVIDIA_DEVICES="/dev/nvidia[0-9]* /dev/nvhost-* /dev/dxg" # of a driver, of a Jetson, of WSL

say() { printf '==> %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# --- system packages --------------------------------------------------------------------------------------

package_manager() {
    case $(uname -s) in
        Darwin) managers=brew ;;
        *) managers="apt-get dnf pacman brew" ;;
    esac
    for manager in $managers; do
        if has "$manager"; then
            echo "$manager"
            return
        fi
    done
}

# install_command MANAGER PACKAGE…: what a person would type.
install_command() {
    with=$1
    shift
    case $with in
        apt-get) echo "apt-get install -y --no-install-recommends $*" ;;
        dnf) echo "dnf install -y $*" ;;
        pacman) if [ -e /var/lib/pacman/sync/core.db ]; then
            echo "pacman -S --noconfirm --needed $*"
        else
            echo "pacman -Sy --noconfirm --needed $*"
        fi ;;
        brew) echo "brew install $*" ;;
    esac
}

may_be_root() { [ "$(id -u)" = 0 ] || { has sudo && sudo -n true 2>/dev/null; }; }

# as_root COMMAND…: a wrong password or a question is a failure, never a prompt.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        env DEBIAN_FRONTEND=noninteractive "$@" </dev/null
    else
        sudo -n env DEBIAN_FRONTEND=noninteractive "$@" </dev/null
    fi
}

# install_packages MANAGER PACKAGE…: names them, then installs them. Status 1 if that cannot be done.
install_packages() {
    manager=$1
    command=$(install_command "$@")
    if [ "$manager" = brew ]; then
        say "installing with Homebrew: $command"
        NONINTERACTIVE=1 $command </dev/null
        return
    fi
    may_be_root || return 1
    say "installing system packages: $command"
    if [ "$manager" = apt-get ]; then
        # A stale or missing list is no reason to stop: if it matters, the installation fails.
        as_root apt-get update -qq || say "apt-get update failed; trying with the existing package lists"
        command="apt-get -o DPkg::Lock::Timeout=120 ${command#apt-get }"
    fi
    # shellcheck disable=SC2086
    as_root $command
}

# require_packages WHAT PACKAGE…: or say which command to run, and stop.
require_packages() {
    what=$1
    shift
    manager=$(package_manager)
    [ -n "$manager" ] || fail "$what is missing, and there is no apt-get, dnf, pacman or brew to install it.
    Please install it yourself (packages: $*), then run make again."
    if ! install_packages "$manager" "$@"; then
        prefix="sudo "
        { [ "$manager" = brew ] || [ "$(id -u)" = 0 ]; } && prefix=
        update=
        [ "$manager" != apt-get ] || update="${prefix}apt-get update; "
        fail "$what is missing and could not be installed from here. Please run

    $update$prefix$(install_command "$manager" "$@")

and then call make again."
    fi
}

ensure_broker() {
    packages=
    has mosquitto || packages=mosquitto
    if ! has mosquitto_pub || ! has mosquitto_sub; then
        case $(package_manager) in
            apt-get) packages="$packages mosquitto-clients" ;;
            *) packages=mosquitto ;; # elsewhere the clients are in the same package
        esac
    fi
    [ -n "$packages" ] || return 0
    started=no
    # Debian's package starts a service on installation, if there is an init system.
    case $packages in mosquitto | mosquitto\ *) [ -d /run/systemd/system ] && has apt-get && started=yes ;; esac
    # shellcheck disable=SC2086
    require_packages "Mosquitto (broker and clients)" $packages
    has mosquitto || fail "the package mosquitto is installed, but there is no program mosquitto in $PATH"
    if [ "$started" = yes ]; then
        say "note: the package has also started its own broker on localhost:1883, now and at every boot."
        say "      fl-mqtt's demo and tests do not use it. Switch it off: sudo systemctl disable --now mosquitto"
    fi
}

# Real images for the tests, if Debian's package is available. Without them, the tests say why they are skipped.
ensure_dataset() {
    [ ! -e /usr/share/datasets/fashion-mnist ] || return 0
    [ "$(package_manager)" = apt-get ] || return 0
    install_packages apt-get dataset-fashion-mnist ||
        say "no Fashion-MNIST for the tests (Debian's package dataset-fashion-mnist): continuing without"
}

# A Chromium for the tests of the dashboard. Without one, they say why they are skipped.
ensure_browser() {
    for browser in "${FL_CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable; do
        [ -z "$browser" ] || ! has "$browser" || return 0
    done
    [ "$(package_manager)" = apt-get ] || return 0
    install_packages apt-get chromium ||
        say "no Chromium for the tests of the dashboard (Debian's package chromium): continuing without"
}

# --- the virtual environment ------------------------------------------------------------------------------

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# Sets `python`.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        found=$(version_of "$PYTHON") || fail "PYTHON=$PYTHON: this does not start Python"
        is_new_enough "$PYTHON" || fail "PYTHON=$PYTHON is Python $found; 3.11 or later is needed"
        python=$PYTHON
        return
    fi
    for python in python3 python3.14 python3.13 python3.12 python3.11 python; do
        ! is_new_enough "$python" || return 0
    done
    found=$(version_of python3) || found=none
    fail "Python 3.11 or later is needed (found: $found). Install it, or give its path:
    PYTHON=/path/to/python3.12 make setup"
}

# Prints why the existing environment cannot be used; nothing if it can.
why_anew() {
    if ! is_new_enough .venv/bin/python; then
        echo "its Python does not start, or is older than 3.11"
    elif [ -f .venv/.setup ] && [ "$(head -n 1 .venv/.setup)" != "$here" ]; then
        echo "it was made in another folder"
    elif [ -n "${PYTHON:-}" ] && [ "$(version_of "$PYTHON")" != "$(version_of .venv/bin/python)" ]; then
        echo "PYTHON=$PYTHON has another version"
    elif [ -n "${TORCH_INDEX:-}" ] && has_torch && [ "$(cat .venv/.torch-index 2>/dev/null)" != "$TORCH_INDEX" ]; then
        echo "its torch is from another index"
    fi
}

has_torch() { ls -d .venv/lib/python3*/site-packages/torch >/dev/null 2>&1; }

ensure_environment() {
    reason=
    if [ -e .venv ]; then
        reason=$(why_anew)
        [ -n "$reason" ] || return 0
    fi
    find_python
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        if [ "$(package_manager)" != apt-get ]; then
            fail "$python has no modules venv and ensurepip; install them, or name another Python: PYTHON=… make setup"
        fi
        require_packages "Python's module venv" "python$(version_of "$python")-venv"
        "$python" -c 'import ensurepip, venv' || fail "$python has no modules venv and ensurepip"
    fi
    if [ -n "$reason" ]; then
        say "recreating .venv ($reason)"
    else
        say "creating .venv with $("$python" --version)"
    fi
    "$python" -m venv --clear .venv
}

has_nvidia() {
    for device in $NVIDIA_DEVICES; do
        [ ! -e "$device" ] || return 0
    done
    return 1
}

# The alarm ends the program wherever it is, also in the look-up of a name, which has no other bound.
cpu_index_answers() {
    (.venv/bin/python -c 'import signal, sys, urllib.request
signal.alarm(int(sys.argv[2]))
urllib.request.urlopen(sys.argv[1] + "/torch/").close()' "$CPU_INDEX" "$CPU_INDEX_TIMEOUT" || exit 1) 2>/dev/null
}

pip() { .venv/bin/python -m pip "$@"; }

install_project() {
    if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
        .venv/bin/python -m ensurepip
    fi
    extra=edge
    ! has_nvidia || extra=edge-cuda
    if [ -n "${TORCH_INDEX:-}" ]; then
        [ "$(cat .venv/.torch-index 2>/dev/null)" = "$TORCH_INDEX" ] || install_torch "$TORCH_INDEX"
    elif [ "$(uname -s)" = Linux ] && ! has_torch; then
        choose_torch
    fi
    say "installing fl-mqtt with the extras '$extra' and 'report' into .venv"
    pip install --editable ".[$extra,report]"
}

# install_torch INDEX: torch and torchvision alone. The versions are those of pyproject.toml; no other place repeats them.
install_torch() {
    say "installing torch and torchvision from $1"
    .venv/bin/python -c 'import pathlib, sys, tomllib
project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
print(*(r for r in project["optional-dependencies"][sys.argv[1]] if r.startswith("torch")), sep="\n")' \
        "$extra" >.venv/.torch-requirements || return 1
    pip install --index-url "$1" --requirement .venv/.torch-requirements || return 1
    echo "$1" >.venv/.torch-index
}

choose_torch() {
    if has_nvidia; then
        say "this machine has an NVIDIA device: taking PyPI's torch, with several GB of CUDA"
    elif ! cpu_index_answers; then
        say "no NVIDIA device, but $CPU_INDEX did not answer within $CPU_INDEX_TIMEOUT s:"
        say "      taking PyPI's torch, which for x86-64 has several GB of CUDA"
    else
        say "no NVIDIA device: taking the CPU build of torch"
        install_torch "$CPU_INDEX" || say "that failed: taking PyPI's torch"
    fi
}

# install_group GROUP WHAT. Dependency groups came with pip 25.1.
install_group() {
    say "installing $2 into .venv"
    .venv/bin/python -c 'import sys, pip
sys.exit([int(n) for n in pip.__version__.split(".")[:2]] < [25, 1])' || pip install --upgrade 'pip>=25.1'
    pip install --group "$1"
}

fingerprint() {
    echo "$here"
    cat pyproject.toml scripts/setup.sh | cksum
}
is_current() { [ -f ".venv/$1" ] && [ "$(cat ".venv/$1")" = "$wanted" ]; }

# promtool, with which a test checks the format of the metrics. Without it, the test says why it is skipped.
ensure_promtool() {
    ! has promtool || return 0
    [ "$(package_manager)" = apt-get ] || return 0
    if [ -d /run/systemd/system ]; then
        say "no promtool for the tests: apt-get install prometheus provides it, but also starts a server"
        return 0
    fi
    install_packages apt-get prometheus ||
        say "no promtool for the tests (Debian's package prometheus): continuing without"
}

# MicroPython, in which a test runs an edge. Debian 12 does not have it. Without it, the test says why it is skipped.
ensure_micropython() {
    ! has micropython || return 0
    [ "$(package_manager)" = apt-get ] || return 0
    { apt-cache show micropython >/dev/null 2>&1 && install_packages apt-get micropython; } ||
        say "no MicroPython for the tests (Debian's package micropython): continuing without"
}

# ----------------------------------------------------------------------------------------------------------

ensure_broker
[ "$dev" = no ] || ensure_dataset
[ "$dev" = no ] || ensure_browser
[ "$dev" = no ] || ensure_promtool
[ "$dev" = no ] || ensure_micropython
ensure_environment
wanted=$(fingerprint)
did=nothing
if ! is_current .setup; then
    install_project
    echo "$wanted" >.venv/.setup
    did=something
fi
if [ "$dev" = yes ] && ! is_current .setup-dev; then
    install_group dev "the tools of the tests"
    echo "$wanted" >.venv/.setup-dev
    did=something
fi
if [ "$docs" = yes ] && ! is_current .setup-docs; then
    install_group docs "what builds the documentation site"
    echo "$wanted" >.venv/.setup-docs
    did=something
fi
if [ $did = nothing ]; then
    say "already set up"
else
    say "ready: fl-mqtt, fl-aggregator and fl-edge in .venv/bin"
fi
