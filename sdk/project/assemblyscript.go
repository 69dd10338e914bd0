package project

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
)

func assemblyScriptLanguage() language {
	return language{
		name:     "assemblyscript",
		reserved: []string{"assemblyscript"}, // npm installs no package into itself
		template: "sdk/assemblyscript/examples/settings",
		sdk:      []string{"sdk/assemblyscript"},
		strip:    "sdk/assemblyscript/",
		ours:     []string{"package.json", "package-lock.json", "asconfig.json", "tsconfig.json"},
		also:     func(Options) map[string]string { return map[string]string{".gitignore": "/node_modules\n/*.wasm\n"} },
		detect:   func(_ string, files []string) bool { return slices.Contains(files, "asconfig.json") },
		build:    buildAssemblyScript,
	}
}

const asRemedy = "on Debian: apt-get install nodejs npm; elsewhere install Node.js, which has npm with it"

func buildAssemblyScript(b *builder) error {
	node, err := b.need("the program node", asRemedy, "node", "nodejs")
	if err != nil {
		return err
	}
	if b.name == "" {
		var manifest struct{ Name string }
		content, err := os.ReadFile(filepath.Join(b.dir, "package.json"))
		if err == nil {
			err = json.Unmarshal(content, &manifest)
		}
		if b.name = manifest.Name; err != nil || CheckName(b.name) != nil {
			return &BuildError{Command: "package.json", Err: errors.Join(err, errors.New("it must have a name such as orders"))}
		}
	}
	asc := filepath.Join("node_modules", "assemblyscript", "bin", "asc.js")
	if !exists(b.dir, asc) {
		npm, err := b.need("the program npm", asRemedy, "npm")
		if err != nil {
			return err
		}
		install := "install"
		if exists(b.dir, "package-lock.json") {
			install = "ci" // exactly what the lock file says
		}
		if err := b.run(nil, npm, install, "--include=dev", "--prefer-offline", "--no-audit", "--no-fund"); err != nil {
			return err
		}
	}
	return b.run(nil, node, asc, "--config", "asconfig.json", "--target", "release", "--outFile", b.result)
}
