#!/bin/sh
# As rustc, for cargo (RUSTC_WRAPPER): our own code and the targets report what of them runs, as libFuzzer asks
# for it; what we depend on is compiled as ever. All of it is options of the stable compiler.
rustc=$1
shift
case " $* " in
*" --crate-name flowtap "* | *" targets/"*) ;;
*) exec "$rustc" "$@" ;;
esac
exec "$rustc" "$@" --cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
