// Package hooks runs people's own scripts at four moments of the runtime's life, as LocalStack's init hooks do: what
// lies in boot.d, start.d, ready.d and shutdown.d below one folder.
//
//	h, err := hooks.New(hooks.Config{Folder: "/etc/localstack/init", Env: env, Logger: logger})
//	err = h.Run(ctx, hooks.Boot)     // before anything is there
//	err = h.Run(ctx, hooks.Start)    // the runtime is there and nothing is served yet
//	err = h.Run(ctx, hooks.Ready)    // requests are answered
//	err = h.Run(ctx, hooks.Shutdown) // with a context that the end of the runtime has not ended
//
// Files are run one after the other: those of a folder by name, then the folders in it by name, each with all that is
// below it. One that fails is told of, and the next one is run. This, the states and the names are those of
// localstack-core/localstack/runtime/init.py, and so is that a link to a folder is not followed and one to a file
// is, wherever it leads. What is otherwise:
//
//   - A script is a process of its own, Python's too: it gets the environment that it is given, and /dev/null as its
//     input. What it leaves running is ended with it, and it is ended with the runtime, however that dies: see package
//     supervisor.
//   - A .sh file that may not be executed, or has no first line with its interpreter, is not an error: it is run by
//     the interpreter that the first line names, or by /bin/sh.
//   - Any other file is run too if it may be executed and is a program or names its interpreter. Where all files
//     may be executed, as on folders shared with Windows, data files are so left alone.
//   - A folder whose name begins with two dots is left out: Kubernetes keeps there what the links beside it lead to,
//     and every script would run twice (LocalStack's issue 11430).
//   - A stage's folder is looked at again when the stage begins, so a script may put others into later stages.
//   - There are bounds: Config.Timeout for a script, [MaxScripts], [MaxEntries], [MaxDepth].
package hooks
