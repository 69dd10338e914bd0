package cli

import (
	"log/slog"
	"net/http"

	"github.com/torpor-run/torpor/server"
	"github.com/torpor-run/torpor/server/gateway"
)

// publish gives the server its ways into the services.
func publish(out *server.Config, services []*built, logger *slog.Logger) error {
	out.Backends = map[string]server.Backend{}
	for _, s := range services {
		c := s.config
		for part, h := range s.push {
			if out.Push == nil {
				out.Push = map[string]http.Handler{}
			}
			out.Push[c.Name+"/"+part] = h
		}
		backend := server.Backend{Handler: s.handler, WakeTimeout: c.WakeTimeout, Reads: gateway.Reads(c.Reads),
			Save: c.Save, Idle: c.Idle, Upgraded: server.Upgraded(c.Upgraded)}
		if s.handler == nil {
			proxy, err := gateway.New(gateway.Config{Service: c.Name, Address: s.address, Logger: logger})
			if err != nil {
				return err
			}
			s.close = append(s.close, func() error { proxy.Close(); return nil })
			backend.Handler = proxy
		}
		out.Backends[c.Name] = backend
		rule := gateway.Rule{Service: c.Name, Hosts: c.Match.Hosts, Headers: c.Match.Headers, AWS: c.Match.AWS, Paths: c.Match.Paths, Strip: c.Match.Strip}
		switch {
		case len(rule.Hosts)+len(rule.Headers)+len(rule.AWS)+len(rule.Paths) > 0:
			out.Rules = append(out.Rules, rule)
		case c.Embedded && !c.Match.None:
			out.Default = c.Name
		}
	}
	out.Processes = func(service string) (any, bool) {
		for _, s := range services {
			if s.config.Name == service && s.program != nil {
				return process(s), true
			}
		}
		return nil, false
	}
	return nil
}

// process is what health tells of a service's program.
func process(s *built) server.Process {
	st := s.program.Status()
	p := server.Process{State: string(st.State), PID: st.PID, Address: st.Address, Restarts: int(s.ended.Load())}
	if st.Exit != nil {
		p.LastExit = st.Exit.String()
	}
	return p
}
