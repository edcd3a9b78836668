#!/bin/sh
# What a build needs from the machine. Prints the Python to use on stdout, or says on stderr what is missing or too old,
# each with the line that installs it, and exits 1.
#
# PYTHON  the interpreter to use; unset: the first of python3, python3.14 ... python3.11 that is new enough.
set -eu

missing=0
lacks() { # what, install line
    printf 'missing: %s\n    install it with: %s\n' "$1" "$2" >&2
    missing=1
}

for tool in git make; do
    command -v "$tool" >/dev/null 2>&1 || lacks "$tool" "apt-get install -y $tool"
done

# Cargo links through `cc`: a compiler alone, without the headers and start files of libc, is not enough.
if ! command -v cc >/dev/null 2>&1; then
    lacks "a C compiler (cc)" "apt-get install -y gcc libc6-dev"
else
    scratch=$(mktemp -d)
    if ! printf '#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n' |
        cc -x c - -o "$scratch/program" >/dev/null 2>&1; then
        lacks "the libc headers (cc cannot build an empty program)" "apt-get install -y libc6-dev"
    fi
    rm -rf "$scratch"
fi

# rustc's version is what counts; `rustc 1.95.0 (...)` -> 1 95.
rust_install="https://rustup.rs, or on Debian 12: apt-get install -y rustc-web cargo-web"
if ! command -v rustc >/dev/null 2>&1 || ! command -v cargo >/dev/null 2>&1; then
    lacks "Rust >= 1.88 (rustc and cargo)" "$rust_install"
else
    rust_version=$(rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9]*\.[0-9]*\).*/\1/p')
    if [ -z "$rust_version" ]; then
        lacks "Rust >= 1.88 (\`rustc --version\` fails)" "$rust_install"
    elif [ "${rust_version%%.*}" -eq 1 ] && [ "${rust_version#*.}" -lt 88 ]; then
        lacks "Rust >= 1.88 (found $rust_version)" "$rust_install"
    fi
fi

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
python=
for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if new_enough "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    lacks "Python >= 3.11 (tried ${PYTHON:-python3, python3.14 ... python3.11})" \
        "apt-get install -y python3-venv, or name one: make PYTHON=/path/to/python3"
elif ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    lacks "venv and ensurepip of $python" "apt-get install -y python3-venv"
fi

[ "$missing" -eq 0 ] || exit 1
printf '%s\n' "$python"
