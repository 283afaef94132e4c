#!/usr/bin/env bash
# Installs other implementations of batch normalization, each in a virtual environment of its own:
# compare.py times them, accuracy.py compares their results.
#     scripts/peers/setup.sh [torch] [jax] [tf] [ms] [paddle] [onnx]
# Without arguments: torch and jax. All of them take about 11 GB in ~/.cache/syncbn-peers, or in the
# folder that SYNCBN_PEER_VENVS names. Nothing else is changed. torch compiles with the system's C++
# compiler.
set -euo pipefail

environments=${SYNCBN_PEER_VENVS:-$HOME/.cache/syncbn-peers}
# torch from PyPI links to CUDA's libraries also where it runs on a CPU: these suffice.
torch_libraries=(nvidia-cublas==13.4.1.3 nvidia-cuda-cupti==13.2.86 nvidia-cuda-nvrtc==13.2.86
    nvidia-cuda-runtime==13.2.86 nvidia-cudnn-cu13==9.26.0.51 nvidia-cufft==12.2.0.57
    nvidia-cufile==1.17.1.22 nvidia-cusparse==12.7.10.12 nvidia-cusparselt-cu13==0.8.1
    nvidia-nccl-cu13==2.30.7 nvidia-nvjitlink==13.5.37 nvidia-nvshmem-cu13==3.7.2)

# in_environment NAME ARGUMENTS...: pip install in an environment, which is made if there is none.
in_environment() {
    local folder=$environments/$1
    shift
    [[ -x $folder/bin/python ]] || python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet "$@"
}

install() {
    case $1 in
        torch)
            in_environment torch --no-deps torch==2.15.0 "${torch_libraries[@]}"
            in_environment torch filelock sympy networkx jinja2 fsspec typing_extensions numpy \
                'setuptools>=77'
            ;;
        jax) in_environment jax jax==0.10.2 flax==0.12.8 ;;
        tf) in_environment tf tensorflow-cpu==2.21.0 keras==3.15.1 ;;
        ms) in_environment ms mindspore==2.10.0 'numpy<2' ;;
        paddle) in_environment paddle paddlepaddle==3.3.1 ;;
        onnx) in_environment onnx onnx onnxruntime==1.31.1 ;;
        *)
            echo "$1 is unknown; known are torch, jax, tf, ms, paddle and onnx" >&2
            exit 2
            ;;
    esac
    echo "$1 is ready in $environments/$1"
}

mkdir -p "$environments"
(($#)) || set -- torch jax
for name in "$@"; do install "$name"; done
