import { make, open, tell, write } from "../house.js";

const said = make("p", { class: "said", role: "status" });
const name = make("input", {
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
    // A real shop computes user_hash on its server, for the user it has checked.
    const answer = await fetch("/shop/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ user_id: name.value.trim() }),
    });
    if (!answer.ok) throw new Error(String(answer.status));
    const user = await answer.json();
    write("user", user);
    tell("identify", user.user_id, { first_name: user.user_id }, { userHash: user.user_hash });
    location.href = "./";
  } catch {
    said.textContent = "The server did not answer. Is attimo running with the demo switched on?";
  }
}

open((main) =>
  main.append(
    make(
      "form",
      { class: "fields narrow", onsubmit: enter },
      make("h1", {}, "Sign in"),
      make(
        "p",
        {},
        "Any name will do; there are no passwords here. ",
        "Sign in as the same name in another browser to be one person in two places.",
      ),
      make("label", {}, "Name", name),
      make("button", { class: "button" }, "Sign in"),
      said,
    ),
  ),
);
