package gateway

import (
	"encoding/json"
	"net/http"
)

// WriteError answers with an error of Torpor's own, in the form that all of them have.
func WriteError(w http.ResponseWriter, status int, code, message, hint string) {
	var b struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Hint    string `json:"hint,omitempty"`
		} `json:"error"`
	}
	b.Error.Code, b.Error.Message, b.Error.Hint = code, message, hint
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// The status is out: a client that has gone away is the only thing left to go wrong.
	_ = json.NewEncoder(w).Encode(b)
}
