# shellcheck shell=bash disable=SC2034,SC2154
# Owns the choice of the driver for gpu_run.sh, which reads this file: libraries, manifests,
# adapters. Uses its `say`, and $work, $logs, $results and $software.

library_folders=(/usr/lib/x86_64-linux-gnu /lib/x86_64-linux-gnu /usr/lib64 /lib64 /usr/lib
    /usr/local/lib
    /usr/local/nvidia/lib64 /usr/local/nvidia/lib /usr/lib/wsl/lib)
given_library_path=${LD_LIBRARY_PATH:-}
manifest_folders=(/usr/local/share/vulkan/icd.d /usr/share/vulkan/icd.d /etc/vulkan/icd.d
    /usr/local/nvidia/share/vulkan/icd.d)

# Prints where a library of the system lies.
system_library() {
    local place given
    IFS=: read -ra given <<<"$given_library_path"
    for place in ${given[@]+"${given[@]}"} "${library_folders[@]}"; do
        [[ -e $place/$1 ]] && echo "$place/$1" && return
    done
    return 1
}

# Of the libraries that were packed, those that this system lacks; and those of a driver that lies
# apart.
use_libraries() {
    local path name
    local nvidia=/usr/local/nvidia/lib64
    mkdir -p "$work/used"
    for path in "$work"/lib/*; do
        name=${path##*/}
        system_library "$name" >/dev/null || ln -sf "$path" "$work/used/$name"
    done
    [[ -d $nvidia ]] || nvidia=''
    export LD_LIBRARY_PATH=$work/used${given_library_path:+:$given_library_path}${nvidia:+:$nvidia}
}

is_software() { [[ ${1##*/} == *lvp* || ${1##*/} == *swiftshader* ]]; }

# Prints the manifests of a kind, joined by colons.
manifests() {
    local place path joined=''
    for place in "${manifest_folders[@]}"; do
        for path in "$place"/*.json; do
            if [[ $1 == software ]]; then
                is_software "$path" || continue
            else
                is_software "$path" && continue
            fi
            joined+=${joined:+:}$path
        done
    done
    echo "$joined"
}

# Containers often have NVIDIA's driver without its manifest: writes one for a library, and prints
# its path.
write_manifest() {
    local library
    library=$(system_library "$1") || return 1
    cat >"$work/$1.json" <<JSON
{"file_format_version": "1.0.0", "ICD": {"library_path": "$library", "api_version": "1.3.204"}}
JSON
    echo "$work/$1.json"
}

# Sets adapter, driver, f64 (`f64` or `no f64`) and VK_DRIVER_FILES to the first driver that has an
# adapter of the kind that is wanted.
choose_driver() {
    local candidate kind backend name version doubles candidates=()
    if [[ -n ${VK_DRIVER_FILES:-} ]]; then
        candidates=("$VK_DRIVER_FILES")
    elif [[ -n $software ]]; then
        candidates=("$(manifests software)")
    else
        candidates=("$(manifests hardware)" "$(write_manifest libGLX_nvidia.so.0)"
            "$(write_manifest libEGL_nvidia.so.0)")
    fi
    for candidate in "${candidates[@]}"; do
        [[ -n $candidate ]] || continue
        say "trying the driver of $candidate"
        VK_DRIVER_FILES=$candidate VK_ICD_FILENAMES=$candidate \
            timeout 60 "$work/bin/report" --list-adapters >"$logs/adapters" \
            2>>"$results/all.log" || continue
        while IFS=$'\t' read -r kind backend name version doubles; do
            say "  found $name: $kind, $backend, driver $version, $doubles"
            [[ $kind == Cpu && -z $software ]] && continue
            export VK_DRIVER_FILES=$candidate VK_ICD_FILENAMES=$candidate
            adapter=$name f64=$doubles driver="$version, $backend, by $candidate"
            return
        done <"$logs/adapters"
    done
    return 1
}

# What explains that there is no adapter.
explain() {
    local path
    say "No ${software:+software }adapter was found. What there is:"
    say "  manifests: $(manifests hardware) $(manifests software)"
    for path in libGLX_nvidia.so.0 libEGL_nvidia.so.0 libvulkan.so.1; do
        say "  $path: $(system_library "$path" || echo absent)"
    done
    say "  devices:" /dev/dri/* /dev/nvidia* /dev/dxg*
    [[ -n $software ]] ||
        say "A container of NVIDIA's needs NVIDIA_DRIVER_CAPABILITIES=all, or graphics. --software allows a software driver."
}
