"""CPython's own json and pickle, beside the serializers of their formats.

  serializers_peer.py JSON PICKLE

reads the document JSON, writes the same state as instances of classes to PICKLE, as an emulator that
pickles its backends keeps it, and then measures one round for each line on standard input.
"""
import gc
import json
import pickle
import sys
import time


class Resource:
    def __init__(self, backend, attributes):
        self.backend = backend
        for name, value in attributes.items():
            setattr(self, name, value)


class Backend:
    def __init__(self, account_id, region_name):
        self.account_id = account_id
        self.region_name = region_name
        self.resources = {}


def backends(document):
    accounts = {}
    for account, regions in document["accounts"].items():
        accounts[account] = {}
        for region, resources in regions.items():
            backend = accounts[account][region] = Backend(account, region)
            for name, attributes in resources.items():
                backend.resources[name] = Resource(backend, attributes)
    return accounts


def timed(f, *args):
    gc.collect()
    start = time.perf_counter()
    result = f(*args)
    return time.perf_counter() - start, result


with open(sys.argv[1], encoding="utf-8") as f:
    text = f.read()
graph = backends(json.loads(text))
with open(sys.argv[2], "wb") as f:
    f.write(pickle.dumps(graph, 4))
print("ready", flush=True)

for _ in sys.stdin:
    read, document = timed(json.loads, text)
    written, _ = timed(lambda: json.dumps(document, separators=(",", ":"), ensure_ascii=False))
    del document
    dumped, data = timed(pickle.dumps, graph, 4)
    loaded, again = timed(pickle.loads, data)
    assert again.keys() == graph.keys()
    del again
    print(json.dumps({"json": [read, written], "pickle": [loaded, dumped]}), flush=True)
