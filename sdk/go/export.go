package torpor

// exported is the serializer of this module. An instance of a module is one serializer, whose exports
// are functions without an argument, so there is exactly one, for good.
var exported Serializer

// Export makes s the serializer of this program. Call it once, from an init function of package main:
//
//	func init() { torpor.Export(todo{}) }
//
//	func main() {}
//
// It must be an init function because a module built with -buildmode=c-shared is a reactor: a host
// calls _initialize, which initializes packages, and then the exports. main is never called. The
// exports themselves are in this package, so importing it is enough to have them.
//
// Outside WebAssembly Export has no effect, so that the program's tests run in plain Go. It panics if
// s is nil, and when it is called twice.
func Export(s Serializer) {
	if s == nil {
		panic("torpor.Export: nil")
	}
	if exported != nil {
		panic("torpor.Export: called twice; a module is one serializer")
	}
	exported = s
}
