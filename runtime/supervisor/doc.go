// Package supervisor runs the program of a service: it starts it on a free port, waits until it is ready,
// passes on what it says, starts it again when it dies, and ends it with all that it has begun.
//
//	main:  if code, ok := supervisor.Guard(os.Args[1:]); ok { os.Exit(code) }
//
//	s, err := supervisor.New(supervisor.Config{
//		Service: "kinesis",
//		Command: []string{"npx", "kinesis-local", "--port={port}"},
//		Env:     []string{"PATH=/usr/bin:/bin"},
//		Logger:  logger,
//	})
//	err = s.Start(ctx)     // returns when it is ready
//	http.Get("http://" + s.Address())
//	err = s.Stop(ctx)      // returns when nothing of it is left
//
// # The guard
//
// Between the runtime and the service stands a small process, the guard: this very program, begun once more,
// in which [Guard], the first thing that main calls, does not return to main. It begins the service in a
// process group of its own and keeps an open pipe to the runtime. When that pipe ends, the runtime is dead,
// however it died, and the guard kills all that it watches over, at once and without asking: another runtime
// may already be giving the last good state back, and must not find the service still writing. Where the
// runtime ends in good order it calls [Supervisor.Stop] first, which asks (SIGTERM) before it kills.
//
// On Linux the guard is a "child subreaper": whatever a descendant of it leaves behind becomes its own child.
// So it finds all of them, whichever process group or session they have moved to, and does not end before
// the last of them has. What is caught, with the runtime alive or killed by SIGKILL:
//
//   - the program, its children and theirs (npm, a shell, node), and those that ignore SIGTERM;
//   - daemons: double forks, sessions of their own (setsid), and what outlives the program by itself;
//   - zombies, which are reaped, and stopped processes, which are woken to be ended.
//
// What is not:
//
//   - what another daemon was asked to run (docker run, systemd-run, at): it is no descendant;
//   - what a set-user-ID program runs as somebody else, which may not be signalled; Stop says which;
//   - if somebody kills the guard itself with SIGKILL: the program dies with it (PR_SET_PDEATHSIG), and its
//     process group if the runtime is alive, but what has left the group stays. The guard is named
//     "guard:<service>", so that killall torpor spares it; pkill -9 -f torpor does not.
//
// On other Unix systems only the process group is caught, and on others no programs can be run.
//
// Under systemd set KillMode=mixed: otherwise it sends SIGTERM to services and runtime at once, and the
// services are gone before they are saved.
//
// # What a service gets
//
// Its command, its folder and the environment it is given: nothing is inherited, not even PATH. Its standard
// input is /dev/null; it has no terminal. Standard output and error are one pipe, so that their order is kept. A
// service must stay in the foreground: when the program ends, what it leaves is ended too.
//
// In arguments and values of the environment {port}, {address} (127.0.0.1 and the port) and {folder} are
// replaced. The port is kept over restarts and sleep, unless somebody has taken it meanwhile; so ask
// [Supervisor.Address] for each connection. It is 127.0.0.1 or ::1, whichever the service was found on.
//
// # Restarts
//
// A service that dies after it was ready is started again, after a pause that doubles, until it has died too
// often; then it has failed, until somebody calls Start. It has lost what it had in memory: Config.Exited is
// called when it dies and Config.Prepare before it counts as ready again, which is where state is given back.
// A first start that fails is not repeated: the caller is told. A next Start waits for the pause to be over, so
// that requests that come in fast do not start a broken service as fast.
package supervisor
