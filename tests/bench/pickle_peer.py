"""One round of pickle for each line on standard input: the objects of the file named, as instances of
a class, as an emulator that pickles its stores keeps them."""
import base64
import datetime
import gc
import json
import pickle
import sys
import time


class Object:
    def __init__(self, o):
        self.bucket = o["bucket"]
        self.key = o["key"]
        self.etag = o["etag"]
        self.last_modified = datetime.datetime.fromtimestamp(o["modified"], datetime.timezone.utc)
        self.metadata = o["metadata"]
        self.body = base64.b64decode(o["body"])
        self.size = len(self.body)
        self.version_id = None


class Bucket:
    def __init__(self, name):
        self.name = name
        self.created = datetime.datetime.now(datetime.timezone.utc)
        self.keys = {}


buckets = {}
with open(sys.argv[1]) as f:
    for o in json.load(f):
        bucket = buckets.setdefault(o["bucket"], Bucket(o["bucket"]))
        bucket.keys[o["key"]] = Object(o)

for _ in sys.stdin:
    gc.collect()
    start = time.perf_counter()
    data = pickle.dumps(buckets, 5)
    dumped = time.perf_counter()
    gc.collect()
    loading = time.perf_counter()
    again = pickle.loads(data)
    loaded = time.perf_counter()
    assert len(again["bench"].keys) == len(buckets["bench"].keys)
    del again
    print(json.dumps({"dumps": dumped - start, "loads": loaded - loading, "bytes": len(data)}), flush=True)
