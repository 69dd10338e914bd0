// Package server is Torpor's face: the control API that LocalStack's clients know under /_localstack/,
// Torpor's own under /_torpor/, /metrics, and the gateway that passes every other request to a service.
//
// [New] gives one http.Handler. Handlers are plain net/http; Echo routes them.
package server
