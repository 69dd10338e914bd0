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
# Lines of a target and its package, from the source: to ask go test for them would link the tests of every package.
go list -f '{{range .TestGoFiles}}{{$.ImportPath}} {{$.Dir}}/{{.}}
{{end}}{{range .XTestGoFiles}}{{$.ImportPath}} {{$.Dir}}/{{.}}
{{end}}' ./... >"$out"
while read -r package file; do
	[ -z "$package" ] || sed -n "s|^func \(Fuzz[A-Za-z0-9_]*\)([a-z_]* \*testing\.F).*|\1 $package|p" "$file"
done <"$out" >"$list"

# run TARGET PACKAGE. No vet: make lint and CI do that.
run() {
	go test -vet=off -run '^$' -fuzz "^$1\$" -fuzztime "$time" -fuzzminimizetime 20x "$2" </dev/null >"$out" 2>&1 || {
		cat "$out"
		return 1
	}
	cat "$out"
	if grep -q 'no fuzz tests to fuzz' "$out"; then
		echo "tools/fuzz.sh: go test does not find $1 in $2"
		return 1
	fi
}

# fuzz TARGET PACKAGE. Before Go 1.27 the go command can fail with nothing but "context deadline exceeded"
# when the time is up (go.dev/issue/75804): that is no finding, and is tried once more.
fuzz() {
	if run "$1" "$2"; then
		return
	fi
	if grep -q 'context deadline exceeded' "$out" && ! grep -q 'Failing input written' "$out"; then
		echo "the time was up at a bad moment; once more"
		run "$1" "$2"
		return
	fi
	return 1
}

count=0
seen=0
while read -r name package; do
	seen=$((seen + 1))
	[ $(((seen - 1) % ${share#*/})) -eq $((${share%/*} % ${share#*/})) ] || continue
	echo "+ go test -run '^\$' -fuzz '^$name\$' -fuzztime $time $package"
	fuzz "$name" "$package"
	count=$((count + 1))
done <"$list"
[ "$count" -gt 0 ] || {
	echo "tools/fuzz.sh: found no target" >&2
	exit 1
}
echo "$count targets of $seen, $time each"
