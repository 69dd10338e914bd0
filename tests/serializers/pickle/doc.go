// Package pickle_test holds the serializer `pickle` (modules/pickle) against CPython itself: what it makes
// of a pickle must load to the same graph, with the same identities, and say the same opcode by opcode.
//
// The Python programs beside this file make the pickles and compare them; they need nothing but the
// standard library of Python 3.11. TORPOR_PICKLE_GRAPHS says how many random graphs TestGraphs makes,
// TORPOR_PICKLE_SEED from which seed, and TORPOR_PICKLE_THOROUGH, if it is not empty, has TestDamaged try
// everything; TORPOR_FIXTURES is where the fixtures are that no checkout holds.
package pickle_test
