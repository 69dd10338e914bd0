package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/torpor-run/torpor/server"
)

// keyVariable holds the key of the control API. It is no setting like the others: flags are in the list of
// processes for all to see, and a configuration file is shown to others. api_key_file is one.
const keyVariable = envPrefix + "API_KEY"

// keyFileKey is the setting that names a file with the key.
const keyFileKey = "api_key_file"

// localstackKeyVariables are LocalStack's own, weaker than Torpor's.
func localstackKeyVariables() []string {
	return []string{"LOCALSTACK_AUTH_TOKEN", "LOCALSTACK_API_KEY"}
}

// apiKey gives the key of the control API and where it comes from; "" if there is none. The error, of a file
// that cannot be read or has no key, is a usageError: without it everybody could do what only some should.
func (p *program) apiKey(s *settings) (key, from string, _ error) {
	if key := p.env(keyVariable); key != "" {
		return key, "$" + keyVariable, nil
	}
	if s.APIKeyFile != "" {
		key, err := readKey(s.APIKeyFile)
		if err != nil {
			return "", "", usageError{fmt.Errorf("%s: %w", s.keyFileFrom, err)}
		}
		return key, s.APIKeyFile, nil
	}
	for _, name := range localstackKeyVariables() {
		if key := p.env(name); key != "" {
			return key, "$" + name, nil
		}
	}
	return "", "", nil
}

// keyHint says what to do where the key was not the right one; from is where it was taken from, "" if there was none.
func keyHint(from string) string {
	if from == "" {
		return "give the key that torpor serve was started with in " + keyVariable + ", or name its file with --api-key-file"
	}
	return "the key was taken from " + from + "; give the one that torpor serve was started with"
}

// readKey reads a file that holds a key and nothing else.
func readKey(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, server.MaxKeyBytes+1))
	switch {
	case err != nil:
		return "", err
	case len(b) > server.MaxKeyBytes:
		return "", fmt.Errorf("%s has more than %d bytes, so it is no key", path, server.MaxKeyBytes)
	}
	key := strings.TrimSpace(string(b)) // editors end a file with a new line
	if key == "" {
		return "", fmt.Errorf("%s is empty; it must hold the key", path)
	}
	return key, nil
}

// access is who may control, and where the key comes from.
func (p *program) access(s *settings) (a server.Access, from string, err error) {
	a = server.Access{Control: s.Control, Hosts: s.ControlHosts}
	if a.Key, from, err = p.apiKey(s); err != nil {
		return a, "", err
	}
	// The name to listen on is one to be called by.
	if host, _, _ := net.SplitHostPort(s.Listen); host != "" {
		if _, err := netip.ParseAddr(host); err != nil {
			a.Hosts = append(a.Hosts, host)
		}
	}
	if err := a.Check(); err != nil {
		if a.Key != "" {
			err = fmt.Errorf("%w (key from %s)", err, from)
		}
		return a, "", usageError{err}
	}
	return a, from, nil
}

// parseHosts takes names separated by commas.
func parseHosts(v string) []string {
	var hosts []string
	for host := range strings.SplitSeq(v, ",") {
		if host = strings.TrimSpace(host); host != "" {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// warnOpen says who may control: loudly where others can reach the control API and there is no key.
func warnOpen(logger *slog.Logger, addr net.Addr, a server.Access, from string) {
	tcp, ok := addr.(*net.TCPAddr)
	beyond := ok && !tcp.IP.IsLoopback()
	switch {
	case a.Key != "":
		logger.Info("control calls need the key", "from", from)
	case beyond && a.Control == server.ControlAny:
		logger.Warn("listening beyond this machine, and the control API has no key: who reaches this port can save, load and reset state", "address", addr.String())
	case beyond:
		logger.Warn("listening beyond this machine, and the control API has no key: control calls from others, and those through a container's published port, are refused; "+
			"set "+keyVariable+", or "+envPrefix+"CONTROL="+string(server.ControlAny)+" to take them from whoever reaches this port", "address", addr.String())
	}
}

// errNotAllowed is what a control call that was refused comes to.
var errNotAllowed = errors.New("not allowed")

// notAllowed marks an error that another process refused a control call with.
type notAllowed struct{ error }

func (notAllowed) Is(target error) bool { return target == errNotAllowed }
