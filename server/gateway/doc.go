// Package gateway finds the service that a request is for, and passes it on to services that run by
// themselves.
//
//	router, err := gateway.NewRouter([]gateway.Rule{{Service: "orders", Hosts: []string{"orders.localhost"}}}, "s3")
//	route := router.Route(r)                       // "orders", or "s3" for what no rule claims
//	proxy, err := gateway.New(gateway.Config{Service: "orders", Address: supervisor.Address, Logger: logger})
//	proxy.Pass(w, r, gateway.Visit{Leave: leave, Changed: service.Changed})
//
// What passes is left as it is: paths and queries byte for byte, the host, header fields (save those of one
// connection only), codings, lengths, trailers, 1xx answers. Added are X-Forwarded-For, -Host and -Proto.
// Names of header fields are written in their usual case, which does not matter to HTTP.
//
// A [Proxy] tells of a request only what a persistence runtime has to know, by the functions of its [Visit]:
// the package imports neither the runtime nor the server.
package gateway
