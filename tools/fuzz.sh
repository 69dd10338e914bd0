#!/bin/sh
# Fuzzes every target of the house, one after another: tools/fuzz.sh [TIME [SHARE]], 10s each by default. SHARE is
# such as 0/3: the first target and every third one after it.
# What makes a target fail is kept in its package's testdata/fuzz: commit it with the repair.
set -eu
cd "$(dirname "$0")/.."
time=${1:-10s}
share=${2:-0/1}

list=$(mktemp)
out=$(mktemp)
trap 'rm -f "$list" "$out"' EXIT INT TERM
# Prints the names of a package's targets, then "ok" and the package.
go test -list '^Fuzz' ./... >"$list" || {
	cat "$list"
	echo "tools/fuzz.sh: the tests do not build" >&2
	exit 1
}

# fuzz TARGET PACKAGE. Before Go 1.27 the go command can fail with nothing but "context deadline exceeded"
# when the time is up (go.dev/issue/75804): that is no finding, and is tried once more.
fuzz() {
	if go test -run '^$' -fuzz "^$1\$" -fuzztime "$time" -fuzzminimizetime 20x "$2" </dev/null >"$out" 2>&1; then
		cat "$out"
		return
	fi
	cat "$out"
	if grep -q 'context deadline exceeded' "$out" && ! grep -q 'Failing input written' "$out"; then
		echo "the time was up at a bad moment; once more"
		go test -run '^$' -fuzz "^$1\$" -fuzztime "$time" -fuzzminimizetime 20x "$2" </dev/null
		return
	fi
	return 1
}

count=0
seen=0
names=""
while read -r word package _; do
	case "$word" in
	Fuzz*) names="$names $word" ;;
	ok)
		for name in $names; do
			seen=$((seen + 1))
			[ $(((seen - 1) % ${share#*/})) -eq $((${share%/*} % ${share#*/})) ] || continue
			echo "+ go test -run '^\$' -fuzz '^$name\$' -fuzztime $time $package"
			fuzz "$name" "$package"
			count=$((count + 1))
		done
		names=""
		;;
	esac
done <"$list"
[ "$count" -gt 0 ] || {
	echo "tools/fuzz.sh: found no target" >&2
	exit 1
}
echo "$count targets of $seen, $time each"
