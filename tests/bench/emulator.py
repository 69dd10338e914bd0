"""A service that keeps what an emulator of a cloud keeps, as instances of classes, and gives its state by the kit.

    PUT /fill            a document as the benchmark makes it: {"accounts": {ACCOUNT: {REGION: {NAME: attributes}}}}
    GET /first           attributes of the first resource there is, null for none
    PUT /changing        changes something

It is a module, with main(PORT), as a pickle names the module of its classes.
"""
import http.server
import json

import torpor


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
        self.changes = 0


accounts = {}
state = torpor.State(allow=["emulator"])
state.part("store", accounts)


def backends():
    return [backend for regions in accounts.values() for backend in regions.values()]


class Handler(torpor.StateHandler, http.server.BaseHTTPRequestHandler):
    torpor = state
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with state.lock:
            found = [r for b in backends()[:1] for r in list(b.resources.values())[:1]]
            self.answer({k: v for k, v in vars(found[0]).items() if k != "backend"} if found else None)

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with state.lock:
            if self.path == "/changing":
                backends()[0].changes += 1
            else:
                for account, regions in json.loads(body)["accounts"].items():
                    for region, resources in regions.items():
                        backend = accounts.setdefault(account, {})[region] = Backend(account, region)
                        backend.resources = {name: Resource(backend, attributes) for name, attributes in resources.items()}
        self.answer(None)

    def answer(self, body):
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def main(port):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
