import { element, renderPage, attimo, write } from "../shop.js";

const statusText = element("p", { class: "status", role: "status" });
const name = element("input", {
  name: "user_id",
  required: true,
  maxlength: 40,
  pattern: "[\\w.@+\\-]+",
  autocomplete: "username",
  title: "A name or an e-mail address, without spaces",
});

async function enter(event) {
  event.preventDefault();
  try {
    // A real shop computes user_hash on its server, after it has authenticated the user.
    const response = await fetch("/shop/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ user_id: name.value.trim() }),
    });
    if (!response.ok) throw new Error(String(response.status));
    const user = await response.json();
    write("user", user);
    attimo("identify", user.user_id, { first_name: user.user_id }, { userHash: user.user_hash });
    location.href = "./";
  } catch {
    statusText.textContent = "No response from the server. Is attimo running in demo mode?";
  }
}

renderPage((main) =>
  main.append(
    element(
      "form",
      { class: "fields narrow", onsubmit: enter },
      element("h1", {}, "Sign in"),
      element(
        "p",
        {},
        "Any name will do; there are no passwords here. ",
        "Sign in as the same name in another browser to be one person in two places.",
      ),
      element("label", {}, "Name", name),
      element("button", { class: "button" }, "Sign in"),
      statusText,
    ),
  ),
);
