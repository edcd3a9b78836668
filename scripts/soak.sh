#!/bin/sh
# Looks for rare faults of the core for as long as asked: scripts/soak.sh SECONDS (default 60; the build comes on top).
#
# Most of the time goes to the simulation, the rest to real kills, mutated input, schedules, memory, and clients of brokers
# that die. Every test prints the seed that repeats it. SANITIZE=1 runs the tests once more under AddressSanitizer, with a nightly Rust.
set -eu

seconds=${1:-60}
case $seconds in
'' | *[!0-9]*)
    printf 'soak: SECONDS=%s is not a whole number of seconds\n' "$seconds" >&2
    exit 2
    ;;
esac

# name, share of the time in percent, test program
stage() {
    share=$((seconds * $2 / 100))
    [ "$share" -gt 0 ] || share=1
    printf '==> %s for %s s\n' "$1" "$share"
    SIM_SECONDS=$share SOAK_SECONDS=$share cargo test --quiet --package broker_core --test "$3" -- \
        --nocapture --test-threads 8
}

cargo test --quiet --package broker_core --no-run
stage 'whole broker lives, simulated' 40 simulation
stage 'kill -9 under load' 20 kill9
stage 'mutated files, requests and dumps' 15 fuzz_corpus
stage 'schedules of the group commit and the wake-ups' 10 concurrency
stage 'memory under steady load' 5 steady_state
share=$((seconds / 10))
printf '==> clients of brokers that die for %s s\n' "$share"
MACHINE_SECONDS=$share .venv/bin/python -m pytest -q tests/faults/test_broker_lives.py

printf '==> a collector and its broker, killed 100 times for each store\n'
KILLS=100 .venv/bin/python -m pytest -q tests/faults/test_kill_collector.py

printf '==> several brokers that die, hang, are cut off, restarted, added and removed under load\n'
BROKERS_UNDER_LOAD=1 .venv/bin/python -m pytest -q tests/faults/test_brokers.py

if [ "${SANITIZE:-0}" = 1 ]; then
    if rustup run nightly rustc --version >/dev/null 2>&1; then
        printf '==> the tests under AddressSanitizer\n'
        target=$(rustc -vV | sed -n 's/^host: //p')
        RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=target/sanitizer \
            cargo +nightly test --quiet --package broker_core --target "$target" --lib --tests
    else
        printf 'skipped: AddressSanitizer needs a nightly Rust: rustup toolchain install nightly\n'
    fi
fi
