package server

import (
	"net/http"
	"strings"

	"github.com/torpor-run/torpor/runtime/hooks"
)

// initPath is where LocalStack's clients ask about init scripts.
const initPath = "/_localstack/init"

// InitState knows what has become of the init scripts; *hooks.Hooks does. It must be safe for concurrent use.
type InitState interface {
	State() []hooks.StageState
}

// initScript is a script as LocalStack tells of it: InitScriptsResource in
// localstack-core/localstack/services/internal.py.
type initScript struct {
	Stage string `json:"stage"`
	Name  string `json:"name"` // without its folder
	State string `json:"state"`
}

// Init answers GET /_localstack/init and /_localstack/init/{stage} with what LocalStack answers there. The name of a
// stage may be in capitals or not; one that does not exist is answered with 404, as by LocalStack, whose body is empty,
// while this one's says why. It is safe for concurrent use.
func Init(h InitState) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			writeError(w, http.StatusMethodNotAllowed, "method_not_allowed", r.Method+" "+initPath+": init scripts can only be looked at", "")
			return
		}
		stages := h.State()
		name, one := strings.CutPrefix(strings.TrimPrefix(r.URL.Path, initPath), "/")
		if one {
			oneStage(w, stages, name)
			return
		}
		completed, scripts := map[string]bool{}, []initScript{}
		for _, s := range stages {
			completed[s.Stage.String()] = s.Completed
			scripts = append(scripts, initScripts(s)...)
		}
		writeJSON(w, http.StatusOK, struct {
			Completed map[string]bool `json:"completed"`
			Scripts   []initScript    `json:"scripts"`
		}{completed, scripts})
	})
}

func oneStage(w http.ResponseWriter, stages []hooks.StageState, name string) {
	var known []string
	for _, s := range stages {
		if s.Stage.String() == strings.ToUpper(name) {
			writeJSON(w, http.StatusOK, struct {
				Completed bool         `json:"completed"`
				Scripts   []initScript `json:"scripts"`
			}{s.Completed, initScripts(s)})
			return
		}
		known = append(known, strings.ToLower(s.Stage.String()))
	}
	writeError(w, http.StatusNotFound, "not_found", "no such stage "+name, "the stages are "+strings.Join(known, ", "))
}

func initScripts(s hooks.StageState) []initScript {
	scripts := make([]initScript, 0, len(s.Scripts)) // never null
	for _, script := range s.Scripts {
		scripts = append(scripts, initScript{s.Stage.String(), script.Name, string(script.State)})
	}
	return scripts
}
