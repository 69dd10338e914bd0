// Package http is the source of services that hand over their state themselves, at a URL of their own:
//
//	GET    the state URL   200 and the native state as it is, in no Content-Encoding, or 204 for none
//	PUT    the state URL   the native state in the body; 2xx once it has replaced what there was
//	DELETE the state URL   2xx once the service is empty
//
// That is all a service needs, in any language. It must take a PUT wholly or not at all, and refuse a
// body that is not a state of its own with 400 or 422 (then the state file is taken to be damaged), 415
// for one of a version it does not read, 413 for one that is too large. A body that is cut off must not be
// taken: the request says its length.
//
// The state crosses in a spool both ways: a GET is read to its end before requests to the service go on,
// and a PUT begins when all that is to be restored is there. So a state file that turns out to be damaged
// half way never reaches the service.
//
// # Cursors
//
// A service with a large state that can tell what has changed may do so, so that a save costs what the
// change costs ([Config].Cursor). Its native state is records, application/cbor-seq, which the serializer
// "records" takes as they are.
//
// A cursor is text that names a moment of the state: 1 to 1024 printable ASCII characters without spaces,
// which mean something to the service only. The service puts it into the header of the state it gives:
//
//	GET                         200 or 204 as above
//	                            Torpor-Cursor: 7f3a-1041
//
// Once that has been saved the source asks for what has changed since:
//
//	GET                         226 and what has changed since that moment, and nothing else
//	Torpor-Since: 7f3a-1041     Torpor-Cursor: 7f3a-1077    the moment of this answer
//	                            Torpor-Growth: -2           how many more records there are than then
//
// What has changed is a sequence, in any order, of the records that are new or other than they were,
// [partition, key, value], and of tombstones of those that are gone, [partition, key], by the rules of
// records (ABI.md); no key is there twice, however often it has changed. A service that does not know the
// cursor, or would have to tell of nearly everything, answers 200 with all of the state. So it needs to keep, for
// as many changes as it likes, which keys have changed when, and how many records there were at each cursor.
//
// What a service must keep:
//
//   - each answer is the state of one moment by itself, all that was acknowledged before it: Config.Atomic.
//     Now and then everything is saved anew. Then the source asks again, without Torpor-Since, while requests
//     go on; what is saved is that later answer, and its cursor is the one asked from next. So where a service
//     has several parts, this one may be saved as it was a moment after the others;
//   - a cursor never names two moments. One of a process that has ended, or of the state before a DELETE or a
//     PUT, must not look like one of now: begin cursors with a number made at random when the process starts,
//     and count on;
//   - the answer to PUT may have a Torpor-Cursor only if the state, at that moment, is the records of the body
//     and no others. A service that leaves some out, or makes others of them, gives none: then all is saved
//     next, and deltas begin after that;
//   - Torpor-Growth is exact. The state file says how many records there are: torpor verify takes it for
//     damaged if that is wrong.
//
// Many saves may fail between two that succeed, so the same cursor may be asked for again, much later.
//
// The source believes nothing that it can check: records and tombstones that are none, a key twice, a growth
// that such changes cannot make, a cursor that has not moved though something has changed end the save with an
// error that names the URL, and the next one asks for everything. It does so at once where more has changed than
// one delta may hold.
//
// Cursors cross in a header, because the state URL may have a query of its own. The status is 226 (IM Used, RFC
// 3229: the answer is a change to what the client has) rather than 206, which is about ranges of bytes, which
// servers and what is between make by themselves, and which without a Content-Range is no answer at all.
package http
