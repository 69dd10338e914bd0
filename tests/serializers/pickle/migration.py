"""An upgrade as it breaks the state that LocalStack's users keep: version 2 of a service has moved, renamed
and changed the classes whose instances version 1 has pickled.

    migration.py v1 ARCHIVE           version 1 pickles its store, by every protocol
    migration.py v2 ARCHIVE RESULT    version 2 cannot load these; it can load RESULT, and finds what it needs

Version 1 is localstack.services.sqs.models, with the store and its queues; version 2 has the queues in
localstack.services.sqs.core.queue and calls them otherwise.
"""
import collections
import datetime
import enum
import pickle
import sys
import types

import archive


def module(name, **contents):
    """Makes a module that can be imported by its name."""
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
    for key, value in contents.items():
        setattr(sys.modules[name], key, value)
        if isinstance(value, type):
            value.__module__ = name
            value.__qualname__ = key


class Version1:
    """The layout of version 1."""

    class SqsStore:
        pass

    class SqsQueue:
        pass

    class FifoQueue(SqsQueue):
        pass

    class Message:
        __slots__ = ("body", "attributes", "deprecated", "queue")

    class Permission:
        def __init__(self, principal, action):
            self.principal, self.action = principal, action

        def __reduce__(self):
            return type(self), (self.principal, self.action)

    class Untouched:
        pass

    class Tags(dict):
        pass

    class State(enum.Enum):
        ACTIVE = "active"
        DELETED = "deleted"


def install1():
    v = Version1
    module("localstack.services.sqs.models", SqsStore=v.SqsStore, SqsQueue=v.SqsQueue, FifoQueue=v.FifoQueue, Message=v.Message, Permission=v.Permission, QueueState=v.State)
    module("localstack.utils.untouched", Untouched=v.Untouched)
    module("localstack.utils.tagging", Tags=v.Tags)


def store1():
    """The store of version 1: shared references and cycles, as stores have."""
    v = Version1
    store = v.SqsStore()
    store.region, store.queues, store.legacy_cache, store.moved = "us-east-1", {}, {"a": [1]}, collections.OrderedDict(a=1)
    everyone = v.Permission("*", "sqs:SendMessage")
    tags = v.Tags(team="red")
    tags.origin = store
    for i in range(5):
        queue = (v.FifoQueue if i % 2 else v.SqsQueue)()
        queue.name, queue.store, queue.tags, queue.permissions = f"queue-{i}", store, tags, {everyone, f"p{i}"}
        queue.lock, queue.visibility = ["a lock that cannot come back"], 30
        queue.state = v.State.ACTIVE
        queue.created = datetime.datetime(2026, 1, 1 + i)
        queue.messages = []
        for n in range(3):
            message = v.Message()
            message.body, message.attributes, message.deprecated, message.queue = f"body {n}", {"n": n, "class": v.SqsQueue}, [queue, n], queue
            queue.messages.append(message)
        store.queues[queue.name] = queue
    store.default = store.queues["queue-0"]
    store.untouched = v.Untouched()
    store.untouched.lock = "kept: another class has this attribute"
    return {"000000000000": {"us-east-1": store}}


class Version2:
    """The layout of version 2."""

    class Store:
        pass

    class Queue:
        def __setstate__(self, state):
            # It takes what it knows, and needs what is new.
            if unknown := set(state) - {"name", "store", "tags", "permissions", "visibility", "state", "created", "messages", "encrypted", "policy", "limit", "ratio"}:
                raise TypeError(f"unknown attributes {sorted(unknown)}")
            self.__dict__.update(state)
            if self.limit != 120_000 or self.encrypted is not False:
                raise TypeError("what is new is missing")

    class Fifo(Queue):
        pass

    class Message:
        __slots__ = ("body", "attributes", "queue", "trace")

    class Grant(Version1.Permission):
        pass

    class Tags(dict):
        pass

    class State(enum.Enum):
        ACTIVE = "active"
        DELETED = "deleted"


def install2():
    v = Version2
    module("localstack.services.sqs.store", Store=v.Store)
    module("localstack.services.sqs.core.queue", Queue=v.Queue, Fifo=v.Fifo, Message=v.Message, Grant=v.Grant, QueueState=v.State)
    module("localstack.utils.untouched", Untouched=Version1.Untouched)
    module("localstack.aws.tags", Tags=v.Tags)


def check2(state):
    v = Version2
    store = state["000000000000"]["us-east-1"]
    assert type(store) is v.Store, store
    assert list(store.__dict__)[:2] == ["region", "queues"] and not hasattr(store, "legacy_cache"), store.__dict__
    assert store.moved == collections.OrderedDict(a=1)
    assert list(store.queues) == [f"queue-{i}" for i in range(5)]
    tags = store.default.tags
    grants = set()
    for i, queue in enumerate(store.queues.values()):
        assert type(queue) is (v.Fifo if i % 2 else v.Queue), queue
        assert queue.name == f"queue-{i}" and queue.store is store and queue.tags is tags and queue.visibility == 30
        assert not hasattr(queue, "lock") and queue.encrypted is False and queue.policy is None
        assert queue.limit == 120_000 and queue.ratio == -1.5
        assert queue.created == datetime.datetime(2026, 1, 1 + i) and queue.state is v.State.ACTIVE
        assert f"p{i}" in queue.permissions and len(queue.permissions) == 2
        grants |= {p for p in queue.permissions if not isinstance(p, str)}
        for n, message in enumerate(queue.messages):
            assert type(message) is v.Message and message.body == f"body {n}" and message.queue is queue and message.trace == "none"
            assert message.attributes == {"n": n, "class": v.Queue} and not hasattr(message, "deprecated")
    (grant,) = grants
    assert type(grant) is v.Grant and grant.principal == "*" and grant.action == "sqs:SendMessage"
    assert type(tags) is v.Tags and tags == {"team": "red"} and tags.origin is store
    assert store.default is store.queues["queue-0"]
    assert store.untouched.lock == "kept: another class has this attribute"


def main(version, path, result=None):
    if version == "v1":
        install1()
        with open(path, "wb") as out:
            for protocol in range(2, 6):  # slots need 2
                data = pickle.dumps(store1(), protocol)
                archive.write(out, f"protocol {protocol}", data)
                archive.write(out, f"protocol {protocol}, the pickler in Python", pickle._dumps(store1(), protocol))
        return
    install2()
    for name, _, data in archive.read(path):
        try:
            pickle.loads(data)
        except (AttributeError, ModuleNotFoundError, ImportError) as err:
            print(f"{name}: without a migration: {err}")
        else:
            sys.exit(f"{name}: version 2 loads what version 1 wrote: this tests nothing")
    for name, _, data in archive.read(result):
        check2(pickle.loads(data))
        print(f"{name}: migrated")


if __name__ == "__main__":
    main(*sys.argv[1:])
