"""Writes the fixtures of modules/pickle that are not real services' pickles:

    fixtures.py FOLDER

They are what graphs.py, opcodes.py and state.py make, a little of everything.
"""
import os
import pickle
import random
import sys

import graphs
import opcodes
import state


def main(folder):
    def write(name, data):
        with open(os.path.join(folder, name), "wb") as out:
            out.write(data)

    # The first graphs that every protocol can keep, in a mapping of accounts and regions.
    chosen, number = {}, 0
    while len(chosen) < 12:
        rng = random.Random(f"fixtures/{number}")
        number += 1
        graph = graphs.Maker(rng, 40).graph()
        try:
            dumped = [graphs.dumps(graphs.CPickler, graph, p) for p in range(6)]
        except Exception:
            continue
        if 200 < len(dumped[4]) < 1000 and all(map(graphs.is_sound, dumped)):
            chosen[f"graph-{number}"] = graph
    for protocol in (0, 2, 4):
        data = graphs.dumps(graphs.CPickler, {"000000000000": {"us-east-1": chosen, "eu-west-1": {}}}, protocol)
        write(f"graphs-{protocol}.pickle", data)
    write("python-pickler.pickle", graphs.dumps(graphs.DillLike, {"f": graphs.by_value, "graphs": list(chosen.values())[:3], "again": graphs.by_value}, 4))
    write("opcodes.pickle", b"".join(data for _, data in opcodes.graphs() if len(data) < 150))
    write("values.pickle", b"".join(data for _, data in opcodes.values() if len(data) < 60))
    write("backend.pickle", pickle.dumps(state.of(150).state(), 4))
    write("deep.pickle", b"\x80\x02" + b"]" * 3000 + b"a" * 2999 + b".")


if __name__ == "__main__":
    main(sys.argv[1])
