"""The help centre of the demo's shop: the few articles that its agents search."""

from __future__ import annotations

from typing import Final

ARTICLES: Final[dict[str, str]] = {
    "refund-window": (
        "Refunds: how long and how much. A customer may ask for a refund within 30 days of "
        "delivery. The refund includes the price paid for the article. Shipping is refunded "
        "only when the article arrived broken or was the wrong one. An order that is still on "
        "its way can be cancelled instead, which costs nothing. An order can be refunded once."
    ),
    "refund-payment": (
        "How a refund is paid out. The money goes back the way it came: card payments within "
        "three working days, bank transfers within five, vouchers at once as a new voucher. If "
        "the payment service is away, try again; it keeps no half-finished refunds."
    ),
    "broken-on-arrival": (
        "Something arrived broken. Ask for the order number and what is broken. Do not ask for "
        "photographs below 50 euros. Offer a replacement first when the article is in stock, a "
        "refund with shipping otherwise."
    ),
    "track-parcel": (
        "Where is my parcel? The tracking number is in the order. Parcels leave the warehouse "
        "on the day of the order when it came in before two in the afternoon. Domestic parcels "
        "take two days, parcels to islands four."
    ),
    "lost-parcel": (
        "A parcel is lost when tracking has not moved for seven days. Open a claim with the "
        "delivery company, then send a replacement or refund with shipping. Do not wait for the "
        "delivery company's answer."
    ),
    "change-address": (
        "Changing the delivery address. Until the parcel has left the warehouse the address can "
        "be changed by support. Afterwards only the delivery company can redirect it, and only "
        "to a pick-up point."
    ),
    "warranty-machines": (
        "Warranty on espresso machines and grinders: two years on parts and work, five years on "
        "the boiler. The customer needs the receipt or the order number. Descaling is not "
        "included; a machine that was never descaled loses the boiler warranty."
    ),
    "descaling": (
        "How to descale an espresso machine. Use the descaler that came with it, one sachet to "
        "a litre of water. Run half of it through the group, wait twenty minutes, run the rest, "
        "then rinse with two tanks of fresh water. Every two months with hard water, twice a "
        "year with soft water."
    ),
    "grind-size": (
        "Which grind for which brewer: espresso fine like table salt, moka pot a little "
        "coarser, hand filter like sand, French press like coarse sea salt. If the shot runs in "
        "under twenty seconds, grind finer."
    ),
    "storing-beans": (
        "Storing coffee beans. Keep them in the closed bag, dark and at room temperature, and "
        "use them within six weeks of roasting. The refrigerator is a bad place: it is damp and "
        "smells of cheese. Freezing works for whole beans in small, airtight portions."
    ),
    "vouchers": (
        "Gift vouchers are valid for three years and can be used in parts. A voucher cannot be "
        "paid out in money. Lost vouchers are replaced when the buyer names the order they were "
        "bought with."
    ),
    "business-customers": (
        "Cafes and offices get an invoice with thirty days to pay, and five per cent off from "
        "ten kilograms of beans a month. A new business customer needs a tax number; approval "
        "takes one working day."
    ),
    "subscriptions": (
        "A bean subscription comes every two, four or six weeks. It can be paused for up to "
        "three months, changed until two days before the next roast, and ended at any time "
        "without a reason."
    ),
    "allergens": (
        "Our coffees contain no allergens. The flavoured syrups may contain traces of nuts; the "
        "hazelnut syrup contains hazelnut extract. The oat drink contains gluten."
    ),
}
