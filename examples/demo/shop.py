"""The demo's shop: a SQLite database with orders, refunds and stock, and the agents' tools."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

SCHEMA: Final = """
CREATE TABLE articles (sku TEXT PRIMARY KEY, title TEXT NOT NULL, price_cents INTEGER NOT NULL,
    stock INTEGER NOT NULL CHECK (stock >= 0));
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL,
    sku TEXT NOT NULL REFERENCES articles (sku), quantity INTEGER NOT NULL,
    paid_cents INTEGER NOT NULL, age_days INTEGER NOT NULL, parcel TEXT NOT NULL);
CREATE TABLE refunds (order_id INTEGER PRIMARY KEY REFERENCES orders (id),
    cents INTEGER NOT NULL CHECK (cents > 0));
CREATE TABLE purchases (id INTEGER PRIMARY KEY, sku TEXT NOT NULL REFERENCES articles (sku),
    quantity INTEGER NOT NULL);
"""
GOODS: Final = (
    ("beans-brazil-1kg", "Brazil, whole beans, 1 kg", 2490),
    ("beans-ethiopia-500g", "Ethiopia, whole beans, 500 g", 1690),
    ("grinder-hand", "Hand grinder, steel burrs", 7900),
    ("machine-classic", "Espresso machine Classic", 64900),
    ("filter-paper-100", "Filter paper, 100 pieces", 490),
    ("kettle-gooseneck", "Gooseneck kettle, 1 l", 5900),
)
ORDERS: Final = 240
_READS: Final = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION})


class ShopError(Exception):
    """The shop refuses an action; the message is the reason."""


class PaymentServiceAway(ShopError):
    """The payment service does not answer; a retry may succeed."""


class Shop:
    """A shop in memory, always the same for one seed. Its methods are tools. Thread-safe."""

    def __init__(self, seed: int) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.row_factory = sqlite3.Row
        self._payment_outages: dict[int, int] = {}
        with self._database:
            self._database.executescript(SCHEMA)
            self._fill(random.Random(seed))

    def lookup_order(self, order: int) -> dict[str, Any]:
        """An order with its article and refunds. Raises ``ShopError`` for an unknown one."""
        rows = self._select(
            "SELECT orders.*, articles.title, coalesce(refunds.cents, 0) AS refunded_cents "
            "FROM orders JOIN articles USING (sku) "
            "LEFT JOIN refunds ON refunds.order_id = orders.id WHERE orders.id = ?",
            order,
        )
        if not rows:
            raise ShopError(f"there is no order {order}")
        return rows[0]

    def refund_order(self, order: int, cents: int) -> dict[str, Any]:
        """Refund an order: once, and at most what was paid."""
        with self._writing() as database:
            if self._payment_outages.get(order, 0) > 0:
                self._payment_outages[order] -= 1
                raise PaymentServiceAway("the payment service does not answer")
            row = database.execute(
                "SELECT paid_cents FROM orders WHERE id = ?", (order,)
            ).fetchone()
            if row is None:
                raise ShopError(f"there is no order {order}")
            if cents > row["paid_cents"]:
                raise ShopError(
                    f"order {order} was paid with {row['paid_cents']} cents, "
                    f"{cents} cannot be refunded"
                )
            try:
                database.execute("INSERT INTO refunds VALUES (?, ?)", (order, cents))
            except sqlite3.IntegrityError:
                raise ShopError(f"order {order} has been refunded already") from None
        return {"order": order, "refunded_cents": cents}

    def track_parcel(self, parcel: str) -> dict[str, Any]:
        """The state of a parcel."""
        rows = self._select("SELECT id, age_days FROM orders WHERE parcel = ?", parcel)
        if not rows:
            raise ShopError(f"there is no parcel {parcel}")
        age = rows[0]["age_days"]
        return {"parcel": parcel, "state": "delivered" if age > 2 else "on its way", "days": age}

    def check_stock(self, sku: str) -> dict[str, Any]:
        """The stock of an article."""
        rows = self._select("SELECT sku, title, stock FROM articles WHERE sku = ?", sku)
        if not rows:
            raise ShopError(f"there is no article {sku}")
        return rows[0]

    def order_stock(self, sku: str, quantity: int) -> dict[str, Any]:
        """Buy more of an article from the supplier."""
        with self._writing() as database:
            database.execute("INSERT INTO purchases (sku, quantity) VALUES (?, ?)", (sku, quantity))
            database.execute("UPDATE articles SET stock = stock + ? WHERE sku = ?", (quantity, sku))
        return {"sku": sku, "ordered": quantity}

    def query_sales(self, sql: str) -> list[dict[str, Any]]:
        """Query the shop's database; statements that write are refused."""
        # Only reads are authorised: the model writes this SQL.
        with self._lock:
            self._database.set_authorizer(
                lambda action, *_: sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY
            )
            try:
                return [dict(row) for row in self._database.execute(sql)]
            except sqlite3.Error as error:
                raise ShopError(f"{error}: {sql}") from None
            finally:
                self._database.set_authorizer(None)

    def fail_payments(self, order: int, times: int) -> None:
        """Make the payment service fail for the next refunds of an order."""
        self._payment_outages[order] = times

    def _fill(self, random: random.Random) -> None:
        for sku, title, price in GOODS:
            self._database.execute(
                "INSERT INTO articles VALUES (?, ?, ?, ?)",
                (sku, title, price, random.randint(0, 40)),
            )
        for order in range(1, ORDERS + 1):
            sku, _, price = random.choice(GOODS)
            quantity = random.randint(1, 3)
            row = (
                order,
                f"customer-{random.randint(1, 60)}",
                sku,
                quantity,
                price * quantity,
                random.randint(0, 28),
                f"P{order:06}",
            )
            self._database.execute("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def _select(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(row) for row in self._database.execute(sql, values)]

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._database:
            yield self._database
