#!/usr/bin/env bash
# Runs an example over several processes, with MPI:
#     scripts/mpi.sh 4 quickstart [OPTIONS OF THE EXAMPLE]
# Installs Open MPI and libclang where they are missing and it may; `scripts/mpi.sh install` does
# only that. MPIRUN_OPTIONS holds further words for mpirun, such as `--host one:2,other:2`. With
# SYNCBN_MPI=mpich it is MPICH, beside which Open MPI may be installed, in a build folder of its
# own; `scripts/mpi.sh test` runs the tests of the crate over either.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

packages=(openmpi-bin libopenmpi-dev libclang-dev pkg-config)
launcher=mpirun compiler=mpicc
case ${SYNCBN_MPI:-openmpi} in
    openmpi) ;;
    mpich)
        packages=(mpich libmpich-dev libclang-dev pkg-config)
        # The names of Debian and Ubuntu, where both may be installed.
        launcher=mpiexec.mpich compiler=mpicc.mpich
        export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/mpich}
        export MPICC=$compiler SYNCBN_MPI_LAUNCHER=$launcher
        ;;
    *) echo "$0: SYNCBN_MPI is openmpi or mpich, and not $SYNCBN_MPI" >&2; exit 2 ;;
esac
examples=(quickstart train_step latency scaling)

has_libclang() {
    [[ -n "${LIBCLANG_PATH:-}" ]] && return
    [[ "$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null || true)" == *libclang[.-]* ]] &&
        return
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null && return
    # Of macOS: the command line tools of Xcode, and Homebrew.
    compgen -G '/Library/Developer/CommandLineTools/usr/lib/libclang*.dylib' >/dev/null ||
        compgen -G '/opt/homebrew/opt/llvm/lib/libclang*.dylib' >/dev/null ||
        compgen -G '/usr/local/opt/llvm/lib/libclang*.dylib' >/dev/null
}

is_complete() {
    local tool
    for tool in "$launcher" "$compiler"; do command -v "$tool" >/dev/null || return 1; done
    has_libclang
}

install_mpi() {
    if is_complete; then return 0; fi
    if apt_install "${packages[@]}" && is_complete; then return 0; fi
    echo "MPI and libclang are needed, for the crate syncbn-mpi alone. Install them, then run this again:" >&2
    apt_line "${packages[@]}" >&2
    echo "    brew install open-mpi llvm pkg-config    # macOS" >&2
    return 1
}

usage() {
    echo "usage: $0 PROCESSES EXAMPLE [OPTIONS], or $0 install, or $0 test; examples: ${examples[*]}" >&2
    exit 2
}

if [[ ${1:-} == install && $# == 1 ]]; then
    install_mpi
    exit
fi
if [[ ${1:-} == test ]]; then
    shift
    install_mpi
    exec cargo test --no-fail-fast --package syncbn-mpi -- "$@"
fi
(($# >= 2)) || usage
processes=$1 example=$2
shift 2
[[ $processes =~ ^[1-9][0-9]*$ && " ${examples[*]} " == *" $example "* ]] || usage
[[ ${1:-} == -- ]] && shift

install_mpi
cargo build --release --quiet --package syncbn-mpi --example "mpi_$example"
program=${CARGO_TARGET_DIR:-target}/release/examples/mpi_$example
# Open MPI refuses to start more processes than cores, and to run as root, unless told.
export OMPI_MCA_rmaps_base_oversubscribe=1
if [[ $(id -u) == 0 ]]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
read -ra options <<<"${MPIRUN_OPTIONS:-}"
exec "$launcher" -n "$processes" ${options[@]+"${options[@]}"} "$program" "$@"
