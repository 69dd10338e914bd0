"""What the inventory service keeps. Its classes live in a module of their own, not in the program that is
run: a pickle names the module, and __main__ is another one each time."""

import threading


class Supplier:
    def __init__(self, name):
        self.name, self.phone, self.items = name, "", []


class Item:
    def __init__(self, sku, supplier):
        self.sku, self.quantity, self.supplier = sku, 0, supplier
        supplier.items.append(self)  # and so in a circle


class Warehouse:
    """The stock of one account in one region."""

    def __init__(self, all):
        self.all = all  # as backends refer to what they are found in
        self.items, self.suppliers = {}, {}
        self.arrived = threading.Condition()  # replaced by a new one when a state is restored

    def supplier(self, name):
        if name not in self.suppliers:
            self.suppliers[name] = Supplier(name)
        return self.suppliers[name]

    def put(self, sku, quantity, supplier):
        if sku in self.items:
            self.remove(sku)
        item = self.items[sku] = Item(sku, self.supplier(supplier))
        item.quantity = quantity
        with self.arrived:
            self.arrived.notify_all()

    def remove(self, sku):
        item = self.items.pop(sku)
        item.supplier.items.remove(item)

    def shown(self):
        return {
            "items": {i.sku: {"quantity": i.quantity, "supplier": i.supplier.name, "phone": i.supplier.phone} for i in self.items.values()},
            "suppliers": {s.name: sorted(i.sku for i in s.items) for s in self.suppliers.values()},
        }


class Warehouses(dict):
    """{account: {region: Warehouse}}, made when asked for."""

    def of(self, account, region):
        regions = self.setdefault(account, {})
        if region not in regions:
            regions[region] = Warehouse(self)
        return regions[region]
