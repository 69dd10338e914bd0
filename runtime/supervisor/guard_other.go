//go:build !unix

package supervisor

// Guard is the other half of a [Supervisor] where the system has process groups; here it does nothing.
func Guard([]string) (code int, handled bool) { return 0, false }
