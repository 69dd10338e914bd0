"""A small service that keeps stock by account and region, in memory alone; Torpor keeps it beyond that.

    GET  /                                     everything there is
    GET  /ACCOUNT/REGION                       one warehouse
    PUT  /ACCOUNT/REGION                       a stocktake: {SKU: {"quantity": 3, "supplier": "acme"}}, all there is
    PUT  /ACCOUNT/REGION/items/SKU             {"quantity": 3, "supplier": "acme"}
    DELETE /ACCOUNT/REGION/items/SKU
    PUT  /ACCOUNT/REGION/suppliers/NAME        {"phone": "555-0100"}, seen at each of its items

and the state at /_torpor/state/store. Run it with TORPOR_STATE_TOKEN set, and both ask for that token.
"""

import argparse
import http.server
import json
import os
import pathlib
import sys

import warehouse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))  # where the kit is, in this checkout
import torpor

warehouses = warehouse.Warehouses()


def check():
    """A state of other things is none of this service's; raising puts back what there was."""
    for regions in warehouses.values():
        if type(regions) is not dict or not all(type(w) is warehouse.Warehouse for w in regions.values()):
            raise torpor.Refused("the state is not of warehouses by account and region")


state = torpor.State(allow=["warehouse"], token=os.environ.get("TORPOR_STATE_TOKEN"))
state.part("store", warehouses, restored=check)


class Handler(torpor.StateHandler, http.server.BaseHTTPRequestHandler):
    torpor = state
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.strip("/").split("/")
        with state.lock:
            if path == [""]:
                shown = {a: {r: w.shown() for r, w in regions.items()} for a, regions in warehouses.items()}
            elif len(path) == 2 and path[1] in warehouses.get(path[0], {}):
                shown = warehouses[path[0]][path[1]].shown()
            else:
                return self.answer(404, {"error": "there is no such warehouse"})
        self.answer(200, shown)

    def do_PUT(self):
        path = self.path.strip("/").split("/")
        try:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                if len(path) == 2:
                    taken = warehouse.Warehouse(warehouses)
                    for sku, item in body.items():
                        taken.put(sku, int(item["quantity"]), str(item["supplier"]))
                    warehouses.setdefault(path[0], {})[path[1]] = taken
                elif len(path) == 4 and path[2] == "items":
                    quantity, supplier = int(body["quantity"]), str(body["supplier"])
                    warehouses.of(*path[:2]).put(path[3], quantity, supplier)
                elif len(path) == 4 and path[2] == "suppliers":
                    phone = str(body["phone"])
                    warehouses.of(*path[:2]).supplier(path[3]).phone = phone
                else:
                    return self.answer(404, {"error": "there is nothing of that kind"})
        except (AttributeError, KeyError, TypeError, ValueError) as err:
            return self.answer(400, {"error": str(err)})
        self.answer(200, {})

    def do_DELETE(self):
        path = self.path.strip("/").split("/")
        with state.lock:
            found = warehouses.get(path[0], {}).get(path[1] if len(path) > 1 else None)
            if len(path) != 4 or path[2] != "items" or not found or path[3] not in found.items:
                return self.answer(404, {"error": "there is no such item"})
            found.remove(path[3])
        self.answer(200, {})

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 100


def main():
    args = argparse.ArgumentParser(description="keeps stock by account and region")
    args.add_argument("--port", type=int, default=4600)
    server = Server(("127.0.0.1", args.parse_args().port), Handler)
    print(f"inventory: listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
