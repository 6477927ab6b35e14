"""The tools of the demo's agents are real: a shop that keeps its rules and a search that finds."""

from __future__ import annotations

import pytest

from examples.demo.articles import ARTICLES
from examples.demo.search import Search
from examples.demo.shop import GOODS, PaymentServiceAway, Shop, ShopError


@pytest.fixture
def shop() -> Shop:
    return Shop(seed=1)


def test_an_order_is_refunded_once_and_not_above_what_was_paid(shop: Shop) -> None:
    """The database itself enforces it."""
    paid = shop.lookup_order(5)["paid_cents"]
    with pytest.raises(ShopError, match="cannot be refunded"):
        shop.refund_order(5, paid + 1)
    assert shop.refund_order(5, paid) == {"order": 5, "refunded_cents": paid}
    assert shop.lookup_order(5)["refunded_cents"] == paid
    with pytest.raises(ShopError, match="refunded already"):
        shop.refund_order(5, paid)


def test_the_payment_service_comes_back(shop: Shop) -> None:
    """An outage is another error than a refusal: trying again helps."""
    shop.fail_payments(7, 1)
    with pytest.raises(PaymentServiceAway):
        shop.refund_order(7, 100)
    assert shop.refund_order(7, 100)["order"] == 7


def test_stock_grows_by_what_was_ordered(shop: Shop) -> None:
    """A purchase is seen in the stock."""
    sku = GOODS[0][0]
    before = shop.check_stock(sku)["stock"]
    shop.order_stock(sku, 20)
    assert shop.check_stock(sku)["stock"] == before + 20


def test_what_does_not_exist_is_an_error(shop: Shop) -> None:
    """Unknown orders, parcels and articles are refused in words."""
    with pytest.raises(ShopError, match="there is no order 0"):
        shop.lookup_order(0)
    with pytest.raises(ShopError, match="no parcel P0"):
        shop.track_parcel("P0")
    with pytest.raises(ShopError, match="there is no article tea"):
        shop.check_stock("tea")


def test_reports_read_and_cannot_write(shop: Shop) -> None:
    """The analyst's SQL may ask anything and change nothing, and the shop goes on working
    afterwards.
    """
    assert shop.query_sales("SELECT count(*) AS orders FROM orders") == [{"orders": 240}]
    for statement in (
        "DELETE FROM orders",
        "INSERT INTO refunds VALUES (1, 1)",
        "PRAGMA user_version = 3",
        "nonsense",
    ):
        with pytest.raises(ShopError):
            shop.query_sales(statement)
    assert shop.refund_order(9, 1)["order"] == 9


def test_the_same_seed_is_the_same_shop() -> None:
    """A demo can be repeated."""
    assert Shop(3).lookup_order(11) == Shop(3).lookup_order(11)


@pytest.mark.parametrize(
    ("question", "best"),
    [
        ("How do I descale my espresso machine?", "descaling"),
        ("Which grind do I need for a French press?", "grind-size"),
        ("Can I pause my bean subscription?", "subscriptions"),
        ("Do the syrups contain nuts?", "allergens"),
    ],
)
def test_the_search_finds_the_article_that_is_about_it(question: str, best: str) -> None:
    """The best hit is the right article, with a high score."""
    hits = Search(ARTICLES).find(question)
    assert hits[0].id == best
    assert hits[0].score > 2.5
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_question_about_something_else_finds_nothing_good() -> None:
    """A search always returns something; the score is low if it is not about the question."""
    hits = Search(ARTICLES).find("When should I prune my apple trees?")
    assert len(hits) == 3
    assert hits[0].score < 2
