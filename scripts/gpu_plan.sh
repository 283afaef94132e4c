# shellcheck shell=bash disable=SC2034,SC2154
# Owns the plan of gpu_run.sh, which reads this file: the steps in their order, which of them are
# asked for, and the folder that the results go to. Uses its `step`, `tests`, `bench`, `torch` and
# `fail`, and $only, $folder and $results.

# Tests of the hostile compiler itself, which need a driver that changes no arithmetic: hardware's
# may, software drivers do not.
honest=on_an_honest_driver

# Every step in order of importance. Also gone through for the names alone.
plan() {
    step adapter 30 bash -c adapter_facts
    step report 100 "$work/bin/report" --adapter "$adapter" --markdown "$results/report.md" \
        --json "$results/report.json"
    tests 60 group_accuracy group_forward group_backward rounding
    tests 90 on_device hostile
    bench bench_quick 45 all --quick
    tests 90 storage epilogue
    bench bench_f32_first 85 all
    torch 85
    bench bench_f16_first 65 resnet50,mlp --dtype f16
    bench bench_bf16_first 65 resnet50,mlp --dtype bf16
    bench bench_f32_last 65 resnet50,mlp --layout last
    bench bench_f16_last 65 resnet50,mlp --dtype f16 --layout last
    bench bench_add_relu 65 resnet50 --epilogue add_relu
    bench bench_shared 45 resnet50,tiny --shared-device --devices 2
    tests 60 conformance group_devices faults probe shaders large
}

# Set while the plan is gone through for its names alone.
listing=''
known=() known_tests=()

# asked NAME: whether a step is to run.
asked() {
    if [[ -n $listing ]]; then
        known+=("$1")
        return 1
    fi
    [[ -z $only || ,$only, == *,$1,* ]]
}

list_steps() {
    listing=1
    plan
    listing=''
}

# In lines of 100 characters.
step_names() {
    local name line=' '
    for name in "${known[@]}"; do
        if ((${#line} + ${#name} > 99)); then
            echo "$line"
            line=' '
        fi
        line+=" $name"
    done
    echo "$line"
}

# program_of TEST: the binary that has a test, which is one of its modules unless it is a binary of
# its own.
program_of() {
    case $1 in
    conformance | hostile) echo "$1" ;;
    *) echo it ;;
    esac
}

# Refuses names that are no steps, and tests that are not in the folder.
check_names() {
    local name names programs
    [[ -n $only ]] || return 0
    programs=" $(packed_programs) "
    IFS=, read -ra names <<<"$only"
    for name in "${names[@]}"; do
        [[ " ${known[*]} " == *" $name "* && -n $name ]] ||
            fail "no step is called '$name'. There are:"$'\n'"$(step_names)"
        [[ " ${known_tests[*]} " != *" $name "* || $programs == *" $(program_of "$name") "* ]] ||
            fail "the test '$name' is not in '$folder': it was not packed."
    done
}

packed_programs() {
    local line
    while IFS= read -r line; do
        [[ $line == 'programs: '* ]] && echo "${line#programs: }"
    done <"$folder/PACKED"
    return 0
}

# Earlier results stay as they are.
choose_results() {
    local number=1
    if [[ -n $results ]]; then
        [[ ! -e $results/steps.jsonl ]] ||
            fail "$results has the results of another run: name another folder."
        return
    fi
    results=$folder/results
    while [[ -e $results ]]; do
        number=$((number + 1))
        results=$folder/results-$number
    done
}
