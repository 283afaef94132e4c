# shellcheck shell=bash
# What scripts have in common; they source it. Works with the bash 3.2 of macOS.

# step NAME COMMAND...: runs the command and prints how long it took.
step() {
    local name=$1 start=$SECONDS
    shift
    echo "== $name"
    "$@"
    echo "== $name: $((SECONDS - start)) s"
}

# beside COMMAND...: runs the command in the background, in a process group of its own. What it
# prints comes when it has been waited for. A script that calls this ends with `end_beside`.
outputs=() running=()
beside() {
    local output
    output=$(mktemp)
    outputs+=("$output")
    set -m
    ("$@") >"$output" 2>&1 &
    set +m
    running+=($!)
}
# One by one: of several, `wait` tells how the last one ended.
wait_for_all() {
    local index
    for ((index = 0; index < ${#running[@]}; index++)); do
        if ! wait "${running[index]}"; then
            echo "=== failed beside the others; it said:" >&2
            return 1
        fi
        running[index]=
        cat "${outputs[index]}"
        rm -f "${outputs[index]}"
    done
}
# Ends what still runs, and prints what it said.
end_beside() {
    local index
    for ((index = 0; index < ${#running[@]}; index++)); do
        [[ ${running[index]} ]] || continue
        if kill -- "-${running[index]}" 2>/dev/null; then
            echo "=== ended, because this script ends; it had said:"
            wait "${running[index]}" 2>/dev/null || true
        fi
        cat "${outputs[index]}"
        rm -f "${outputs[index]}"
    done
    running=() outputs=()
}

# apt_install PACKAGE...: installs packages of Debian or Ubuntu where this user may; in CI also by
# sudo.
apt_install() {
    local sudo=()
    if [[ $(id -u) != 0 ]]; then
        [[ ${CI:-} == true ]] && sudo -n true 2>/dev/null || return 1
        sudo=(sudo)
    fi
    command -v apt-get >/dev/null || return 1
    echo "Installing $*" >&2
    # Another script may install at the same time: one waits for the other.
    (
        flock 9
        ${sudo[@]+"${sudo[@]}"} apt-get update -qq &&
            ${sudo[@]+"${sudo[@]}"} env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    ) 9>"${TMPDIR:-/tmp}/syncbn-apt.lock"
}

# apt_line PACKAGE...: the line that does it by hand.
apt_line() {
    echo "    sudo apt-get update && sudo apt-get install -y $*    # Debian, Ubuntu"
}

# need COMMAND PACKAGE...: installs the packages where there is no such command.
need() {
    local tool=$1
    shift
    command -v "$tool" >/dev/null && return
    apt_install "$@" && command -v "$tool" >/dev/null && return
    echo "$tool was not found. Install it, then run this again:" >&2
    apt_line "$@" >&2
    return 1
}

# need_python_tool PACKAGE==VERSION COMMAND: a program that PyPI has, in target/tools and on the
# path.
need_python_tool() {
    local package=$1 tool=$2 folder=$PWD/target/tools/${1//==/-} python=python3
    command -v python3 >/dev/null || python=python
    export PATH=$folder/bin:$PATH
    [[ -x $folder/bin/$tool || -x $folder/bin/$tool.exe ]] && return
    "$python" -m pip --version >/dev/null 2>&1 || apt_install python3-pip || true
    if "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder" \
        "$package"; then
        return
    fi
    echo "$tool could not be installed. Run this again when this succeeds:" >&2
    echo "    $python -m pip install --no-deps --target $folder $package" >&2
    return 1
}

# need_rust KIND NAME...: what rustup adds: target NAME, toolchain NAME, or component NAME
# TOOLCHAIN.
need_rust() {
    local words
    case $1 in
        target) words=(target add "$2") ;;
        toolchain) words=(toolchain install "$2" --profile minimal --no-self-update) ;;
        component) words=(component add "$2" --toolchain "$3") ;;
    esac
    local said
    said=$(rustup "${words[@]}" 2>&1) && return
    echo "$said" >&2
    echo "This did not succeed; run this again when it does:" >&2
    echo "    rustup ${words[*]}" >&2
    return 1
}
