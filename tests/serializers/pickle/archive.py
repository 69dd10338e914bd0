"""Archives: many named byte strings in one file, which the tests in Go and the programs here hand to one another.

An entry is its name, what is to be known of it (JSON) and its bytes, each after its length in eight
bytes, big-endian.
"""
import json
import struct


def write(file, name, data, **meta):
    """Adds an entry to an open file."""
    for part in (name.encode(), json.dumps(meta).encode(), data):
        file.write(struct.pack(">Q", len(part)))
        file.write(part)


def read(path):
    """Gives the entries of an archive: name, meta, data."""
    with open(path, "rb") as file:
        while True:
            parts = []
            for _ in range(3):
                head = file.read(8)
                if not head and not parts:
                    return
                (size,) = struct.unpack(">Q", head)
                part = file.read(size)
                if len(part) != size:
                    raise EOFError(f"{path} ends inside an entry")
                parts.append(part)
            yield parts[0].decode(), json.loads(parts[1]), parts[2]
