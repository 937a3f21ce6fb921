#!/bin/sh
# The images' lock files, from pyproject.toml: every package at one version, with the hashes of its files.
# Needs uv (pip install uv). TORCH_CPU says where the CPU's torch comes from, as options of uv.
set -eu
cd "$(dirname "$0")/.."

lock() {
    out=deploy/locks/$1.txt
    shift
    uv pip compile --no-config --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes \
        --no-annotate --custom-compile-command deploy/lock.sh --output-file "$out" "$@"
}

lock worker-cpu ${TORCH_CPU:---torch-backend cpu} --extra audio --extra vision pyproject.toml
# The same versions wherever both have a package; torch with CUDA is the one that PyPI has.
grep -v '^torch==' deploy/locks/worker-cpu.txt | grep -o '^[a-z0-9][^ ;]*==[^ ;]*' > deploy/locks/.versions
trap 'rm -f deploy/locks/.versions' EXIT
version=$(grep -o '^torch==[0-9.]*' deploy/locks/worker-cpu.txt)
echo "$version" >> deploy/locks/.versions
lock worker-gpu --constraints deploy/locks/.versions --extra audio --extra vision pyproject.toml
lock api --constraints deploy/locks/.versions --excludes deploy/locks/api-leaves-out.in --extra api pyproject.toml
lock build deploy/locks/build.in
