/* The totals of a cart. */
import { element, money } from "./shop.js";

export function totalsList(totals) {
  const row = (label, amount) => [element("dt", {}, label), element("dd", {}, money(amount))];
  return element(
    "dl",
    {},
    row("Items", totals.itemsTotal),
    totals.discount ? row("Coupon " + totals.applied, -totals.discount) : [],
    row("Delivery", totals.shipping),
    row("Total", totals.total),
  );
}
