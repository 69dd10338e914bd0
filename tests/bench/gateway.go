package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// gatewayPlan says how much is measured.
type gatewayPlan struct {
	rounds   int
	turns    int           // a round of latency is so many turns of each way
	requests int           // of a turn
	clients  int           // of throughput
	each     time.Duration // of one way's throughput in a round
	large    int64         // bytes of a large body
	bodies   int           // how many in a round
}

func wholeGateway(rounds int) gatewayPlan {
	return gatewayPlan{rounds: rounds, turns: 10, requests: 200, clients: 32, each: 2 * time.Second, large: 64 << 20, bodies: 4}
}

// way is one of the ways to the service.
type way struct {
	name    string
	address string
	pid     int    // of the proxy on the way; 0: none
	missing string // why it is not measured; "": it is
}

// The ways, which all stand in the tables in this order.
const (
	directly = iota
	throughTorpor
	throughNginx
	allWays
)

// gatewayBench is the service, the ways to it and the generator.
type gatewayBench struct {
	plan      gatewayPlan
	service   *listening
	ways      [allWays]way
	generator *generator
	turn      int // which way begins
}

// benchGateway measures the way through torpor beside the way without, and beside nginx as a plain proxy.
func benchGateway(ctx context.Context, out *strings.Builder, plan gatewayPlan) error {
	return withTorpor(ctx, func(folder, program string) (err error) {
		before := loadOfMachine()
		g := &gatewayBench{plan: plan}
		defer func() {
			if g.generator != nil {
				err = errors.Join(err, g.generator.close())
			}
		}()
		if g.generator, err = startGenerator(ctx); err != nil {
			return err
		}
		cmd, err := roleCommand(ctx, roleService)
		if err != nil {
			return err
		}
		if g.service, err = listen(cmd); err != nil {
			return err
		}
		defer g.service.kill()
		t, err := serve(ctx, program, filepath.Join(folder, "torpor.d"), gatewayConfig(g.service.address))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, t.stop()) }()
		g.ways = [allWays]way{{name: "directly", address: g.service.address}, {name: "torpor", address: t.address, pid: t.cmd.Process.Pid}, {name: "nginx"}}
		stop, err := g.startNginx(ctx, filepath.Join(folder, "nginx"))
		if err != nil {
			return err
		}
		defer stop()
		return g.run(out, before)
	})
}

// gatewayConfig is torpor with one service that somebody else runs, whose state it keeps.
func gatewayConfig(address string) tree {
	return tree{"services": tree{"s3": tree{"enabled": false}, "items": tree{
		"upstream": "http://" + address,
		"match":    tree{"path": []string{"/"}},
		"parts":    tree{"store": itemsPart(false)},
		// No save in between: section saves has that.
		"save_strategy": "MANUAL",
	}}}
}

// itemsPart is the part of the service of serveItems.
func itemsPart(atomic bool) tree {
	return tree{"serializer": "json", "settings": tree{"records": "/items/*"}, "source": tree{"http": tree{"url": "http://{address}" + statePath, "atomic": atomic}}}
}

// startNginx starts nginx where there is one.
func (g *gatewayBench) startNginx(ctx context.Context, folder string) (stop func(), err error) {
	w := &g.ways[throughNginx]
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		w.missing = "there is no nginx here"
		return func() {}, nil //nolint:nilerr // the others are measured, and the table says why this one is not
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	w.address = fmt.Sprintf("127.0.0.1:%d", port)
	file := filepath.Join(folder, "nginx.conf")
	if err := os.WriteFile(file, nginxConfig(folder, w.address, g.service.address), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, nginx, "-p", folder, "-c", file, "-e", filepath.Join(folder, "error.log"))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends its workers
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w.pid = cmd.Process.Pid
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is stopped by a signal
	}()
	stop = func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		<-ended
	}
	for {
		conn, err := net.Dial("tcp", w.address)
		if err == nil {
			return stop, conn.Close()
		}
		select {
		case <-ended:
			said, _ := os.ReadFile(filepath.Join(folder, "error.log")) // for the message
			return nil, fmt.Errorf("nginx does not run: %s", said)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// freePort is a port that was free a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// nginxConfig is that of a plain proxy that keeps its connections, passes bodies on as they come and writes
// nothing to disk.
func nginxConfig(folder, listen, upstream string) []byte {
	return fmt.Appendf(nil, `daemon off;
worker_processes auto;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path %[1]s/body;
    proxy_temp_path %[1]s/proxy;
    fastcgi_temp_path %[1]s/fastcgi;
    uwsgi_temp_path %[1]s/uwsgi;
    scgi_temp_path %[1]s/scgi;
    keepalive_requests 100000000;
    client_max_body_size 0;
    upstream service {
        server %[3]s;
        keepalive 64;
        keepalive_requests 100000000;
    }
    server {
        listen %[2]s;
        location / {
            proxy_pass http://service;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
        }
    }
}
`, folder, listen, upstream)
}

// passing is what one kind of load took on each way.
type passing struct {
	name   string
	medial [allWays]times // of each round: the median of its requests
	p99    [allWays]times
	rate   [allWays]times // of each round: wall time for one request
	proxy  [allWays]times // and of the proxy's processors
	all    [allWays]times // and of all processes'
}

func (g *gatewayBench) run(out *strings.Builder, before string) error {
	latency := []*passing{{name: "a GET"}, {name: "a PUT of 100 bytes, which changes something"}}
	loads := [][]sent{{{Method: "GET", Path: "/small", Read: int64(len(smallAnswer))}},
		{{Method: "PUT", Path: "/items/a", Body: `"` + strings.Repeat("x", 98) + `"`, Read: 0}}}
	throughput := []*passing{{name: "answers at once"}, {name: fmt.Sprintf("hashes %d KiB for each", busyBytes>>10)}}
	paths := []string{"/small", "/busy"}
	bodies := []*passing{{name: "to the client"}, {name: "to the service"}}
	size := fmt.Sprint(g.plan.large)
	wholes := [][]sent{{{Method: "GET", Path: "/large/" + size, Read: g.plan.large}}, {{Method: "PUT", Path: "/large", Zeros: g.plan.large, Read: int64(len(size))}}}
	for range g.plan.rounds {
		for i, p := range latency {
			if err := g.latency(p, loads[i]); err != nil {
				return err
			}
		}
		for i, p := range throughput {
			l := load{Requests: []sent{{Method: "GET", Path: paths[i], Read: int64(len(smallAnswer))}}, Connections: g.plan.clients, Warm: 5, For: g.plan.each}
			if err := g.measure(p, l); err != nil {
				return err
			}
		}
		for i, p := range bodies {
			if err := g.measure(p, load{Requests: wholes[i], Connections: 1, Warm: 1, Count: g.plan.bodies}); err != nil {
				return err
			}
		}
	}
	g.print(out, before, latency, throughput, bodies)
	return nil
}

// each calls f with each way there is; another one begins each time.
func (g *gatewayBench) each(f func(which int, w way) error) error {
	g.turn++
	for i := range g.ways {
		which := (g.turn + i) % allWays
		if g.ways[which].missing != "" {
			continue
		}
		if err := f(which, g.ways[which]); err != nil {
			return fmt.Errorf("%s: %w", g.ways[which].name, err)
		}
	}
	return nil
}

// latency measures a round of one request after another.
func (g *gatewayBench) latency(p *passing, requests []sent) error {
	var took [allWays]times
	for range g.plan.turns {
		err := g.each(func(which int, w way) error {
			answer, err := g.generator.send(load{Address: w.address, Requests: requests, Connections: 1, Warm: 20, Count: g.plan.requests})
			took[which] = append(took[which], answer.Took...)
			return err
		})
		if err != nil {
			return err
		}
	}
	for which := range took {
		if len(took[which]) > 0 {
			p.medial[which] = append(p.medial[which], took[which].median())
			p.p99[which] = append(p.p99[which], took[which].p99())
		}
	}
	return nil
}

// measure measures a round of a load, and what it costs the processors.
func (g *gatewayBench) measure(p *passing, l load) error {
	return g.each(func(which int, w way) error {
		l.Address = w.address
		used := func() (proxy, all time.Duration) {
			if w.pid != 0 {
				proxy = processorTime(w.pid)
			}
			return proxy, proxy + processorTime(g.service.cmd.Process.Pid) + processorTime(g.generator.cmd.Process.Pid)
		}
		proxyBefore, allBefore := used()
		answer, err := g.generator.send(l)
		if err != nil {
			return err
		}
		proxy, all := used()
		n := time.Duration(len(answer.Took))
		warmed := n + time.Duration(l.Connections*l.Warm)
		p.rate[which] = append(p.rate[which], answer.Wall/n)
		p.proxy[which] = append(p.proxy[which], (proxy-proxyBefore)/warmed)
		p.all[which] = append(p.all[which], (all-allBefore)/warmed)
		return nil
	})
}

func (g *gatewayBench) print(out *strings.Builder, before string, latency, throughput, bodies []*passing) {
	fmt.Fprintf(out, "## The gateway\n\nA service in Go, in a process of its own, asked directly, through Torpor (persistence on) and through %s as a plain proxy; "+
		"connections are kept. Everything runs on the same processors, the load generator too: a proxy takes from the service and the generator what it needs itself. "+
		"The load of the machine was %s before and %s after.\n\n", nginxName(g.ways[throughNginx]), before, loadOfMachine())
	fmt.Fprintf(out, "| one connection | directly: median, p99 | Torpor | added | nginx | added | ratio of added medians | goal |\n|---|---|---|---|---|---|---|---|\n")
	for _, p := range latency {
		fmt.Fprintf(out, "| %s |", p.name)
		for which := range g.ways {
			fmt.Fprintf(out, " %s |", g.unless(which, func() string { return short(p.medial[which].median()) + ", " + short(p.p99[which].median()) }))
			if which != directly {
				fmt.Fprintf(out, " %s |", g.unless(which, func() string { return short(added(p.medial, which)) + ", " + short(added(p.p99, which)) }))
			}
		}
		fmt.Fprintf(out, " %s | ≤ 100 µs |\n", g.unless(throughNginx, func() string { return ratio(added(p.medial, throughNginx), added(p.medial, throughTorpor)) }))
	}
	fmt.Fprintf(out, "\n| %d connections, small answers | requests/s directly | Torpor | of direct | nginx | of direct | Torpor to nginx | processor time a request, all processes: directly | Torpor (itself) | nginx (itself) | goal |\n"+
		"|---|---|---|---|---|---|---|---|---|---|---|\n", g.plan.clients)
	for _, p := range throughput {
		fmt.Fprintf(out, "| the service %s |%s ≥ 80 %% |\n", p.name, g.row(p, func(d time.Duration) string { return fmt.Sprintf("%.0f", 1/d.Seconds()) }, short))
	}
	fmt.Fprintf(out, "\n| a body of %.0f MiB | MB/s directly | Torpor | of direct | nginx | of direct | Torpor to nginx | processor time, all processes: directly | Torpor (itself) | nginx (itself) |\n"+
		"|---|---|---|---|---|---|---|---|---|---|\n", float64(g.plan.large)/(1<<20))
	for _, p := range bodies {
		fmt.Fprintf(out, "| %s |%s\n", p.name, g.row(p, func(d time.Duration) string { return fmt.Sprintf("%.0f", float64(g.plan.large)/1e6/d.Seconds()) }, ms))
	}
	if why := g.ways[throughNginx].missing; why != "" {
		fmt.Fprintf(out, "\nThe columns of nginx are empty: %s.\n", why)
	}
}

// row has the cells of rates and of processor time.
func (g *gatewayBench) row(p *passing, rate, cost func(time.Duration) string) string {
	var b strings.Builder
	for which := range g.ways {
		fmt.Fprintf(&b, " %s |", g.unless(which, func() string { return rate(p.rate[which].median()) }))
		if which != directly {
			fmt.Fprintf(&b, " %s |", g.unless(which, func() string { return percent(p.rate, directly, which) }))
		}
	}
	fmt.Fprintf(&b, " %s |", g.unless(throughNginx, func() string {
		return ratio(p.rate[throughNginx].median(), p.rate[throughTorpor].median())
	}))
	for which := range g.ways {
		fmt.Fprintf(&b, " %s |", g.unless(which, func() string {
			if which == directly {
				return cost(p.all[which].median())
			}
			return fmt.Sprintf("%s (%s)", cost(p.all[which].median()), cost(p.proxy[which].median()))
		}))
	}
	return b.String()
}

// unless gives what f gives, or a dash where the way is missing.
func (g *gatewayBench) unless(which int, f func() string) string {
	if g.ways[which].missing != "" {
		return "–"
	}
	return f()
}

// added is what a way takes longer than none: the median over rounds, of which each compares its own.
func added(of [allWays]times, which int) time.Duration {
	var more times
	for round, d := range of[which] {
		more = append(more, d-of[directly][round])
	}
	return more.median()
}

// percent is how much of the rate of one way is the other's: the median over rounds.
func percent(of [allWays]times, whole, which int) string {
	var shares times // in millionths
	for round, d := range of[which] {
		shares = append(shares, time.Duration(1e6*float64(of[whole][round])/float64(d)))
	}
	return fmt.Sprintf("%.0f %%", float64(shares.median())/1e4)
}

func nginxName(w way) string {
	said, err := exec.Command("nginx", "-v").CombinedOutput()
	if _, version, ok := strings.Cut(strings.TrimSpace(string(said)), "nginx/"); ok && err == nil && w.missing == "" {
		return "nginx " + version
	}
	return "nginx"
}
