package metrics_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.yaml.in/yaml/v3"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/metrics"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/tests/need"
)

// documented is what a metric is, in the words of README.md's table.
type documented struct {
	kind   string
	labels []string
}

// exposed is every metric the program can expose, found by making everything happen once.
func exposed(t *testing.T) map[string]documented {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	m, err := metrics.New(reg, metrics.Build{Version: "v", Revision: "r", GoVersion: "g"})
	if err != nil {
		t.Fatal(err)
	}
	rt, err := runtime.New(runtime.Config{Logger: slog.New(slog.DiscardHandler),
		Services: []runtime.ServiceConfig{{Name: "s3", Parts: []runtime.PartConfig{{Name: "store"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Watch(reg, rt); err != nil {
		t.Fatal(err)
	}
	m.SaveFinished(runtime.SaveEvent{Service: "s3", Part: "store"})
	m.SaveFinished(runtime.SaveEvent{Service: "s3", Part: "store", Err: errors.New("x")})
	m.RestoreFinished(runtime.RestoreEvent{Service: "s3", Part: "store"})
	m.RequestsHeld("s3", time.Millisecond, nil)
	m.GenerationQuarantined("s3", "store")
	m.ServiceWoken(runtime.WakeEvent{Service: "s3"})
	m.ServiceSlept(runtime.SleepEvent{Service: "s3"})
	m.ProcessExited("s3")
	m.ModuleCompiled("records", time.Millisecond, nil)
	m.ModuleCalled("records", "save", host.CallCost{})
	m.RequestServed("s3", 200, time.Millisecond)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]documented{}
	for _, f := range families {
		d := documented{kind: strings.ToLower(f.GetType().String())}
		for _, l := range f.GetMetric()[0].GetLabel() {
			d.labels = append(d.labels, l.GetName())
		}
		if f.GetType() == dto.MetricType_HISTOGRAM && f.GetMetric()[0].GetHistogram().Schema == nil {
			t.Errorf("%s has no native histogram", f.GetName())
		}
		slices.Sort(d.labels)
		out[f.GetName()] = d
	}
	return out
}

func TestReadmeListsEveryMetric(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]documented{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(torpor_\\w+)` \\| (\\w+) \\| ([^|]*) \\| ([^|]+) \\|$").FindAllStringSubmatch(string(page), -1) {
		d := documented{kind: row[2]}
		for _, l := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[3], -1) {
			d.labels = append(d.labels, l[1])
		}
		slices.Sort(d.labels)
		listed[row[1]] = d
	}
	there := exposed(t)
	for _, name := range slices.Sorted(maps.Keys(there)) {
		if got, ok := listed[name]; !ok {
			t.Errorf("%s is not in README.md", name)
		} else if want := there[name]; got.kind != want.kind || !slices.Equal(got.labels, want.labels) {
			t.Errorf("%s: README.md says %v, it is %v", name, got, want)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		if _, ok := there[name]; !ok {
			t.Errorf("README.md lists %s, which there is not", name)
		}
	}
}

// The reasons of failures that README.md lists are those there are in the code; README.md is what an
// operator greps.
func TestReadmeListsEveryReason(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `reason` \\|.*$").Find(page)
	words := regexp.MustCompile(`\{[\w.]+, "(\w+)"\}`).FindAllSubmatch(source, -1)
	if len(words) < 10 {
		t.Fatalf("%d reasons found in metrics.go", len(words))
	}
	for _, w := range words {
		if !strings.Contains(string(row), "`"+string(w[1])+"`") {
			t.Errorf("reason %s is not in README.md", w[1])
		}
	}
}

// dashboardQueries are the queries of dashboard.json, by panel.
func dashboardQueries(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Type, Title string
			Targets     []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	queries := map[string][]string{}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			queries[p.Title] = append(queries[p.Title], target.Expr)
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks nothing", p.Title)
		}
	}
	if len(d.Panels) < 2 || !strings.Contains(d.Panels[1].Targets[0].Expr, "torpor_restore_duration_seconds") {
		t.Error("the first panel is not about restores")
	}
	for _, v := range d.Templating.List {
		if v.Definition != "" {
			queries["variable "+v.Name] = []string{v.Definition}
		}
	}
	return queries
}

// Panels that lie on one another are moved by Grafana as it likes; rows own what is below them.
func TestDashboardGrid(t *testing.T) {
	b, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			ID          int
			Type, Title string
			GridPos     struct{ X, Y, W, H int }
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	taken, ids := map[[2]int]string{}, map[int]string{}
	row := -1
	for _, p := range d.Panels {
		if other, ok := ids[p.ID]; ok {
			t.Errorf("panels %q and %q have the same id", p.Title, other)
		}
		ids[p.ID] = p.Title
		g := p.GridPos
		if g.X < 0 || g.W < 1 || g.H < 1 || g.X+g.W > 24 {
			t.Errorf("panel %q is outside of the grid: %+v", p.Title, g)
		}
		if g.Y <= row {
			t.Errorf("panel %q is above the row that it is in", p.Title)
		}
		if p.Type == "row" {
			row = g.Y
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok {
					t.Fatalf("panel %q lies on %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

func alertQueries(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	queries := map[string][]string{}
	for _, g := range f.Groups {
		for _, r := range g.Rules {
			queries[r.Alert] = append(queries[r.Alert], r.Expr)
		}
	}
	return queries
}

// A dashboard or alert that names a metric or label there is not shows nothing, silently.
func TestQueriesNameOnlyWhatThereIs(t *testing.T) {
	there := exposed(t)
	metric := regexp.MustCompile(`\btorpor_\w+`)
	// What stands in braces behind a metric: label, comparison, value.
	selector := regexp.MustCompile(`\b(torpor_\w+)\{([^}]*)\}`)
	matcher := regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"`)
	find := func(name string) (documented, bool) {
		if d, ok := there[name]; ok {
			return d, d.kind != "histogram" // a histogram is read by its parts
		}
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(name, suffix); ok && there[base].kind == "histogram" {
				return there[base], true
			}
		}
		return documented{}, false
	}
	for file, queries := range map[string]map[string][]string{"dashboard.json": dashboardQueries(t), "alerts.yml": alertQueries(t)} {
		if len(queries) < 5 {
			t.Errorf("%s: %d queries found", file, len(queries))
		}
		for where, exprs := range queries {
			for _, expr := range exprs {
				names := metric.FindAllString(expr, -1)
				if len(names) == 0 {
					t.Errorf("%s, %s: no metric in %s", file, where, expr)
				}
				for _, name := range names {
					if _, ok := find(name); !ok {
						t.Errorf("%s, %s: there is no metric %s", file, where, name)
					}
				}
				for _, s := range selector.FindAllStringSubmatch(expr, -1) {
					d, _ := find(s[1])
					for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
						if !slices.Contains(d.labels, m[1]) {
							t.Errorf("%s, %s: %s has no label %s", file, where, s[1], m[1])
						}
					}
				}
			}
		}
	}
}

func TestAlertRules(t *testing.T) {
	tool := need.Program(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", filepath.Join("testdata", "alerts_test.yml")}} {
		if out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	tested, err := os.ReadFile(filepath.Join("testdata", "alerts_test.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for alert := range alertQueries(t) {
		if !regexp.MustCompile(`alertname: ` + alert + `\n\s+exp_alerts:\n\s+- exp_labels`).Match(tested) {
			t.Errorf("no unit test makes %s fire", alert)
		}
	}
}

// Every query of the dashboard must parse: Grafana would only show an empty panel.
func TestDashboardQueriesParse(t *testing.T) {
	tool := need.Program(t, "promtool")
	type rule struct{ Record, Expr string }
	type group struct {
		Name  string
		Rules []rule
	}
	g := group{Name: "dashboard"}
	fill := strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h", "$service", ".*")
	for where, exprs := range dashboardQueries(t) {
		for _, expr := range exprs {
			if !strings.HasPrefix(where, "variable ") {
				g.Rules = append(g.Rules, rule{Record: fmt.Sprintf("q:%d", len(g.Rules)), Expr: fill.Replace(expr)})
			}
		}
	}
	b, err := yaml.Marshal(map[string][]group{"groups": {g}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), tool, "check", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
}
