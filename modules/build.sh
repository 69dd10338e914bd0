#!/bin/sh
# Builds the built-in serializers: modules/NAME.wasm from modules/NAME/src and sdk/rust.
#
#   modules/build.sh           builds every module in place
#   modules/build.sh --check   builds into a temporary folder and compares bytes with what is committed
#   RUSTC=/path/to/rustc       builds with that compiler
#
# The committed bytes are those of Debian 12's rustc 1.63.0 (packages rustc, libstd-rust-dev-wasm32 and
# lld-14), wherever the checkout lies. Another compiler builds working modules with other bytes.
set -eu

modules=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$modules")
want="1.63.0"

fail() {
	echo "modules/build.sh: $*" >&2
	exit 1
}

version() { "$1" --version 2>/dev/null | cut -d ' ' -f 2; }

# has_target RUSTC: whether it can compile for wasm32-unknown-unknown.
has_target() {
	dir=$("$1" --print target-libdir --target wasm32-unknown-unknown 2>/dev/null) || return 1
	ls "$dir"/libcore-*.rlib >/dev/null 2>&1
}

pick() {
	if [ -n "${RUSTC:-}" ]; then
		has_target "$RUSTC" || fail "RUSTC=$RUSTC has no target wasm32-unknown-unknown"
		echo "$RUSTC"
		return
	fi
	if [ -x /usr/bin/rustc ] && [ "$(version /usr/bin/rustc)" = "$want" ] && has_target /usr/bin/rustc; then
		echo /usr/bin/rustc
		return
	fi
	if command -v rustc >/dev/null && has_target rustc; then
		command -v rustc
		return
	fi
	fail "no rustc with the target wasm32-unknown-unknown; on Debian 12: apt-get install rustc libstd-rust-dev-wasm32 lld-14"
}

# The paths of this checkout stand in panic messages and in the crates' hashes: give them names
# that are the same everywhere. One codegen unit, so that the order of functions is the compiler's
# alone.
rust() {
	"$rustc" --edition 2021 --target wasm32-unknown-unknown --remap-path-prefix "$root=torpor" \
		-C opt-level=3 -C panic=abort -C codegen-units=1 -C embed-bitcode=yes \
		-C target-feature=+bulk-memory,+simd128 -C metadata=torpor "$@"
}

# compile NAME OUT, with the crate torpor at hand. A small stack that lies first, so that an overflow
# traps, and a declared maximum of memory: 1 MiB, which modules without an allocator never grow to, or
# what NAME/max-memory says.
compile() {
	memory=1048576
	if [ -f "$modules/$1/max-memory" ]; then memory=$(cat "$modules/$1/max-memory"); fi
	rust --crate-type cdylib --crate-name "$1" --extern torpor="$work/libtorpor.rlib" \
		-C lto=fat -C strip=symbols -C link-arg=-zstack-size=65536 -C link-arg=--max-memory="$memory" \
		-o "$2" "$modules/$1/src/lib.rs"
}

check=no
case "${1:-}" in
"") ;;
--check) check=yes ;;
*) fail "unknown option $1; usage: modules/build.sh [--check]" ;;
esac

rustc=$(pick)
if [ "$(version "$rustc")" != "$want" ]; then
	echo "modules/build.sh: $rustc is $(version "$rustc"), not $want: the bytes may differ from those committed" >&2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

rust --crate-type rlib --crate-name torpor -o "$work/libtorpor.rlib" "$root/sdk/rust/src/lib.rs"
status=0
for src in "$modules"/*/src/lib.rs; do
	name=$(basename "$(dirname "$(dirname "$src")")")
	compile "$name" "$work/$name.wasm"
	chmod 644 "$work/$name.wasm"
	if [ "$check" = no ]; then
		mv "$work/$name.wasm" "$modules/$name.wasm"
		echo "modules/$name.wasm: $(wc -c <"$modules/$name.wasm") bytes"
	elif cmp -s "$work/$name.wasm" "$modules/$name.wasm"; then
		echo "modules/$name.wasm: as built from source"
	else
		echo "modules/build.sh: modules/$name.wasm is not what its source builds to with rustc $(version "$rustc"): run modules/build.sh and commit the result" >&2
		status=1
	fi
done
exit $status
